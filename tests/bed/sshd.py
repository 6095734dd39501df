"""A private sshd on a free port of loopback."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path

import psutil

from tests.bed.accounts import User
from tests.bed.wait import wait_until

STARTS = 10


def find_sshd() -> Path | None:
    """Find the program; None where this machine has none."""
    found = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin:/sbin")
    return Path(found) if found else None


def keygen(path: Path, kind: str = "ed25519", passphrase: str = "") -> Path:
    """Make a key pair.

    Args:
        path: of the private half; the public one gets ``.pub``.
        kind: ``ed25519`` or ``rsa``.
        passphrase: of the private half.
    """
    size = ["-b", "2048"] if kind == "rsa" else []
    words = ["ssh-keygen", "-q", "-t", kind, *size, "-N", passphrase, "-C", "jupyman-tests", "-f", str(path)]
    subprocess.run(words, check=True, stdin=subprocess.DEVNULL, capture_output=True)
    return path


class Sshd:
    """One sshd; it shares users and keys with the other ones of its bed.

    Attributes:
        address: what it listens on.
        port: the port, kept over a restart.
        log: its log, at level VERBOSE.
        known_hosts: holds its host keys.
        ssh_config: for JUPYMAN_SSH_CONFIG: ``server1`` is the bash user, ``server-KIND`` each by its kind.

    Args:
        folder: for its files; is made.
        users: who may log in.
        client_key: the key that all of them accept.
        host_keys: private halves of what it shows.
        authorized: a folder with one file of keys for each account.
        options: lines of sshd_config; they win over the bed's own.
        address: what to listen on.
        prefix: what goes before the command.
        program: sshd under another name.
    """

    def __init__(
        self,
        folder: Path,
        users: Sequence[User],
        *,
        client_key: Path,
        host_keys: Iterable[Path],
        authorized: Path,
        options: Iterable[str] = (),
        address: str = "127.0.0.1",
        prefix: Sequence[str] = (),
        program: Path | None = None,
    ) -> None:
        self.folder = folder
        self._prefix = list(prefix)
        self._program = program
        self.users = users
        self.client_key = client_key
        self.host_keys = list(host_keys)
        self.authorized = authorized
        self.options = list(options)
        self.address = address
        self.port = 0
        self.log = folder / "log"
        self.known_hosts = folder / "known_hosts"
        self.ssh_config = folder / "ssh_config"
        self._process: subprocess.Popen[bytes] | None = None
        folder.mkdir(mode=0o755)

    @property
    def process(self) -> psutil.Process:
        """The listener."""
        assert self._process is not None, "sshd is stopped"
        return psutil.Process(self._process.pid)

    def connections(self) -> list[psutil.Process]:
        """Return the processes that serve connections: kill or stop one to break a link, the listener goes on."""
        carriers = []
        for monitor in self.process.children():
            # As root sshd has two for each: the one that runs as the user carries the bytes (privilege separation).
            with contextlib.suppress(psutil.NoSuchProcess):
                below = [one for one in monitor.children() if one.name().startswith("sshd")]
                carriers += [one for one in below or [monitor] if one.status() != psutil.STATUS_ZOMBIE]
        return carriers

    def start(self) -> None:
        """Start listening; after `stop` on the same port."""
        program = self._program or find_sshd()
        assert program is not None
        if os.geteuid() == 0:
            # sshd's chroot before the login, made by its service at boot. It stays, for another run may be using it.
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        for _ in range(STARTS):
            port = self.port or self._free_port()
            config = self.folder / "sshd_config"
            config.write_text(self._config(port))
            already = self.log.stat().st_size if self.log.exists() else 0
            with self.log.open("ab") as log:
                process = subprocess.Popen(
                    [*self._prefix, program, "-D", "-e", "-f", config], stdin=subprocess.DEVNULL, stdout=log, stderr=log
                )

            def begun(process: subprocess.Popen[bytes] = process, already: int = already) -> str:
                said = self.log.read_bytes()[already:].decode("utf-8", "replace")
                return said if "Server listening" in said or process.poll() is not None else ""

            said = wait_until(begun, what="sshd's start")
            if process.poll() is None:
                self._process, self.port = process, port
                self._describe()
                return
            if "Address already in use" not in said:
                break
            # Somebody took the port between our look and sshd's.
        raise AssertionError(f"sshd does not start: {self.log.read_text()}")

    def stop(self) -> None:
        """End the listener and all connections; the users' detached processes go on."""
        if self._process is None:
            return
        children = []
        with contextlib.suppress(psutil.NoSuchProcess):
            # Stopped before it is ended: else it could take one connection more, which would outlive it.
            self.process.suspend()
            children = self.process.children(recursive=True)
        self._process.kill()
        for child in children:
            with contextlib.suppress(psutil.NoSuchProcess):
                # What a session started in its own session is the user's, not the connection's.
                if child.name().startswith("sshd"):
                    child.kill()
        self._process.wait()
        self._process = None

    def _free_port(self) -> int:
        if "netns" in self._prefix:
            return 22  # a namespace of its own, where nobody else listens
        with socket.socket(socket.AF_INET6 if ":" in self.address else socket.AF_INET) as probe:
            probe.bind((self.address, 0))
            port = probe.getsockname()[1]
            assert isinstance(port, int)
            return port

    def _config(self, port: int) -> str:
        lines = [
            *self.options,  # sshd takes the first value of each keyword
            f"Port {port}",
            f"ListenAddress {self.address}",
            *(f"HostKey {key}" for key in self.host_keys),
            f"AuthorizedKeysFile {self.authorized}/%u",
            f"AllowUsers {' '.join(user.name for user in self.users)}",
            f"PidFile {self.folder}/pid",
            "Subsystem sftp internal-sftp",
            # /tmp above the keys is writable for all.
            "StrictModes no",
            "UsePAM no",
            "PermitRootLogin yes",
            "PasswordAuthentication no",
            "KbdInteractiveAuthentication no",
            "PrintMotd no",
            "PrintLastLog no",
            "MaxStartups 100",
            "LogLevel VERBOSE",
        ]
        for user in self.users:
            # HOME differs from the account's own only where the bed runs without root.
            lines += [f"Match User {user.name}", f"    SetEnv PATH={user.path} HOME={user.home} {user.mark}"]
        return "\n".join(lines) + "\n"

    def _describe(self) -> None:
        keys = [" ".join(Path(f"{key}.pub").read_text().split()[:2]) for key in self.host_keys]
        name = self.address if self.port == 22 else f"[{self.address}]:{self.port}"
        self.known_hosts.write_text("".join(f"{name} {key}\n" for key in keys))
        lines = []
        for user in self.users:
            aliases = f"server-{user.kind}" if user.kind != "bash" else "server1 server-bash"
            lines += [f"Host {aliases}", f"    User {user.name}"]
        lines += [
            "Host server1 server-*",
            f"    HostName {self.address}",
            f"    Port {self.port}",
            f"    IdentityFile {self.client_key}",
            "    IdentitiesOnly yes",
            f"    UserKnownHostsFile {self.known_hosts}",
            "    GlobalKnownHostsFile /dev/null",
            "    StrictHostKeyChecking yes",
        ]
        self.ssh_config.write_text("\n".join(lines) + "\n")
