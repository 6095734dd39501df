"""An account of this machine as a host without SSH, and its processes."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import tempfile
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from jupyman import errors
from jupyman.ssh.exec.command import CompletedCommand
from tests.bed.accounts import add_account, remove_account


@dataclass
class Account:
    """A uid with a home. Implements `jupyman.host.shell.script.Shell` without SSH.

    Attributes:
        uid: of the account.
        home: becomes HOME.
        name: in /etc/passwd; empty when it has no entry there.
        shell: runs the scripts.
        environ: further variables; they win.
        cut_at: the link is lost when a line has this text.
    """

    uid: int
    home: Path
    name: str = ""
    shell: str = "/bin/sh"
    environ: dict[str, str] = field(default_factory=dict)
    cut_at: str | None = None

    def command(self, *argv: str) -> list[str]:
        """Return the argv that runs a program as this account."""
        if os.getuid() == self.uid:
            return list(argv)
        return ["setpriv", f"--reuid={self.uid}", f"--regid={self.uid}", "--clear-groups", *argv]

    def variables(self) -> dict[str, str]:
        """Return the environment of its programs."""
        base = {
            "HOME": str(self.home),
            "PATH": "/usr/local/bin:/usr/bin:/bin",
            "USER": self.name or "tester",
            "LANG": "C.UTF-8",
        }
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
        """Run a script; see `Shell.run`. A lost link, or a cancellation, leaves it running."""
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
def new_account(*, named: bool = False) -> Iterator[Account]:
    """Yield a fresh account; what it runs is ended afterwards.

    Args:
        named: whether it has an entry in /etc/passwd, which needs root.
    """
    home = Path(tempfile.mkdtemp(prefix="jmh-", dir="/tmp"))
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, home, ignore_errors=True)
        name = ""
        uid = random.randrange(200_000, 2_000_000) if os.getuid() == 0 else os.getuid()
        if named:
            name = f"jmt{uuid.uuid4().hex[:12]}"
            uid = add_account(name, home, Path("/bin/sh")).pw_uid
            stack.callback(remove_account, name)
            home.chmod(0o755)
        os.chown(home, uid, -1)
        account = Account(uid, home, name)
        stack.callback(_end, account)
        yield account


def _end(account: Account) -> None:
    root = os.getuid() == 0
    # Without root the uid is that of a person: only processes with this home are the account's.
    ours = [pid for pid in processes(account.uid) if root or environ(pid).get("HOME") == str(account.home)]
    folders = {environ(pid).get("JUPYTER_RUNTIME_DIR") for pid in ours}
    for pid in ours:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    for left in Path("/tmp").glob("jm-*"):
        with suppress(FileNotFoundError):
            if left.lstat().st_uid == account.uid and (root or str(left) in folders):
                shutil.rmtree(left, ignore_errors=True)
    account.home.chmod(0o700)


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
