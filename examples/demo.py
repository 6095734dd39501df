"""Run jupyman against a temporary SSH host on this computer: install into .venv, then run `jupyman demo`.

Usage: python examples/demo.py [OPTION of `jupyman demo`]...
"""

from __future__ import annotations

import os
import subprocess
import sys

from install import OLDEST, install

if sys.version_info < OLDEST:
    raise SystemExit(f"error: this is Python {sys.version.split()[0]}\nhint: run it with Python 3.11 or newer")
try:
    words = [str(install(["demo"])), "-P", "-m", "jupyman", "demo", *sys.argv[1:]]
except KeyboardInterrupt:
    raise SystemExit(130) from None
if os.name == "posix":
    # Replace this process, so that Ctrl-C reaches the demo directly and it can clean up.
    os.execv(words[0], words)  # noqa: S606 - a shell is not needed
raise SystemExit(subprocess.run(words, check=False).returncode)
