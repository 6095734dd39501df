"""An account of this machine as a host without SSH, and its processes."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from jupyman import errors
from jupyman.ssh.exec.command import CompletedCommand


@dataclass
class Account:
    """A uid with a home. Implements `jupyman.host.shell.script.Shell` without SSH.

    Attributes:
        uid: need not be in /etc/passwd.
        home: becomes HOME.
        shell: runs the scripts.
        environ: further variables; they win.
        cut_at: the link is lost when a line has this text.
    """

    uid: int
    home: Path
    shell: str = "/bin/sh"
    environ: dict[str, str] = field(default_factory=dict)
    cut_at: str | None = None

    def command(self, *argv: str) -> list[str]:
        if os.getuid() == self.uid:
            return list(argv)
        return ["setpriv", f"--reuid={self.uid}", f"--regid={self.uid}", "--clear-groups", *argv]

    def variables(self) -> dict[str, str]:
        base = {"HOME": str(self.home), "PATH": "/usr/local/bin:/usr/bin:/bin", "USER": "tester", "LANG": "C.UTF-8"}
        return {**base, **self.environ}

    def run(
        self,
        script: str,
        *,
        timeout: float,
        limit: int = 0,
        on_line: Callable[[str], None] | None = None,
        cancelled: threading.Event | None = None,
    ) -> CompletedCommand:
        del limit
        with tempfile.TemporaryFile() as complaints:
            process = subprocess.Popen(
                self.command(self.shell, "-s"),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=complaints,
                env=self.variables(),
                cwd="/",
                start_new_session=True,
                umask=0o022,
            )
            assert process.stdin is not None
            assert process.stdout is not None
            watch = threading.Timer(timeout, process.kill)
            watch.start()
            lines: list[bytes] = []
            try:
                process.stdin.write(script.encode())
                process.stdin.close()
                for line in process.stdout:
                    lines.append(line)
                    text = line.decode("utf-8", "replace").rstrip("\n")
                    if on_line is not None:
                        on_line(text)
                    lost = self.cut_at is not None and self.cut_at in text
                    stopped = cancelled is not None and cancelled.is_set()
                    if lost or stopped:
                        process.stdout.close()  # as sshd does when the channel closes; the script runs on
                        threading.Thread(target=process.wait, daemon=True).start()
                        raise errors.Interrupted("interrupted") if stopped else errors.LinkLost("the link was lost")
                process.wait()
            finally:
                watch.cancel()
                process.stdout.close()
            complaints.seek(0)
            return CompletedCommand(b"".join(lines), complaints.read(), process.returncode)


@contextmanager
def new_account() -> Iterator[Account]:
    """Yield a fresh account; what it runs is ended afterwards."""
    uid = random.randrange(200_000, 2_000_000) if os.getuid() == 0 else os.getuid()
    home = Path(tempfile.mkdtemp(prefix="jmh-", dir="/tmp"))
    os.chown(home, uid, -1)
    try:
        yield Account(uid, home)
    finally:
        # Without root the uid is that of a person: only processes with this home are the account's.
        ours = [pid for pid in processes(uid) if os.getuid() == 0 or environ(pid).get("HOME") == str(home)]
        folders = {environ(pid).get("JUPYTER_RUNTIME_DIR") for pid in ours}
        for pid in ours:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for left in Path("/tmp").glob("jm-*"):
            if left.lstat().st_uid == uid and (os.getuid() == 0 or str(left) in folders):
                shutil.rmtree(left, ignore_errors=True)
        home.chmod(0o700)
        shutil.rmtree(home, ignore_errors=True)


def processes(uid: int) -> list[int]:
    """Return the processes of a uid, zombies apart."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if entry.stat().st_uid == uid and "\nState:\tZ" not in (entry / "status").read_text():
                found.append(int(entry.name))
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found


def environ(pid: int) -> dict[str, str]:
    """Return the variables of a process; none when it is gone."""
    try:
        entries = Path(f"/proc/{pid}/environ").read_text(errors="replace").split("\0")
    except OSError:
        return {}
    return dict(entry.split("=", 1) for entry in entries if "=" in entry)


@contextmanager
def public_folder() -> Iterator[Path]:
    """Yield a temporary folder that other accounts can read."""
    folder = Path(tempfile.mkdtemp(prefix="jme-", dir="/tmp"))
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


def alive(pid: int) -> bool:
    """Return whether a process exists and is no zombie."""
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
