"""Folders that take long to fill, kept for later runs and for workers beside this one."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import stat
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

KEPT_S = 7 * 24 * 3600.0


def kept(kind: str, parts: Iterable[str], make: Callable[[Path], str]) -> tuple[Path, str]:
    """Return a folder that an earlier run has filled; fill it where none has.

    They lie in ``JUPYMAN_TESTS_CACHE``, else in /var/tmp; others can read them. One that nobody used for a week goes.

    Args:
        kind: part of its name; empty for the conda root.
        parts: all that goes into it: another word, another folder.
        make: fills a new one; what it returns is kept with it.

    Returns:
        The folder, and what `make` returned.

    Raises:
        RuntimeError: it belongs to somebody else, or as `make` says.
    """
    parent = Path(os.environ.get("JUPYMAN_TESTS_CACHE", "/var/tmp")).absolute()
    name = f"jupyman-tests-{os.geteuid()}-{kind}"
    folder = parent / f"{name}{hashlib.sha256(chr(0).join(parts).encode()).hexdigest()[:10]}"
    with _locked(folder):
        _own_folder(folder)
        complete = folder / "complete"
        if not complete.exists():
            shutil.rmtree(folder)
            _own_folder(folder)
            complete.write_text(make(folder))
        os.utime(complete)
        said = complete.read_text()
    _remove_old(parent, name, folder)
    return folder, said


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    # Without following a link: /var/tmp is open to all.
    handle = os.open(f"{folder}.lock", os.O_CREAT | os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _own_folder(folder: Path) -> None:
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o755)
    status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o022:
        raise RuntimeError(f"{folder} is not a folder of ours")
    folder.chmod(0o755)


def _remove_old(parent: Path, name: str, keep: Path) -> None:
    for folder in parent.glob(f"{name}*"):
        complete = folder / "complete"
        with contextlib.suppress(OSError):
            old = folder.is_dir() and time.time() - complete.stat().st_mtime > KEPT_S
            if old and folder != keep and folder.lstat().st_uid == os.geteuid():
                shutil.rmtree(folder)
                Path(f"{folder}.lock").unlink()
