"""The program `jupyman`, also as `python -m jupyman`."""

from __future__ import annotations

import sys


def main() -> int:
    """Run the command line; Ctrl-C is handled from the first import on.

    Returns:
        The exit status.
    """
    try:
        from jupyman.cli.main import main as command_line

        return command_line()
    except KeyboardInterrupt:
        sys.stderr.write("error: interrupted\nhint: nothing was started\n")
        return 130


if __name__ == "__main__":
    raise SystemExit(main())
