"""The POSIX sh scripts and Python programs that run on hosts, as files beside this module.

A script names the libraries that it uses in a comment: ``# uses: lib/server lib/lock``. `jupyman.host.shell.script`
sends them with it.
"""

import functools
import re
from importlib.resources import files
from importlib.resources.abc import Traversable

_USES = re.compile(r"^# uses: (.+)$", re.MULTILINE)


def preload() -> None:
    """Read all of them into memory: a daemon goes on with these while another version is installed in their place."""
    pending: list[tuple[str, Traversable]] = [("", files(__name__))]
    while pending:
        place, folder = pending.pop()
        for one in folder.iterdir():
            name = f"{place}{one.name}"
            if one.is_dir():
                pending.append((f"{name}/", one))
            elif name.endswith((".sh", ".py")):
                _read(name)


@functools.cache
def _read(name: str) -> str:
    return files(__name__).joinpath(name).read_text(encoding="utf-8")


def script(name: str) -> str:
    """Read one of the remote scripts.

    Args:
        name: file name without ``.sh``.

    Returns:
        The script's text.

    Raises:
        FileNotFoundError: there is no such script (a bug).
    """
    return _read(f"{name}.sh")


def libraries(name: str) -> list[str]:
    """Return the libraries that a script needs, each after those that it uses itself.

    Args:
        name: of the script.
    """
    found: list[str] = []
    match = _USES.search(script(name))
    for library in match[1].split() if match is not None else []:
        found += [one for one in (*libraries(library), library) if one not in found]
    return found


def program(name: str) -> str:
    """Read one of the Python programs that run on a host.

    Args:
        name: file name without ``.py``.

    Returns:
        The program's text.

    Raises:
        FileNotFoundError: there is no such program (a bug).
    """
    return _read(f"{name}.py")
