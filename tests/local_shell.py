"""This machine as a host: a `Shell` without SSH in between."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO

from jupyman import errors
from jupyman.host.shell.script import ANSWER_LIMIT
from jupyman.ssh.exec.command import CompletedCommand

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class LocalShell:
    """Runs scripts by ``sh -s`` as sshd would: a bare environment, and done when nobody holds its output any more.

    Args:
        home: becomes HOME; the account's own where None.
        user: another account to run as; only root can.
        env: further variables; they win.
        shell: the program that runs the scripts (``("busybox", "sh")`` and the like).
    """

    def __init__(
        self,
        home: Path | None = None,
        user: str | None = None,
        env: Mapping[str, str] | None = None,
        shell: tuple[str, ...] = ("/bin/sh",),
    ) -> None:
        self.account = pwd.getpwnam(user) if user is not None else pwd.getpwuid(os.getuid())
        self.home = home if home is not None else Path(self.account.pw_dir)
        self.env = dict(env or {})
        self.shell = shell

    def command(self, *argv: str) -> list[str]:
        """Return the argv that runs a program as this account."""
        if self.account.pw_uid == os.getuid():
            return list(argv)
        ids = [f"--reuid={self.account.pw_uid}", f"--regid={self.account.pw_gid}", "--clear-groups"]
        # By its path: a test may take PATH away from the shell.
        return [shutil.which("setpriv", path=PATH) or "setpriv", *ids, *argv]

    def variables(self) -> dict[str, str]:
        """Return the environment: what sshd sets, and `env`."""
        name = self.account.pw_name
        base = {"HOME": str(self.home), "PATH": PATH, "USER": name, "LOGNAME": name, "SHELL": self.account.pw_shell}
        return {**base, **self.env}

    def run(
        self,
        script: str,
        *,
        timeout: float,
        limit: int = ANSWER_LIMIT,
        on_line: Callable[[str], None] | None = None,
        cancelled: threading.Event | None = None,
    ) -> CompletedCommand:
        """Run a script; see `Shell.run`."""
        process = subprocess.Popen(
            self.command(*self.shell, "-s"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=self.variables(),
            cwd="/",
            start_new_session=True,
        )
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        late = threading.Event()

        def give_up() -> None:
            late.set()
            kill_group(process.pid)

        kept, complaints = bytearray(), bytearray()
        # Who holds stderr open holds the channel open, as with sshd.
        listener = threading.Thread(target=_drain, args=(process.stderr, complaints, limit), daemon=True)
        watch = threading.Timer(timeout, give_up)
        watch.daemon = True
        listener.start()
        watch.start()
        try:
            with process.stdin as source, suppress(BrokenPipeError):
                source.write(script.encode())
            for line in process.stdout:
                kept += line[: max(0, limit - len(kept))]
                if on_line is not None:
                    on_line(line.decode("utf-8", "replace").rstrip("\n"))
                if cancelled is not None and cancelled.is_set():
                    kill_group(process.pid)
                    raise errors.Interrupted("cancelled")
            listener.join()
        finally:
            watch.cancel()
            process.stdout.close()
            process.wait()
            listener.join()
            process.stderr.close()
        if late.is_set():
            raise errors.RemoteFailed(f"no answer in {timeout:g} s")
        return CompletedCommand(bytes(kept), bytes(complaints), process.returncode)


def _drain(stream: IO[bytes], into: bytearray, limit: int) -> None:
    for line in stream:
        into += line[: max(0, limit - len(into))]


def kill_group(pid: int) -> None:
    """Kill a process group that we started; it may be gone."""
    with suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)


def bare_path(folder: Path, *without: str) -> str:
    """Make a PATH of one folder with links to this machine's programs.

    Args:
        folder: is made.
        without: names of the programs that shall be missing.

    Returns:
        The folder's path.
    """
    folder.mkdir(mode=0o755)
    for name in ("/usr/sbin", "/usr/bin", "/sbin", "/bin"):
        for program in Path(name).iterdir():
            link = folder / program.name
            if program.name not in without and not link.is_symlink():
                link.symlink_to(program)
    return str(folder)
