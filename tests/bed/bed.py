"""The bed: accounts, a conda root and sshds, which are removed afterwards."""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import shutil
import subprocess
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Self

import psutil
import pytest

from tests.bed.accounts import KINDS, User, add_account, new_folder, remove_account, shell_of
from tests.bed.conda import CondaRoot, conda_root
from tests.bed.network import Network
from tests.bed.sshd import Sshd, find_sshd, keygen

DATA = Path(__file__).parent.parent / "data"
PREFIX = "jmbed-"


class Bed:
    """A host for tests; use as a context manager.

    As root it makes an account for each kind of user. Otherwise the one account is that which runs the tests, with a
    private HOME in its SSH sessions; a test that requests another kind is skipped.

    Attributes:
        folder: of all its files: a short path under /tmp, readable for all.
        conda: the conda root, the users' ``~/miniconda3``.
        sshd: the sshd that `ssh_config` describes.
        client_key: the private key that every user accepts.
        host_keys: private halves by kind: ``ed25519`` and ``rsa``.
    """

    folder: Path
    conda: CondaRoot
    sshd: Sshd
    client_key: Path
    host_keys: dict[str, Path]

    def __init__(self) -> None:
        self._users: dict[str, User] = {}
        self._missing: dict[str, str] = {}
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Self:
        if find_sshd() is None:
            pytest.skip("sshd is not installed (openssh-server)")
        sweep()
        try:
            self.conda = conda_root()
        except RuntimeError as error:
            pytest.skip(str(error))
        try:
            self._start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _start(self) -> None:
        self.folder = new_folder(PREFIX)
        self._stack.callback(shutil.rmtree, self.folder, ignore_errors=True)
        for name in ("keys", "authorized", "gpu", "bin", "home"):
            (self.folder / name).mkdir(mode=0o755)
        shutil.copy(Path(__file__).parent / "nvidia_smi.sh", self.folder / "gpu")
        (self.folder / "gpu" / "nvidia_smi.sh").chmod(0o755)
        shutil.copytree(DATA / "nvidia-smi", self.folder / "gpu" / "cases")
        (self.folder / "conda").symlink_to(self.conda.root)
        (self.folder / "prefix").symlink_to(self.conda.prefix_template)
        self.client_key = keygen(self.folder / "keys" / "client")
        self.host_keys = {kind: keygen(self.folder / "keys" / f"host_{kind}", kind) for kind in ("ed25519", "rsa")}
        self._add_users()
        self.sshd = self._stack.enter_context(self.start_sshd())

    def _add_users(self) -> None:
        token = uuid.uuid4().hex[:6]
        mark = f"JM_BED={token}"
        root = os.geteuid() == 0
        names = {kind: f"jmt{token}_{kind}" for kind in KINDS}
        me = psutil.Process()
        owner = {"pid": me.pid, "created": me.create_time(), "users": list(names.values()) if root else []}
        (self.folder / "owner.json").write_text(json.dumps(owner))
        for kind in KINDS:
            shell = shell_of(kind)
            if not root and kind != "bash":
                self._missing[kind] = f"only root can make an account for {kind}"
                continue
            if root and shell is None:
                self._missing[kind] = f"{kind} is not installed"
                continue
            home, programs = self.folder / "home" / kind, self.folder / "bin" / kind
            home.mkdir()
            home.chmod(0o755)
            programs.mkdir()
            if root:
                assert shell is not None
                entry = add_account(names[kind], home, shell)
                self._stack.callback(remove_account, entry.pw_name)
                os.chown(home, entry.pw_uid, entry.pw_gid)
            else:
                entry = pwd.getpwuid(os.geteuid())
            user = User(
                kind=kind,
                name=entry.pw_name,
                uid=entry.pw_uid,
                gid=entry.pw_gid,
                home=home,
                shell=Path(entry.pw_shell),
                programs=programs,
                made=root,
                mark=mark,
            )
            self._stack.callback(user.kill_all)
            self._users[kind] = user
            user.fill_home()
            (self.folder / "authorized" / user.name).write_text(Path(f"{self.client_key}.pub").read_text())

    def close(self) -> None:
        """End its processes and remove its files and accounts."""
        self._stack.close()

    def user(self, kind: str = "bash") -> User:
        """Return an account.

        Args:
            kind: ``bash dash tcsh fish zsh banner other``.

        The test is skipped when this machine cannot have it.
        """
        if kind in self._missing:
            pytest.skip(self._missing[kind])
        return self._users[kind]

    @property
    def users(self) -> list[User]:
        """All accounts, the bash user first."""
        return list(self._users.values())

    @property
    def ssh_config(self) -> Path:
        """The main sshd's ssh_config; see `Sshd`."""
        return self.sshd.ssh_config

    @contextlib.contextmanager
    def start_sshd(
        self,
        *options: str,
        address: str = "127.0.0.1",
        host_keys: Iterable[str] = ("ed25519", "rsa"),
        network: Network | None = None,
        node: str | None = None,
        program: Path | None = None,
    ) -> Iterator[Sshd]:
        """Run one more sshd.

        Args:
            options: lines of sshd_config, as in ``"MaxSessions 1"``; they win over the bed's own.
            address: what to listen on.
            host_keys: which of the bed's host keys it has.
            network: its network; None: loopback.
            node: the name that ``uname -n`` prints there (a UTS namespace); the homes are the same.
            program: sshd under another name.

        Yields:
            The sshd, listening; its ``ssh_config`` has the same aliases as the bed's.
        """
        folder = self.folder / f"sshd-{uuid.uuid4().hex[:6]}"
        sshd = Sshd(
            folder,
            self.users,
            client_key=self.client_key,
            host_keys=[self.host_keys[kind] for kind in host_keys],
            authorized=self.folder / "authorized" / "%u",
            options=options,
            address=network.address if network is not None else address,
            prefix=[
                *(network.prefix if network is not None else ()),
                *(["unshare", "--uts", "sh", "-c", 'hostname "$0" && exec "$@"', node] if node is not None else ()),
            ],
            program=program,
        )
        try:
            sshd.start()
            yield sshd
        finally:
            sshd.stop()

    def ssh(
        self,
        kind: str,
        command: str,
        *,
        input: str = "",
        sshd: Sshd | None = None,
        timeout: float = 60.0,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command by OpenSSH's client.

        Args:
            kind: of the user.
            command: for the login shell.
            input: its standard input.
            sshd: another one than the main one.
            timeout: seconds.

        Returns:
            What it left; the status is not checked.
        """
        self.user(kind)
        words = ["ssh", "-F", str((sshd or self.sshd).ssh_config), "-o", "BatchMode=yes", f"server-{kind}", command]
        environ = {name: value for name, value in os.environ.items() if name != "SSH_AUTH_SOCK"}
        return subprocess.run(
            words, input=input, env=environ, capture_output=True, text=True, timeout=timeout, check=False
        )

    def reset(self) -> None:
        """End what the users run, and restore their homes."""
        busy = set()  # of all accounts at once: to look at every process takes milliseconds
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                busy.add(process.uids().real)
        for user in self.users:
            user.reset(idle=user.uid not in busy)


def sweep() -> None:
    """Remove what killed test runs left."""
    for folder in Path("/tmp").glob(f"{PREFIX}*"):
        try:
            if folder.lstat().st_uid != os.geteuid():
                continue
            owner = json.loads((folder / "owner.json").read_text())
        except (OSError, ValueError):
            continue
        with contextlib.suppress(psutil.NoSuchProcess):
            if abs(psutil.Process(owner["pid"]).create_time() - owner["created"]) < 1.0:
                continue
        for name in owner["users"]:
            try:
                uid = pwd.getpwnam(name).pw_uid
            except KeyError:
                continue
            for process in psutil.process_iter():
                with contextlib.suppress(psutil.Error):
                    if process.uids().real == uid:
                        process.kill()
            remove_account(name)
        for process in psutil.process_iter():
            # Its sshds have the path of their configuration in their arguments.
            with contextlib.suppress(psutil.Error):
                if process.uids().real == os.geteuid() and f"{folder}/" in " ".join(process.cmdline()):
                    process.kill()
        shutil.rmtree(folder, ignore_errors=True)
