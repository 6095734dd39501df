"""Find the reason in the output of a failed installer, and what to do about it.

Sources of the texts: conda/exceptions.py, libmamba's solver messages, pip and uv; the recorded outputs of the tests
name theirs.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

_LONGEST = 400


@dataclass(frozen=True)
class Reason:
    """Why an installation failed; `kind` for machines."""

    kind: str
    text: str
    hint: str


# In this order: a disk error may look like a failed download, and a failed download like a missing package.
_KINDS: tuple[tuple[str, str, str], ...] = (
    (
        "no-space",
        r"No space left on device|Disk quota exceeded|EDQUOT|ENOSPC|NoSpaceLeftError",
        "make room (pip cache purge, conda clean -a), or choose a folder on another disk with --dir",
    ),
    (
        "checksum",
        r"ChecksumMismatchError|DO NOT MATCH THE HASHES|[Hh]ash mismatch|expected sha256|SafetyError|corrupted",
        "the download differs from what was published: try another mirror, and inform the operator of this one",
    ),
    (
        "unreachable",
        (
            r"CondaHTTPError|HTTP 000|Connection(?:Error| refused| timed out| reset)"
            r"|Failed to establish a new connection"
            r"|Could not resolve host|Name or service not known|Temporary failure in name resolution"
            r"|[Nn]etwork is unreachable|Read timed out|ProxyError|SSLError|Couldn't connect"
            r"|[Ff]ailed to (?:fetch|download)|error sending request|UnavailableInvalidChannel|Download error"
        ),
        "jupyman env mirror ls HOST shows which mirrors the host can reach; --mirror uses one of them",
    ),
    (
        "permission",
        r"Permission denied|NotWritableError|EnvironmentNotWritableError|Read-only file system",
        "choose a folder of your own with --dir",
    ),
    (
        "unsolvable",
        (
            r"PackagesNotFoundError|ResolvePackageNotFound|UnsatisfiableError|Encountered problems"
            r"|nothing provides|Could not solve"
            r"|does not exist|No matching distribution|ResolutionImpossible|conflicting dependencies|No solution found"
            r"|Cannot install|not available from current channels|conflicts with|Cannot solve the request"
        ),
        "leave a version out, or change what is asked for, and run it again",
    ),
)
# The line with which a solver's message begins.
_WORDS = re.compile(
    r"^\s*(?:PackagesNotFoundError|ResolvePackageNotFound|\w*UnsatisfiableError|Encountered problems|error\s+libmamba"
    r"|The following packages? (?:is|are|could) ?\w*|ERROR: (?:No matching|Could not find|Cannot install|Resolution)"
    r"|\S No solution|CondaHTTPError|ERROR:|[Ee]rror:|CondaError|critical\s+libmamba|\w+Error:)"
)
# Lines without information.
_CHATTER = re.compile(
    r"^(?:\s*$|WARNING: You are using pip|\[notice\]|To search for alternate channels|https?://\S+$"
    r"|and use the search bar|Use `?conda search|==> |\$ "
    r"|Collecting package metadata|Solving environment"
    r"|Note that strict channel priority|For more information|navigate to|ERROR: ResolutionImpossible: for help visit)"
)


def reason(lines: Sequence[str]) -> Reason:
    """Return why an installation failed.

    Args:
        lines: the end of its log.

    Returns:
        The reason, in the installer's own words, shortened.
    """
    # Only the output of the last command: warnings of an earlier step are not the reason.
    last = max((number for number, line in enumerate(lines) if line.startswith("$ ")), default=-1)
    useful = [line.rstrip() for line in _without_channels(lines[last + 1 :]) if not _CHATTER.match(line)]
    text = "\n".join(useful)
    for kind, pattern, hint in _KINDS:
        if re.search(pattern, text):
            return Reason(kind, _words(useful, pattern), hint)
    return Reason("failed", _words(useful, r"$^"), "the end of its log is above, jupyman env logs NAME shows more")


def _without_channels(lines: Sequence[str]) -> Iterator[str]:
    """Skip conda's list of channels, which looks like the list of missing packages."""
    inside = False
    for line in lines:
        inside = line.startswith("Current channels:") or (inside and (not line.strip() or line.startswith(" ")))
        if not inside:
            yield line


# pip's warning about a failed connection: the system's error and the path are at the ends of a long line.
_RETRYING = re.compile(r"^WARNING: Retrying .*: (?:\[Errno -?[0-9]+\] )?([^:\[\]]+?)'\)+': (\S+)$")


def _words(lines: Sequence[str], pattern: str) -> str:
    """Return the few lines with the reason, as one."""
    lines = [_RETRYING.sub(r"\1: \2", line) for line in lines]
    start = next((number for number, line in enumerate(lines) if _WORDS.match(line) and re.search(pattern, line)), None)
    if start is None:
        start = next((number for number, line in enumerate(lines) if re.search(pattern, line)), None)
    if start is None:
        start = next((number for number, line in reversed(list(enumerate(lines))) if _WORDS.match(line)), None)
    chosen = list(lines[start : start + 6]) if start is not None else list(lines[-1:])
    # Lines that belong to it are indented, or a list.
    kept = chosen[:1]
    for line in chosen[1:]:
        if not re.match(r"^\s+|^[-└├╰│]|^\w+ ?(?:>=|==|<)|^The (?:following|conflict)", line):
            break
        kept.append(line)
    joined = " ".join(" ".join(kept).split())
    return joined if len(joined) <= _LONGEST else joined[: _LONGEST - 1] + "…"
