"""Whose the listener of a port is: asked of the kernel, and read from its tables; both say the same."""

from __future__ import annotations

import contextlib
import os
import socket
import sys
from collections.abc import Iterator

import pytest

from jupyman import loopback

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="Linux alone tells")

LISTENERS = ["127.0.0.1", "127.0.0.2", "0.0.0.0", "::1", "::", "::ffff:127.0.0.1"]


@contextlib.contextmanager
def listening(*addresses: str) -> Iterator[int]:
    """Listen on one port of each address."""
    with contextlib.ExitStack() as stack:
        port = 0
        for address in addresses:
            sock = stack.enter_context(socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET))
            if address == "::":
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            sock.bind((address, port))
            sock.listen()
            port = sock.getsockname()[1]
        yield port


def read(port: int) -> dict[str, int]:
    rows = loopback._table(port)
    return {near: uid for near, _, state, uid in rows if state == "0A" and near.endswith(f":{port:04X}")}


@pytest.mark.parametrize("address", LISTENERS)
def test_both_ways_say_the_same(address: str) -> None:
    with contextlib.ExitStack() as stack:
        try:
            port = stack.enter_context(listening(address))
        except OSError as error:
            pytest.skip(f"no {address} here: {error}")
        assert loopback._asked(port) == read(port) != {}
        assert set(read(port).values()) == {os.getuid()}
        # Who listens elsewhere is not the daemon, which is on 127.0.0.1.
        assert loopback.foreign_listener(port) is (address != "127.0.0.1")


def test_several_at_once() -> None:
    with listening("127.0.0.1", "127.0.0.2", "127.0.0.3") as port:
        assert loopback._asked(port) == read(port)
        assert len(read(port)) == 3
        assert not loopback.foreign_listener(port)


def test_nobody_listens() -> None:
    with listening("127.0.0.1") as port:
        pass
    assert loopback._asked(port) == {}
    assert not loopback.foreign_listener(port)


def test_another_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loopback, "own_uid", lambda: os.getuid() + 1)
    with listening("127.0.0.1") as port:
        assert loopback.foreign_listener(port)


def test_where_the_kernel_may_not_be_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(port: int) -> dict[str, int]:
        raise PermissionError(port)

    monkeypatch.setattr(loopback, "_asked", forbidden)
    with listening("127.0.0.1") as port:
        assert not loopback.foreign_listener(port)
        monkeypatch.setattr(loopback, "own_uid", lambda: os.getuid() + 1)
        assert loopback.foreign_listener(port)
