"""A private sshd on a free port, and the client's files that lead to it."""

from __future__ import annotations

import contextlib
import getpass
import os
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import psutil

from jupyman.ssh.config import ssh_g
from jupyman.ssh.link import Link
from jupyman.ssh.login.auth import Ask, Credentials, Keyring
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
        path: of the private half; the public half gets ``.pub``.
        kind: ``ed25519``, ``ecdsa`` or ``rsa``.
        passphrase: of the private half.
    """
    size = ["-b", "2048"] if kind == "rsa" else []
    words = ["ssh-keygen", "-q", "-t", kind, *size, "-N", passphrase, "-C", "jupyman-tests", "-f", str(path)]
    subprocess.run(words, check=True, stdin=subprocess.DEVNULL, capture_output=True)
    return path


def public(path: Path) -> str:
    """Return the public half of a key: its kind and the key, without the comment."""
    return " ".join(Path(f"{path}.pub").read_text().split()[:2])


class Sshd:
    """One sshd.

    Attributes:
        host: the alias of the first account in `ssh_config`.
        port: kept over a restart.
        log: the log, at level VERBOSE.
        known_hosts: the client's; has the host keys.
        ssh_config: the client's, for JUPYMAN_SSH_CONFIG. With `users`, ``server1`` is the bash user and
            ``server-KIND`` each by its kind; without, ``host`` is the account that runs the tests.

    Args:
        folder: for its files.
        users: who may log in; if empty, every account of this machine.
        client_key: the key that the client offers.
        host_keys: private halves of the host keys.
        authorized: as ``AuthorizedKeysFile``.
        options: lines of sshd_config; they win over the defaults.
        client_options: lines of ssh_config.
        host: the alias, without `users`.
        address: what to listen on.
        prefix: what goes before the command.
        program: sshd under another name.
    """

    def __init__(
        self,
        folder: Path,
        users: Sequence[User] = (),
        *,
        client_key: Path,
        host_keys: Iterable[Path],
        authorized: Path,
        options: Iterable[str] = (),
        client_options: Iterable[str] = ("StrictHostKeyChecking yes",),
        host: str = "server1",
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
        self.client_options = list(client_options)
        self.host = host
        self.address = address
        self.port = 0
        self.log = folder / "log"
        self.known_hosts = folder / "known_hosts"
        self.ssh_config = folder / "ssh_config"
        self._process: subprocess.Popen[bytes] | None = None
        folder.mkdir(mode=0o755, parents=True, exist_ok=True)

    @property
    def name(self) -> str:
        """The host's name in known_hosts."""
        return self.address if self.port == 22 else f"[{self.address}]:{self.port}"

    @property
    def process(self) -> psutil.Process:
        """The process that listens."""
        assert self._process is not None, "sshd is stopped"
        return psutil.Process(self._process.pid)

    def connections(self) -> list[psutil.Process]:
        """Return the processes that serve connections: kill or stop one to break a link; the listener goes on."""
        carriers = []
        for monitor in self.process.children():
            # As root sshd has two for each: the one that runs as the user carries the bytes (privilege separation).
            with contextlib.suppress(psutil.NoSuchProcess):
                below = [one for one in monitor.children() if one.name().startswith("sshd")]
                carriers += [one for one in below or [monitor] if one.status() != psutil.STATUS_ZOMBIE]
        return carriers

    def children(self) -> list[psutil.Process]:
        """Return all that runs below the listener: connections, and the programs of their sessions."""
        return self.process.children(recursive=True)

    def signal_children(self, number: int) -> None:
        """Send a signal to all of `children`."""
        for child in self.children():
            with contextlib.suppress(psutil.NoSuchProcess):
                child.send_signal(number)

    def start(self) -> None:
        """Start to listen; after `stop` on the same port."""
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
                self.trust()
                self.configure()
                return
            if "Address already in use" not in said:
                break
            # Another process has taken the port since `_free_port`.
        raise AssertionError(f"sshd does not start: {self.log.read_text()}")

    def stop(self) -> None:
        """End the listener and all connections; the users' detached processes go on."""
        if self._process is None:
            return
        children = []
        with contextlib.suppress(psutil.NoSuchProcess):
            # Suspended first: it could accept one more connection, which would outlive it.
            self.process.suspend()
            children = self.process.children(recursive=True)
        self._process.kill()
        for child in children:
            with contextlib.suppress(psutil.NoSuchProcess):
                # What the user has started goes on.
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
            f"AuthorizedKeysFile {self.authorized}",
            *([f"AllowUsers {' '.join(user.name for user in self.users)}"] if self.users else []),
            f"PidFile {self.folder}/pid",
            "Subsystem sftp internal-sftp",
            # /tmp, above the keys, is writable for all.
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

    def trust(self, text: str | None = None) -> None:
        """Write `known_hosts`: the host keys, or another text."""
        keys = "".join(f"{self.name} {public(key)}\n" for key in self.host_keys)
        self.known_hosts.write_text(keys if text is None else text)

    def configure(self, *lines: str) -> None:
        """Write `ssh_config`.

        Args:
            lines: come first and so win.
        """
        names = {f"server-{user.kind}" if user.kind != "bash" else "server1 server-bash": user for user in self.users}
        accounts = {aliases: user.name for aliases, user in names.items()} or {self.host: getpass.getuser()}
        every = "server1 server-*" if self.users else self.host
        text = _block(every, *lines) if lines else ""
        text += "".join(_block(aliases, f"User {name}") for aliases, name in accounts.items())
        text += _block(
            every,
            f"HostName {self.address}",
            f"Port {self.port}",
            f"IdentityFile {self.client_key}",
            "IdentitiesOnly yes",
            f"UserKnownHostsFile {self.known_hosts}",
            "GlobalKnownHostsFile /dev/null",
            *self.client_options,
        )
        self.ssh_config.write_text(text)

    def open(
        self,
        *,
        ask: Ask | None = None,
        agent: str | None = None,
        keyring: Keyring | None = None,
        timeout: float = 10.0,
        cancelled: threading.Event | None = None,
        host: str | None = None,
    ) -> Link:
        """Connect as the daemon does.

        Args:
            ask: answers questions.
            agent: SSH_AUTH_SOCK.
            keyring: remembers secrets.
            timeout: seconds.
            cancelled: ends the attempt.
            host: the alias; None: the first account's.
        """
        return Link.open(
            ssh_g.read(host or self.host, ssh_config=str(self.ssh_config)),
            Credentials(ssh_auth_sock=agent, ask=ask),
            keyring or Keyring(),
            timeout=timeout,
            cancelled=cancelled,
        )


def _block(aliases: str, *lines: str) -> str:
    return "".join(f"{line}\n" for line in (f"Host {aliases}", *(f"    {line}" for line in lines)))


@contextlib.contextmanager
def private_sshd(
    folder: Path, *options: str, host: str = "bed", address: str = "127.0.0.1", rsa: bool = False
) -> Iterator[Sshd]:
    """Run an sshd with keys of its own for the account that runs the tests; all its sessions end with it.

    Args:
        folder: for its files.
        options: lines of sshd_config; they win.
        host: the alias in its `ssh_config`.
        address: what to listen on.
        rsa: whether it has an RSA host key too, which takes half a second to make.
    """
    folder.mkdir(mode=0o755, parents=True, exist_ok=True)
    host_keys = [keygen(folder / "host_ed25519"), *([keygen(folder / "host_rsa", "rsa")] if rsa else [])]
    client_key, authorized = keygen(folder / "user_key"), folder / "authorized"
    authorized.write_text(f"{public(client_key)}\n")
    sshd = Sshd(
        folder,
        client_key=client_key,
        host_keys=host_keys,
        authorized=authorized,
        # Debian's bash reads the ~/.bashrc of the account when sshd starts it, but not below another shell; what stands
        # there may take long, or leave a lock when its connection is cut.
        options=[*options, "SetEnv SHLVL=2"],
        client_options=["IdentityAgent none", "HashKnownHosts no"],
        host=host,
        address=address,
    )
    sshd.start()
    try:
        yield sshd
    finally:
        children = sshd.children()
        sshd.stop()
        for child in children:
            with contextlib.suppress(psutil.NoSuchProcess):
                child.kill()
        psutil.wait_procs(children, 5)
