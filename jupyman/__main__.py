"""Run the command line with `python -m jupyman`."""

from jupyman.cli.main import main

if __name__ == "__main__":
    raise SystemExit(main())
