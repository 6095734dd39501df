"""The POSIX sh scripts that travel to a host, as files beside this module."""

from importlib.resources import files


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
