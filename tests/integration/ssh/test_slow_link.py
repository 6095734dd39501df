"""A link with a slow line, or that ends at an odd moment: a host that sends is alive, and no request waits in vain."""

from __future__ import annotations

import contextlib
import signal
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import paramiko
import pytest

from jupyman import errors
from jupyman.api import ClientContext
from jupyman.core.links.supervisor import Supervisor
from jupyman.ssh.link import Link
from jupyman.ssh.login.auth import Keyring
from tests.bed.sshd import Sshd, private_sshd
from tests.bed.wait import wait_until


class Valve:
    """Relays connections to a port of this computer; what goes there can be held up."""

    def __init__(self, target: int) -> None:
        self.open = threading.Event()
        self.open.set()
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._sockets: list[socket.socket] = [self._listener]
        self._threads: list[threading.Thread] = []
        self._start(self._accept)

    def _start(self, work: Any, *arguments: Any) -> None:
        thread = threading.Thread(target=work, args=arguments)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(("127.0.0.1", self._target))
                self._sockets += [client, server]
                self._start(self._relay, client, server, self.open)
                self._start(self._relay, server, client, None)

    def _relay(self, source: socket.socket, sink: socket.socket, gate: threading.Event | None) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                if gate is not None:
                    gate.wait()
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        self.open.set()
        for sock in self._sockets:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        for sock in self._sockets:
            sock.close()


@pytest.fixture
def sshd(tmp_path: Path) -> Iterator[Sshd]:
    with private_sshd(tmp_path / "bed") as server:
        yield server


@pytest.fixture
def valve(sshd: Sshd) -> Iterator[Valve]:
    with contextlib.closing(Valve(sshd.port)) as made:
        sshd.configure(f"Port {made.port}", f"HostKeyAlias [127.0.0.1]:{sshd.port}")
        yield made


def test_a_host_that_sends_is_alive_while_our_request_waits_behind_an_upload(sshd: Sshd, valve: Valve) -> None:
    with contextlib.closing(sshd.open()) as link:
        ended, lines = threading.Event(), threading.Semaphore(0)
        script = "while :; do echo on; sleep 0.1; done\n"
        said = threading.Thread(target=_follow, args=(link, script, lines, ended))
        said.start()
        try:
            assert lines.acquire(timeout=10)
            valve.open.clear()
            threading.Timer(2.5, valve.open.set).start()
            assert link.heartbeat(1.0) >= 2.0, "it was not held up"
        finally:
            valve.open.set()
            ended.set()
            said.join()


def test_a_host_that_falls_silent_after_it_spoke_is_noticed_in_time(sshd: Sshd, valve: Valve) -> None:
    with contextlib.closing(sshd.open()) as link:
        link.run("echo on\n", timeout=10)
        valve.open.clear()
        start = time.monotonic()
        with pytest.raises(errors.LinkLost, match="no answer in 1 s"):
            link.heartbeat(1.0)
        assert time.monotonic() - start < 3


def _follow(link: Link, script: str, lines: threading.Semaphore, ended: threading.Event) -> None:
    with pytest.raises(errors.JupymanError):
        link.run(script, timeout=60, on_line=lambda _: lines.release(), cancelled=ended)


def test_a_full_line_holds_no_lock_that_an_exchange_of_keys_needs(sshd: Sshd) -> None:
    with contextlib.closing(sshd.open()) as link:
        transport: Any = link.transport
        channel = transport.wait_channel(None)
        channel.exec_command("cat >/dev/null")
        transport._sender.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        sshd.signal_children(signal.SIGSTOP)
        try:
            sending = threading.Thread(target=_flood, args=(channel,))
            sending.start()
            seen: list[int] = []

            def stands() -> bool:
                seen.append(transport._sender._taken)
                return not transport._sender.room and seen[-10:] == [seen[-1]] * 10

            wait_until(stands, what="a full socket")
            assert transport.clear_to_send_lock.acquire(timeout=5)
            transport.clear_to_send_lock.release()
            assert sending.is_alive()
        finally:
            sshd.signal_children(signal.SIGCONT)
        sending.join(20)
        assert not sending.is_alive()


def _flood(channel: paramiko.Channel) -> None:
    channel.sendall(bytes(1 << 21))
    channel.close()


def test_requests_while_the_connection_ends_fail_at_once(sshd: Sshd, monkeypatch: pytest.MonkeyPatch) -> None:
    with contextlib.closing(sshd.open()) as link:
        transport = link.transport
        number = transport._next_channel

        def ending() -> int:
            """Between the look whether it lives and the entry into the table."""
            found = number()
            transport.lock.release()
            transport.close()
            transport.join(10)
            transport.lock.acquire()
            return found

        monkeypatch.setattr(transport, "_next_channel", ending)
        start = time.monotonic()
        with pytest.raises(paramiko.SSHException) as caught:
            transport.wait_channel(None, 10)
        assert "in time" not in str(caught.value)
        assert time.monotonic() - start < 5


def test_links_to_jump_hosts_end_with_the_link_to_the_host(tmp_path: Path) -> None:
    with contextlib.ExitStack() as stack:
        first, last = [stack.enter_context(private_sshd(tmp_path / name, host=name)) for name in ("first", "last")]
        chain = tmp_path / "chain"
        includes = [f"Include {one.ssh_config}" for one in (first, last)]
        chain.write_text("\n".join(["Host last", "ProxyJump first", "Match all", *includes]))
        client = ClientContext(ssh_config=str(chain))
        supervisor = Supervisor("last", "last", Keyring(), lambda _: None, lambda _: None, client)
        stack.callback(supervisor.close)
        supervisor.want(wanted=True)
        links: list[Link | None] = [None]
        for _ in range(3):
            wait_until(lambda: supervisor.link not in links, what="a link")
            links.append(supervisor.link)
            last.signal_children(signal.SIGKILL)
            wait_until(lambda: supervisor.link is not links[-1], what="its end")
        wait_until(lambda: supervisor.link not in links, what="the last link")
        wait_until(lambda: len(first.children()) == 1, what="the end of the logins on the jump host")
