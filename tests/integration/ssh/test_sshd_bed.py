"""A private sshd for the tests of the SSH room, on a free port of loopback, with keys and files of its own."""

from __future__ import annotations

import contextlib
import getpass
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from jupyman.ssh.config import ssh_g as ssh_config
from jupyman.ssh.forward.engine import BoundForward
from jupyman.ssh.link import Link
from jupyman.ssh.login.auth import Ask, Credentials, Keyring

SSHD = shutil.which("sshd") or "/usr/sbin/sshd"
SFTP = "internal-sftp"

Handler = Callable[[socket.socket], None]

needs_root = pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="only root can make a user")


def keygen(path: Path, *, kind: str = "ed25519", passphrase: str = "", options: tuple[str, ...] = ()) -> Path:
    """Make a key pair."""
    words = ["ssh-keygen", "-q", "-t", kind, "-N", passphrase, "-C", "test", "-f", str(path), *options]
    subprocess.run(words, check=True, stdin=subprocess.DEVNULL)
    return path


def public(path: Path) -> str:
    """The public half's line, without its comment."""
    return " ".join(Path(f"{path}.pub").read_text().split()[:2])


class Sshd:
    """One sshd with its own keys; `host` is its alias in `config_file`."""

    def __init__(self, folder: Path, *options: str, host: str, address: str, rsa: bool) -> None:
        self.folder = folder
        self.host = host
        self.address = address
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o755)
        self.host_key = keygen(folder / "host_ed25519")
        # It takes half a second to make.
        self.rsa_key = keygen(folder / "host_rsa", kind="rsa", options=("-b", "2048")) if rsa else None
        self.user_key = keygen(folder / "user_key")
        self.authorized = folder / "authorized"
        self.authorized.write_text(public(self.user_key) + "\n")
        self.known_hosts = folder / "known_hosts"
        self.config_file = folder / "ssh_config"
        self.options = options
        self.port = 0
        self._process: subprocess.Popen[str] | None = None
        self._start()
        self.trust()
        self.configure()

    def _start(self) -> None:
        if os.geteuid() == 0:
            # sshd's chroot before the login, as its service makes it. It stays: another run may be using it.
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        for _ in range(10):
            with socket.socket(socket.AF_INET6 if ":" in self.address else socket.AF_INET) as probe:
                probe.bind((self.address, 0))
                self.port = probe.getsockname()[1]
            lines = [
                *self.options,  # sshd takes the first value of each keyword
                f"Port {self.port}",
                f"ListenAddress {self.address}",
                f"HostKey {self.host_key}",
                f"HostKey {self.rsa_key}" if self.rsa_key is not None else "",
                f"AuthorizedKeysFile {self.authorized}",
                f"PidFile {self.folder}/pid",
                f"Subsystem sftp {SFTP}",
                "StrictModes no",
                "UsePAM no",
                "PermitRootLogin yes",
                "PasswordAuthentication no",
                "KbdInteractiveAuthentication no",
                "PrintMotd no",
                "MaxStartups 100",
                "LogLevel VERBOSE",
                # Debian's bash reads the ~/.bashrc of whoever runs the tests where sshd starts it, but not where it is
                # deep: what stands there may take long, or leave a lock when its connection is cut.
                "SetEnv SHLVL=2",
            ]
            path = self.folder / "sshd_config"
            path.write_text("\n".join(lines) + "\n")
            process = subprocess.Popen(
                [SSHD, "-D", "-e", "-f", str(path)], stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
            )
            assert process.stderr is not None
            for line in process.stderr:
                if "Server listening" in line:
                    self._process = process
                    # It would block once the pipe is full.
                    self._drain = threading.Thread(target=self._read, args=(process,), daemon=True)
                    self.log: list[str] = []
                    self._drain.start()
                    return
            process.wait()
            process.stderr.close()
        raise AssertionError("sshd does not start")

    def _read(self, process: subprocess.Popen[str]) -> None:
        assert process.stderr is not None
        self.log.extend(process.stderr)

    @property
    def name(self) -> str:
        """As known_hosts files write it."""
        return f"[{self.address}]:{self.port}"

    def trust(self, text: str | None = None) -> None:
        """Write the known_hosts file; the right key by default."""
        self.known_hosts.write_text(f"{self.name} {public(self.host_key)}\n" if text is None else text)

    def configure(self, *lines: str, host: str | None = None) -> None:
        """Write the client's ssh_config; `lines` come first and so win."""
        self.config_file.write_text(
            "\n".join(
                [
                    f"Host {host or self.host}",
                    *lines,
                    f"HostName {self.address}",
                    f"Port {self.port}",
                    f"User {getpass.getuser()}",
                    f"IdentityFile {self.user_key}",
                    "IdentitiesOnly yes",
                    "IdentityAgent none",
                    f"UserKnownHostsFile {self.known_hosts}",
                    "GlobalKnownHostsFile /dev/null",
                    "HashKnownHosts no",
                    "",
                ]
            )
        )

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
        """Connect as the daemon does."""
        return Link.open(
            ssh_config.read(host or self.host, ssh_config=str(self.config_file)),
            Credentials(ssh_auth_sock=agent, ask=ask),
            keyring or Keyring(),
            timeout=timeout,
            cancelled=cancelled,
        )

    def children(self) -> list[psutil.Process]:
        """The processes that serve connections."""
        assert self._process is not None
        return psutil.Process(self._process.pid).children(recursive=True)

    def signal_children(self, number: int) -> None:
        """Send a signal to all of them."""
        for child in self.children():
            with contextlib.suppress(psutil.NoSuchProcess):
                child.send_signal(number)

    def close(self) -> None:
        """End it, with everything it started."""
        process = self._process
        assert process is not None
        children = self.children()
        process.terminate()
        process.wait()
        for child in children:
            with contextlib.suppress(psutil.NoSuchProcess):
                child.send_signal(signal.SIGCONT)
                child.kill()
        psutil.wait_procs(children, 5)
        self._drain.join(5)
        assert process.stderr is not None
        process.stderr.close()


@contextlib.contextmanager
def sshd(
    folder: Path, *options: str, host: str = "bed", address: str = "127.0.0.1", rsa: bool = False
) -> Iterator[Sshd]:
    """Run one."""
    server = Sshd(folder, *options, host=host, address=address, rsa=rsa)
    try:
        yield server
    finally:
        server.close()


# --- programs on the host, and on this side ---------------------------------------------------------------------------


@contextlib.contextmanager
def serving(handler: Handler, path: str | None = None) -> Iterator[tuple[str, int]]:
    """A program on the host: `handler` gets each connection in a thread of its own."""
    server = socket.socket(socket.AF_UNIX if path else socket.AF_INET)
    server.bind(path or ("127.0.0.1", 0))
    server.listen(512)

    def one(connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            handler(connection)

    def accept() -> None:
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            threading.Thread(target=one, args=(connection,), daemon=True).start()

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    try:
        yield ("", 0) if path else server.getsockname()
    finally:
        with contextlib.suppress(OSError):
            server.shutdown(socket.SHUT_RDWR)
        server.close()
        thread.join(5)


def echo(connection: socket.socket) -> None:
    while data := connection.recv(65536):
        connection.sendall(data)


def read_all(sock: socket.socket) -> bytes:
    data = bytearray()
    while chunk := sock.recv(65536):
        data += chunk
    return bytes(data)


def send_all(sock: socket.socket, data: bytes) -> None:
    sock.sendall(data)
    sock.shutdown(socket.SHUT_WR)


def connect(listener: BoundForward) -> socket.socket:
    return socket.create_connection(("127.0.0.1", listener.local_port), timeout=10)


def ping(listener: BoundForward, text: bytes = b"ping") -> bytes:
    with connect(listener) as sock:
        sock.sendall(text)
        sock.shutdown(socket.SHUT_WR)
        return read_all(sock)


def until(condition: Callable[[], bool], seconds: float = 5.0) -> bool:
    """Wait for something that tells nobody when it comes."""
    deadline = time.monotonic() + seconds
    pause = threading.Event()
    while not condition():
        if time.monotonic() > deadline:
            return False
        pause.wait(0.02)
    return True


class Answers:
    """Stands for the user's terminal: answers in order, remembers the questions."""

    def __init__(self, *answers: str) -> None:
        self.answers = list(answers)
        self.asked: list[tuple[str, str]] = []

    def __call__(self, kind: str, text: str) -> str:
        self.asked.append((kind, text))
        assert self.answers, f"nobody expected the question {text!r}"
        return self.answers.pop(0)


def test_the_bed_itself_takes_openssh(tmp_path: Path) -> None:
    with sshd(tmp_path / "bed") as bed:
        done = subprocess.run(
            ["ssh", "-F", str(bed.config_file), "-o", "BatchMode=yes", "bed", "echo hello"],
            capture_output=True,
            text=True,
            check=False,
            stdin=subprocess.DEVNULL,
        )
        assert done.stdout == "hello\n", done.stderr
