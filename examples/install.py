"""Make .venv in the project's folder and install jupyman there, with the standard library only.

Usage: python examples/install.py EXTRA...

Prints the path of the Python in .venv. A second run changes nothing and returns at once; of two runs at the same time
one waits for the other. `examples/demo.sh` and `tests/run.sh` call it.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
STAMP = VENV / "jupyman-installed.json"
PYTHON = VENV / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
OLDEST = (3, 11)


def say(text: str) -> None:
    """Print a line for the user to stderr; stdout is for the result."""
    print(text, file=sys.stderr, flush=True)


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """Wait for another run in the same folder; the system releases the lock when the process ends."""
    handle = os.open(ROOT / ".venv.lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        if sys.platform == "win32":
            import msvcrt

            msvcrt.locking(handle, msvcrt.LK_LOCK, 1)
        else:
            import fcntl

            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                say("another run is installing into .venv: waiting for it")
                fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def run(*words: str | Path) -> bool:
    """Run a program with its output on stderr; return whether it succeeded."""
    return subprocess.run([str(word) for word in words], stdout=sys.stderr, check=False).returncode == 0


def module(python: str | Path, name: str) -> list[str | Path]:
    """Return the command that runs an installed module, never one of that name in the current directory."""
    return [python, "-P", "-m", name]


def make_venv() -> None:
    """Make an empty .venv, also if Python has no ensurepip (Debian's python3)."""
    if VENV.exists():
        shutil.rmtree(VENV)
    if importlib.util.find_spec("ensurepip") is not None and run(*module(sys.executable, "venv"), VENV):
        return
    say("python -m venv does not work here: trying virtualenv")
    shutil.rmtree(VENV, ignore_errors=True)
    bootstrap = ROOT / ".bootstrap"
    if not run(*module(sys.executable, "pip"), "install", "-q", "--target", bootstrap, "virtualenv"):
        raise SystemExit(
            "error: no virtual environment can be made\nhint: install python3-venv (Debian, Ubuntu) or pip"
        )
    environ = {**os.environ, "PYTHONPATH": str(bootstrap)}
    words = [*module(sys.executable, "virtualenv"), "-q", VENV]
    if subprocess.run(words, env=environ, stdout=sys.stderr, check=False).returncode != 0:
        raise SystemExit("error: virtualenv failed\nhint: install python3-venv (Debian, Ubuntu) and run this again")


def wanted(extras: list[str]) -> dict[str, object]:
    """Describe the installation; an equal description needs no new one."""
    content = (ROOT / "pyproject.toml").read_bytes()
    return {"root": str(ROOT), "pyproject": hashlib.sha256(content).hexdigest(), "extras": sorted(extras)}


def install(extras: list[str]) -> Path:
    """Bring .venv up to date.

    Args:
        extras: extras of pyproject.toml; those of earlier runs are kept.

    Returns:
        The path of its Python.
    """
    with alone():
        try:
            before = json.loads(STAMP.read_text(encoding="utf-8"))
            extras = sorted({*extras, *before["extras"]})
        except (OSError, ValueError, KeyError, TypeError):
            before = None
        usable = PYTHON.exists() and subprocess.run([PYTHON, "-c", ""], check=False).returncode == 0
        if usable and before == wanted(extras):
            return PYTHON
        if not usable or (before is not None and before.get("root") != str(ROOT)):
            say("making .venv")
            make_venv()
        # After an interrupted run this looks incomplete, and has the extras for the next run.
        STAMP.write_text(json.dumps({**wanted(extras), "pyproject": None}), encoding="utf-8")
        chosen = f"[{','.join(extras)}]" if extras else ""
        say(f"installing jupyman{chosen} into .venv (the first time this takes a minute or two)")
        if not run(*module(PYTHON, "pip"), "install", "-q", "--disable-pip-version-check", "-e", f"{ROOT}{chosen}"):
            raise SystemExit(
                "error: the installation failed\nhint: read pip's output above; a package registry must be reachable"
            )
        STAMP.write_text(json.dumps(wanted(extras)), encoding="utf-8")
        return PYTHON


if __name__ == "__main__":
    if sys.version_info < OLDEST:
        raise SystemExit(f"error: this is Python {sys.version.split()[0]}\nhint: run it with Python 3.11 or newer")
    print(install(sys.argv[1:]))
