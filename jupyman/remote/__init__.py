"""The POSIX sh scripts and Python programs that run on hosts, as files beside this module.

A script names the libraries that it uses in a comment: ``# uses: lib/server lib/lock``. `jupyman.host.shell.script`
sends them with it.
"""

import re
from importlib.resources import files

_USES = re.compile(r"^# uses: (.+)$", re.MULTILINE)


def script(name: str) -> str:
    """Read one of the remote scripts.

    Args:
        name: file name without ``.sh``.

    Returns:
        The script's text.

    Raises:
        FileNotFoundError: there is no such script (a bug).
    """
    return files(__name__).joinpath(f"{name}.sh").read_text(encoding="utf-8")


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
    return files(__name__).joinpath(f"{name}.py").read_text(encoding="utf-8")
