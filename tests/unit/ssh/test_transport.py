"""The transport's own socket: who closes it and when, and who waits for it."""

from __future__ import annotations

import contextlib
import gc
import os
import socket
import threading
from collections.abc import Iterator
from typing import Any

import paramiko
import pytest
from paramiko.common import AUTH_SUCCESSFUL
from paramiko.message import Message

from jupyman.ssh.channels.transport import Transport
from jupyman.ssh.io.loop import READ, shared
from tests.bed.wait import wait_until

LIMIT = 20.0  # seconds
OPENS = 50


class _Willing(paramiko.ServerInterface):
    """Accepts everybody."""

    def check_auth_none(self, username: str) -> int:
        del username
        return AUTH_SUCCESSFUL

    def get_allowed_auths(self, username: str) -> str:
        del username
        return "none"


@contextlib.contextmanager
def connected(key: paramiko.PKey) -> Iterator[Transport]:
    """Yield our end of an SSH connection that is logged in."""
    ours, its = socket.socketpair()
    server = paramiko.Transport(its)
    server.add_server_key(key)
    server.start_server(event=threading.Event(), server=_Willing())
    client = Transport(ours)
    try:
        client.start_client(timeout=LIMIT)
        client.auth_none("alice")
        yield client
    finally:
        client.close()
        server.close()
        for one in (client, server):
            one.join(LIMIT)


@pytest.fixture(scope="module")
def key() -> paramiko.PKey:
    return paramiko.ECDSAKey.generate()


def test_paramikos_thread_closes_no_socket_that_the_loop_watches(key: paramiko.PKey) -> None:
    with connected(key) as client:
        line: Any = client.packetizer
        wait_until(lambda: line.mask == READ, what="the loop to read")
        held, go_on = threading.Event(), threading.Event()

        def hold() -> None:
            held.set()
            go_on.wait(LIMIT)

        shared().post(hold)
        assert held.wait(LIMIT)
        client.close()
        client.join(LIMIT)
        try:
            assert not client.is_alive()
            assert (line.mask, line.sock.fileno() == -1) == (READ, False)
            assert client.sock.fileno() == -1
        finally:
            go_on.set()
        shared().call(lambda: None)
        assert (line.mask, line.sock.fileno()) == (0, -1)


def descriptors() -> int:
    shared().call(lambda: None)
    gc.collect()
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - names are all that is needed


@pytest.mark.skipif(not os.path.exists("/proc/self/fd"), reason="needs /proc")  # noqa: PTH110 - no path needed
@pytest.mark.parametrize("started", [False, True])
def test_no_descriptor_is_left(key: paramiko.PKey, *, started: bool) -> None:
    before = descriptors()
    for _ in range(OPENS):
        if started:
            with connected(key):
                pass
        else:
            ours, its = socket.socketpair()
            with its:
                client = Transport(ours)
                client.close()
                assert (client.sock.fileno(), ours.fileno()) == (-1, -1)
    wait_until(lambda: descriptors() <= before, what="the descriptors to be closed")


def test_without_a_free_descriptor_nothing_is_left_open(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, its = socket.socketpair()
    real, taken = socket.socket.dup, list[socket.socket]()

    def second_fails(sock: socket.socket) -> socket.socket:
        if taken:
            raise OSError("too many open files")
        taken.append(real(sock))
        return taken[0]

    monkeypatch.setattr(socket.socket, "dup", second_fails)
    with its, pytest.raises(OSError, match="too many"):
        Transport(ours)
    assert (ours.fileno(), taken[0].fileno()) == (-1, -1)


@pytest.mark.parametrize("way", ["transport", "packetizer"])
def test_the_loop_waits_for_no_full_socket(way: str) -> None:
    """The garbage collector may close one of paramiko's channels in any thread, the loop's included."""
    ours, its = socket.socketpair()
    client = Transport(ours)
    line: Any = client.packetizer
    with its:
        client.active = True
        while client._sender.room:
            client._sender.send(b"\x02" + bytes(32768), wait=False)
        sent = threading.Event()

        def send() -> None:
            message = Message(b"\x61" + bytes(4))
            if way == "transport":
                client._send_user_message(message)
            else:
                line.send_message(message)
            sent.set()

        try:
            shared().post(send)
            assert sent.wait(LIMIT / 2)
        finally:
            client.active = False
            client.close()
    shared().call(lambda: None)
