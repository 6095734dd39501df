"""Unix accounts made for the tests: one for each login shell, one whose shell prints a banner, and another user."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pwd
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import psutil
import pytest

from tests.bed import holder
from tests.bed.wait import wait_until

SYSTEM_PATH = "/usr/local/bin:/usr/bin:/bin"
KINDS = ("bash", "dash", "tcsh", "fish", "zsh", "banner", "other")
SHELLS = {"dash": "sh", "banner": "bash", "other": "bash"}
NOISE_LINES = 200
needs_root = pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="only root can make accounts")
_POSIX_NOISE = """\
# 200 lines on both streams: an extreme case of what login scripts of lab servers print.
i=0
while [ "$i" -lt 200 ]; do
    i=$((i + 1))
    echo "NOTICE $i: the lab's file server will be down on Friday"
    echo "warning $i: module not found" >&2
done
"""
_CSH_NOISE = """\
set i = 0
while ($i < 200)
    @ i++
    echo "NOTICE ${i}: the lab's file server will be down on Friday"
    sh -c "echo 'warning ${i}: module not found' >&2"
end
"""


@dataclass(frozen=True)
class Held:
    """A port and the process that holds it."""

    port: int
    pid: int


@dataclass(frozen=True)
class User:
    """An account of the bed.

    Attributes:
        kind: ``bash dash tcsh fish zsh banner other``.
        name: of the account.
        uid: of the account.
        gid: of its group.
        home: its home, 0755, under the bed's folder.
        shell: its login shell.
        programs: a folder that comes first in the PATH of its SSH sessions; for the tests to fill.
        made: whether the bed made the account; otherwise it is the one that runs the tests.
        mark: a variable ``NAME=VALUE`` of all its SSH sessions.
    """

    kind: str
    name: str
    uid: int
    gid: int
    home: Path
    shell: Path
    programs: Path
    made: bool
    mark: str

    @property
    def conda(self) -> Path:
        """``~/miniconda3``, a link to the bed's conda root."""
        return self.home / "miniconda3"

    @property
    def path(self) -> str:
        """PATH of its SSH sessions."""
        return f"{self.programs}:{SYSTEM_PATH}"

    def environ(self) -> dict[str, str]:
        """Return the variables of its SSH sessions."""
        name, _, value = self.mark.partition("=")
        base = {"HOME": str(self.home), "PATH": self.path, "SHELL": str(self.shell), name: value}
        return {**base, "USER": self.name, "LOGNAME": self.name}

    def start(self, *words: str, env: Mapping[str, str] | None = None, **how: Any) -> subprocess.Popen[str]:
        """Start a program as this user, without SSH.

        Args:
            words: the program and its arguments.
            env: further variables.
            how: for ``subprocess.Popen``.

        Returns:
            The process; its streams are text.
        """
        ids: dict[str, Any] = {"user": self.uid, "group": self.gid, "extra_groups": []} if self.made else {}
        environ = {**self.environ(), **(env or {})}
        return subprocess.Popen(words, text=True, cwd=self.home, env=environ, start_new_session=True, **ids, **how)

    def run(self, *words: str, input: str = "", timeout: float = 60.0) -> subprocess.CompletedProcess[str]:
        """Run a program as this user, without SSH.

        Args:
            words: the program and its arguments.
            input: its standard input.
            timeout: seconds.

        Returns:
            Status and output; the status is not checked.
        """
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        with self.start(*words, **pipes) as process:
            try:
                out, err = process.communicate(input, timeout)
            except subprocess.TimeoutExpired:
                process.kill()
                raise
            return subprocess.CompletedProcess(words, process.returncode, out, err)

    def put(self, path: str | Path, text: str, mode: int = 0o644) -> Path:
        """Write a file into the home, with its folders, all owned by the user.

        Args:
            path: below the home.
            text: its content.
            mode: its permissions.

        Returns:
            The file.
        """
        target = self.home / path
        missing = [folder for folder in (target.parent, *target.parent.parents) if not folder.exists()]
        for folder in reversed(missing):
            folder.mkdir()
            self._own(folder)
        target.write_text(text)
        target.chmod(mode)
        self._own(target)
        return target

    def program(self, name: str, text: str) -> Path:
        """Put a program on the PATH of the user's SSH sessions; `reset` removes it.

        Args:
            name: of the program.
            text: a script, with its first line.
        """
        target = self.programs / name
        target.write_text(text)
        target.chmod(0o755)
        return target

    def set_gpu(self, case: str | None, apps: Iterable[tuple[str, int, str, str]] | None = None) -> None:
        """Choose what ``nvidia-smi`` prints in the user's SSH sessions; `reset` removes it.

        Args:
            case: a folder of tests/data/nvidia-smi; None: there is no such program.
            apps: the processes on the GPUs instead of the case's: uuid of the GPU, pid, name, MiB or ``[N/A]``.
        """
        program, choice = self.programs / "nvidia-smi", self.programs / "nvidia-smi.case"
        table = self.programs / "nvidia-smi.apps"
        for file in (program, choice, table):
            file.unlink(missing_ok=True)
        if apps is not None:
            lines = ["gpu_uuid, pid, process_name, used_gpu_memory", *(", ".join(map(str, app)) for app in apps)]
            table.with_suffix(".new").write_text("".join(f"{line}\n" for line in lines))
            table.with_suffix(".new").rename(table)
        if case is not None:
            stand_in = self.programs.parent.parent / "gpu" / "nvidia_smi.sh"
            if not (stand_in.parent / "cases" / case).is_dir():
                raise ValueError(f"no case {case} in tests/data/nvidia-smi")
            choice.write_text(f"{case}\n")
            program.symlink_to(stand_in)

    def set_password(self, password: str) -> None:
        """Give the account a password; it has none before.

        Args:
            password: without a newline.
        """
        assert self.made, "the password of a person's account is left alone"
        subprocess.run(["chpasswd"], input=f"{self.name}:{password}\n", text=True, check=True, capture_output=True)

    @contextlib.contextmanager
    def hold_port(self, port: int = 0, address: str = "127.0.0.1", *, listen: bool = True) -> Iterator[Held]:
        """Hold a TCP port as this user.

        Args:
            port: 0 takes a free one.
            address: to bind to.
            listen: whether connections are accepted (and closed at once).

        Yields:
            The port and the process.
        """
        python = self.home / "miniconda3" / "bin" / "python"
        source = Path(holder.__file__).read_text()
        mode = "listen" if listen else "bind"
        process = self.start(
            str(python if python.exists() else sys.executable),
            "-c",
            source,
            address,
            str(port),
            mode,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        with process:
            stdout: IO[str] | None = process.stdout
            assert stdout is not None
            words = stdout.readline().split()
            assert words[:1] == ["READY"], f"{self.name} could not hold {address}:{port}"
            try:
                yield Held(int(words[1]), process.pid)
            finally:
                process.kill()

    def processes(self) -> list[psutil.Process]:
        """Return the user's processes; in an account of a person, those of its SSH sessions here."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error, OSError):
                if process.uids().real != self.uid or process.status() == psutil.STATUS_ZOMBIE:
                    continue
                name, _, value = self.mark.partition("=")
                if self.made or process.environ().get(name) == value:
                    found.append(process)
        return found

    def kill_all(self) -> None:
        """End all that the user runs."""

        def none_left() -> bool:
            left = self.processes()
            for process in left:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
            return not left

        wait_until(none_left, what=f"the end of {self.name}'s processes")

    def reset(self, *, idle: bool = False) -> None:
        """End all that the user runs and restore the home, in a few milliseconds.

        Args:
            idle: whether the user is known to run nothing.
        """
        sockets = [] if self.made else self._socket_folders()
        if not idle:
            self.kill_all()
        for folder in sockets:
            shutil.rmtree(folder, ignore_errors=True)
        if self.made:
            for folder in (Path("/tmp"), Path("/var/tmp"), Path("/dev/shm")):
                for left in folder.iterdir():
                    with contextlib.suppress(FileNotFoundError):
                        if left.lstat().st_uid == self.uid and not self.home.is_relative_to(left):
                            _remove(left)
        for folder in (self.home, self.programs):
            for left in folder.iterdir():
                _remove(left)
        self.fill_home()

    def _socket_folders(self) -> set[Path]:
        """Return the folders in /tmp of the running servers; in an account of a person, only these are ours."""
        found = set()
        for process in self.processes():
            with contextlib.suppress(psutil.Error):
                folder = Path(process.environ().get("JUPYTER_RUNTIME_DIR", ""))
                if folder.name.startswith("jm-"):
                    found.add(folder)
        return found

    def fill_home(self) -> None:
        """Fill the home: rc files, the link to conda, an environment."""
        self.conda.symlink_to(self.programs.parent.parent / "conda")
        shutil.copytree(self.programs.parent.parent / "prefix", self.home / "work" / "env", symlinks=True)
        self.put(".conda/environments.txt", f"{self.home}/work/env\n")
        if self.kind == "banner":
            for name in (".bashrc", ".profile", ".zshenv"):
                self.put(name, _POSIX_NOISE)
            self.put(".cshrc", _CSH_NOISE)
        for parent, folders, names in os.walk(self.home / "work"):
            for name in (".", *folders, *names):
                self._own(Path(parent, name))
        self._own(self.conda)

    def _own(self, path: Path) -> None:
        if self.made:
            os.chown(path, self.uid, self.gid, follow_symlinks=False)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        # A test may have taken away the permissions, which matters without root.
        for parent, folders, _ in os.walk(path):
            for name in folders:
                if not Path(parent, name).is_symlink():
                    Path(parent, name).chmod(0o700)
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def shell_of(kind: str) -> Path | None:
    """Find the login shell of a kind of user.

    Args:
        kind: one of `KINDS`.

    Returns:
        The program; None when this machine has none.
    """
    found = shutil.which(SHELLS.get(kind, kind), path="/bin:/usr/bin:/usr/local/bin")
    return Path(found) if found else None


@contextlib.contextmanager
def _one_at_a_time() -> Iterator[None]:
    # useradd fails while another one runs, and each worker has a bed.
    handle = os.open("/tmp/jmbed.lock", os.O_CREAT | os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def add_account(name: str, home: Path, shell: Path) -> pwd.struct_passwd:
    """Make an account that can log in with a key and has no password.

    Args:
        name: not in use.
        home: is not created.
        shell: an absolute path.

    Returns:
        Its entry.
    """
    words = ["useradd", "--no-create-home", "--no-user-group", "--no-log-init", "--password", "*"]
    words += ["--comment", "jupyman tests", "--home-dir", str(home), "--shell", str(shell), name]
    with _one_at_a_time():
        subprocess.run(words, check=True, capture_output=True, text=True)
    return pwd.getpwnam(name)


def remove_account(name: str) -> None:
    """Remove an account; it may be gone.

    Args:
        name: one that `add_account` made.
    """
    with _one_at_a_time():
        # -f: a killed process may not be reaped yet, and userdel refuses while it sees one.
        done = subprocess.run(["userdel", "-f", name], check=False, capture_output=True, text=True)
    # 6: no such user. 12: the home could not be removed, which was not asked for.
    assert done.returncode in {0, 6, 12}, done.stderr


def new_folder(prefix: str) -> Path:
    """Make a folder with a short path that others can enter: UNIX sockets have room for 107 bytes.

    Args:
        prefix: of its name.
    """
    folder = Path(tempfile.mkdtemp(prefix=prefix, dir="/tmp"))
    folder.chmod(0o755)
    return folder
