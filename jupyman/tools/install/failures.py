"""What installers say when they fail: the line that says why, and what to do about it.

Sources of the texts: conda/exceptions.py, libmamba's solver messages, pip's and uv's own; the recorded outputs of the
tests name theirs.
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


# In this order: an error of the disk may look like a failed download, a failed download like a package that is missing.
_KINDS: tuple[tuple[str, str, str], ...] = (
    (
        "no-space",
        r"No space left on device|Disk quota exceeded|EDQUOT|ENOSPC|NoSpaceLeftError",
        "make room (pip cache purge, conda clean -a), or choose a folder on another disk with --dir",
    ),
    (
        "checksum",
        r"ChecksumMismatchError|DO NOT MATCH THE HASHES|[Hh]ash mismatch|expected sha256|SafetyError|corrupted",
        "what was downloaded is not what was published: try another mirror, then ask who runs this one",
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
# Where the solver's own words begin.
_WORDS = re.compile(
    r"^\s*(?:PackagesNotFoundError|ResolvePackageNotFound|\w*UnsatisfiableError|Encountered problems|error\s+libmamba"
    r"|The following packages? (?:is|are|could) ?\w*|ERROR: (?:No matching|Could not find|Cannot install|Resolution)"
    r"|\S No solution|CondaHTTPError|ERROR:|[Ee]rror:|CondaError|critical\s+libmamba|\w+Error:)"
)
# Words without news: what pip, conda and uv say around them.
_CHATTER = re.compile(
    r"^(?:\s*$|WARNING: You are using pip|\[notice\]|To search for alternate channels|https?://\S+$"
    r"|and use the search bar|Use `?conda search|==> |\$ "
    r"|Collecting package metadata|Solving environment"
    r"|Note that strict channel priority|For more information|navigate to|ERROR: ResolutionImpossible: for help visit)"
)


def reason(lines: Sequence[str]) -> Reason:
    """Find why an installation failed.

    Args:
        lines: the end of its log.

    Returns:
        The reason, in the installer's own words, shortened.
    """
    # What the last command said: an earlier step's warnings are no reason.
    last = max((number for number, line in enumerate(lines) if line.startswith("$ ")), default=-1)
    told = [line.rstrip() for line in _without_channels(lines[last + 1 :]) if not _CHATTER.match(line)]
    text = "\n".join(told)
    for kind, pattern, hint in _KINDS:
        if re.search(pattern, text):
            return Reason(kind, _words(told, pattern), hint)
    return Reason("failed", _words(told, r"$^"), "the end of its log is above, jupyman env logs NAME shows more")


def _without_channels(lines: Sequence[str]) -> Iterator[str]:
    """Leave out the list of channels that conda looked in: it looks like the packages it did not find."""
    inside = False
    for line in lines:
        inside = line.startswith("Current channels:") or (inside and (not line.strip() or line.startswith(" ")))
        if not inside:
            yield line


# pip's way to say that it got no connection: the system's words, and what it wanted, at the ends of a long line.
_RETRYING = re.compile(r"^WARNING: Retrying .*: (?:\[Errno -?[0-9]+\] )?([^:\[\]]+?)'\)+': (\S+)$")


def _words(told: Sequence[str], pattern: str) -> str:
    """The few lines that say it, as one."""
    told = [_RETRYING.sub(r"\1: \2", line) for line in told]
    start = next((number for number, line in enumerate(told) if _WORDS.match(line) and re.search(pattern, line)), None)
    if start is None:
        start = next((number for number, line in enumerate(told) if re.search(pattern, line)), None)
    if start is None:
        start = next((number for number, line in reversed(list(enumerate(told))) if _WORDS.match(line)), None)
    chosen = list(told[start : start + 6]) if start is not None else list(told[-1:])
    # What belongs to it is indented, or a list; a new sentence of its own is another matter.
    kept = chosen[:1]
    for line in chosen[1:]:
        if not re.match(r"^\s+|^[-└├╰│]|^\w+ ?(?:>=|==|<)|^The (?:following|conflict)", line):
            break
        kept.append(line)
    joined = " ".join(" ".join(kept).split())
    return joined if len(joined) <= _LONGEST else joined[: _LONGEST - 1] + "…"
