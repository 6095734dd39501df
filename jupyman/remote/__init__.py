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
