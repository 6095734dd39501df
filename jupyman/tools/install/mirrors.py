"""Mirrors of conda's channels and of PyPI, and the edits that put them into the files of conda and pip.

Files are edited line by line: what the user wrote (comments, order, quotes, other keys) is kept. A file in a form that
is not supported (a value in braces on the key's own line) is refused.
Formats: conda's documentation, "Mirroring channels" (default_channels, custom_channels); pip's, "Configuration".
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from jupyman import errors
from jupyman.config import MirrorEntry
from jupyman.model import Noun


class Mirror(Noun, frozen=True, kw_only=True):
    """A mirror; `conda` contains ``pkgs/main`` and ``cloud/conda-forge`` as the public ones do; None: it has none."""

    name: str
    conda: str | None = None
    pip: str | None = None
    torch: str | None = None  # contains the indices of torch's builds: cu124, cpu
    own: bool = False


BUILT_IN: dict[str, Mirror] = {
    mirror.name: mirror
    for mirror in (
        Mirror(
            name="tuna",
            conda="https://mirrors.tuna.tsinghua.edu.cn/anaconda",
            pip="https://pypi.tuna.tsinghua.edu.cn/simple",
        ),
        Mirror(
            name="ustc", conda="https://mirrors.ustc.edu.cn/anaconda", pip="https://mirrors.ustc.edu.cn/pypi/simple"
        ),
        Mirror(
            name="aliyun", conda="https://mirrors.aliyun.com/anaconda", pip="https://mirrors.aliyun.com/pypi/simple"
        ),
        Mirror(
            name="bfsu",
            conda="https://mirrors.bfsu.edu.cn/anaconda",
            pip="https://mirrors.bfsu.edu.cn/pypi/web/simple",
        ),
    )
}
# Conda's default channels, and the channels of the community that have torch.
_DEFAULTS = ("pkgs/main", "pkgs/r", "pkgs/msys2")
_CLOUD = ("conda-forge", "pytorch")
_KEY = re.compile(r"(?P<key>[A-Za-z_][A-Za-z0-9_-]*)\s*:(?P<rest>.*)")
_SECTION = re.compile(r"\s*\[(?P<name>[^\]]+)\]\s*(?:[#;].*)?")


def every(own: Mapping[str, MirrorEntry]) -> dict[str, Mirror]:
    """Return all mirrors by name; the user's own replace built-in ones of the same name."""
    mine = {
        name: Mirror(name=name, conda=entry.conda, pip=entry.pip, torch=entry.torch, own=True)
        for name, entry in own.items()
    }
    return {**BUILT_IN, **mine}


def find(name: str, own: Mapping[str, MirrorEntry]) -> Mirror:
    """Find a mirror by name.

    Args:
        name: given by the user.
        own: of config.toml.

    Raises:
        UsageFault: no mirror has that name.
    """
    found = every(own)
    if name not in found:
        hint = f"available: {', '.join(sorted(found))}; own ones are set in config.toml"
        raise errors.UsageFault(f"no mirror is called {name[:80]!r}", hint)
    return found[name]


def condarc(text: str, mirror: Mirror, known: Iterable[Mirror]) -> str:
    """Put a mirror into a ``.condarc`` or ``.mambarc``.

    Args:
        text: the file; "" when it is absent.
        mirror: the mirror; one without `conda` changes nothing.
        known: all mirrors; their addresses in the file are replaced by those of the new one.

    Returns:
        The new text.

    Raises:
        UsageFault: the file has a form that is not supported.
    """
    if mirror.conda is None:
        return text
    base = mirror.conda.rstrip("/")
    lines = _moved(text, [one.conda for one in known], base).splitlines()
    lines = _block(lines, "default_channels", [f"  - {base}/{name}" for name in _DEFAULTS])
    wanted = {name: f"  {name}: {base}/cloud" for name in _CLOUD}
    return _joined(_merged(lines, "custom_channels", wanted), text)


def pip_conf(text: str, mirror: Mirror) -> str:
    """Put a mirror into a ``pip.conf``: ``index-url`` of the section ``[global]``.

    Args:
        text: the file; "" when it is absent.
        mirror: the mirror; one without `pip` changes nothing.

    Returns:
        The new text.
    """
    if mirror.pip is None:
        return text
    line = f"index-url = {mirror.pip}"
    lines = text.splitlines()
    section, start, end = "", None, len(lines)
    for number, one in enumerate(lines):
        found = _SECTION.fullmatch(one)
        if found is None:
            continue
        if section == "global" and start is not None:
            end = number
            break
        section = found["name"].strip().lower()
        start = number + 1 if section == "global" else start
    if start is None:
        return _joined([*lines, *([""] if lines and lines[-1].strip() else []), "[global]", line], text)
    # pip reads index_url and index-url; a value may continue in indented lines, and the last of several counts.
    kept: list[str] = []
    placed = inside = False
    for one in lines[start:end]:
        if inside and one[:1].isspace() and one.strip():
            continue
        inside = re.match(r"index[-_]url\s*[=:]", one, re.IGNORECASE) is not None
        if not inside:
            kept.append(one)
        elif not placed:
            kept.append(line)
            placed = True
    if not placed:
        kept.insert(0, line)
    return _joined([*lines[:start], *kept, *lines[end:]], text)


def _moved(text: str, bases: Iterable[str | None], base: str) -> str:
    """Replace addresses of other mirrors by those of the new one, except in comments."""
    old = sorted({one.rstrip("/") for one in bases if one} - {base}, key=len, reverse=True)
    lines = []
    for line in text.splitlines():
        body, mark, comment = line.partition(" #") if not line.lstrip().startswith("#") else ("", "", line)
        for one in old:
            body = re.sub(rf"{re.escape(one)}(?=[/\s'\"]|$)", base, body)
        lines.append(body + mark + comment)
    return "\n".join(lines)


def _block(lines: list[str], key: str, children: list[str]) -> list[str]:
    """Replace the children of a top-level key of a YAML file; add the key if it is absent."""
    place = _place(lines, key)
    if place is None:
        return [*lines, f"{key}:", *children]
    start, end = place
    kept = [line for line in lines[start + 1 : end] if line.lstrip().startswith("#")]
    return [*lines[: start + 1], *kept, *children, *lines[end:]]


def _merged(lines: list[str], key: str, wanted: dict[str, str]) -> list[str]:
    """Set some keys of a top-level mapping of a YAML file; the others are kept."""
    place = _place(lines, key)
    if place is None:
        return [*lines, f"{key}:", *wanted.values()]
    start, end = place
    indent = next((line[: len(line) - len(line.lstrip())] for line in lines[start + 1 : end] if ":" in line), "  ")
    rest = dict(wanted)
    body = []
    for line in lines[start + 1 : end]:
        found = _KEY.match(line.strip().replace('"', "").replace("'", ""))
        name = found["key"] if found is not None else None
        body.append(indent + rest.pop(name).strip() if name in rest else line)
    return [*lines[: start + 1], *body, *(indent + one.strip() for one in rest.values()), *lines[end:]]


def _place(lines: list[str], key: str) -> tuple[int, int] | None:
    """Find a top-level key of a YAML file: its line, and the first one that no longer belongs to it."""
    for start, line in enumerate(lines):
        found = _KEY.match(line)
        if found is None or found["key"] != key:
            continue
        rest = found["rest"].partition(" #")[0].strip()
        if rest:
            raise errors.UsageFault(
                f"line {start + 1} ({key}) has a form that jupyman does not edit",
                "write it as a list with one item a line, or edit the file by hand",
            )
        end = start + 1
        while end < len(lines) and not re.match(r"[^\s#-]", lines[end]):
            end += 1
        # Unindented comments and empty lines before the next key belong to that key.
        while end > start + 1 and (not lines[end - 1].strip() or lines[end - 1].startswith("#")):
            end -= 1
        return start, end
    return None


def _joined(lines: list[str], old: str) -> str:
    newline = "\r\n" if "\r\n" in old else "\n"
    return newline.join(lines) + newline
