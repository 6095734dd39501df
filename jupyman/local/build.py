"""Which code of jupyman runs: one version may have many builds (a checkout that is edited, a wheel that is built anew).

`identity` is a hash of the contents. It is the same in two environments that have the same release: their commands
share one daemon. It reads all files (4 ms from the system's cache, far more from a cold disk or over a network), too
much for each command. `stamp` looks at each file's size and time (1 ms); it changes with the place of the package and
with every change of a file. A daemon notes both at its start. A client compares the stamps, and the contents only if
the stamps differ.
"""

from __future__ import annotations

import functools
import hashlib
import os
from collections.abc import Iterator

_PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))  # noqa: PTH100, PTH120 - pathlib takes longer
_SUFFIXES = (".py", ".sh", ".html", ".css", ".js")


@functools.cache
def identity() -> str:
    """Return a hash of the package's code, 16 hexadecimal digits; "" if it does not lie in a folder (a zip archive)."""
    content = hashlib.sha256()
    try:
        for entry in sorted(_files(_PACKAGE), key=lambda entry: entry.path):
            with open(entry.path, "rb") as file:  # noqa: PTH123 - as above
                code = file.read()
            content.update(os.fsencode(f"{entry.path.removeprefix(_PACKAGE)}\n{len(code)}\n") + code)
    except OSError:
        return ""
    return content.hexdigest()[:16]


def stamp() -> str:
    """Return where the code lies and a summary of its files' sizes and times; "" if it does not lie in a folder."""
    count = size = times = 0
    try:
        for entry in _files(_PACKAGE):
            status = entry.stat()
            count, size, times = count + 1, size + status.st_size, times + status.st_mtime_ns
    except OSError:
        return ""
    return f"{count} {size} {times} {_PACKAGE}"


def _files(folder: str) -> Iterator[os.DirEntry[str]]:
    """Walk over the files; what Python compiles, and what an editor keeps beside a file, is no part of the code."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir():
                if entry.name != "__pycache__":
                    yield from _files(entry.path)
            elif entry.name.endswith(_SUFFIXES) and not entry.name.startswith("."):
                yield entry
