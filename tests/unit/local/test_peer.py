"""Whose a connection or a listener is: asked of the kernel, and read from its tables; both say the same."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from jupyman.local import peer

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="Linux alone tells")

LISTENERS = ["127.0.0.1", "127.0.0.2", "0.0.0.0", "::1", "::", "::ffff:127.0.0.1"]
# The address that is listened on, that from which and that to which a connection is made.
WAYS = [
    ("127.0.0.1", "127.0.0.1", "127.0.0.1"),
    ("127.0.0.1", "127.0.0.2", "127.0.0.1"),
    ("0.0.0.0", "127.0.0.1", "127.0.0.3"),
    ("127.0.0.1", "::ffff:127.0.0.1", "::ffff:127.0.0.1"),
    ("::ffff:127.0.0.1", "127.0.0.1", "127.0.0.1"),
    ("::1", "::1", "::1"),
]


@pytest.fixture(params=["asked", "read"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways by which it is known: the kernel's own answer, and its tables where a sandbox forbids to ask."""
    if request.param == "read":

        def forbidden(*_: object) -> None:
            raise PermissionError

        monkeypatch.setattr(peer, "_query", forbidden)
    # What is true of this system was found out as the user who runs this, not as the one who is played.
    assert peer._works(peer._query if request.param == "asked" else peer._scan)
    return str(request.param)


def family(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


@contextlib.contextmanager
def listening(address: str) -> Iterator[socket.socket]:
    with socket.socket(family(address)) as sock:
        try:
            if address == "::":
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            sock.bind((address, 0))
        except OSError as error:
            pytest.skip(f"no {address} here: {error}")
        sock.listen()
        yield sock


@contextlib.contextmanager
def connected(ends: tuple[str, str, str] = WAYS[0]) -> Iterator[tuple[socket.socket, peer.End, peer.End]]:
    """Connect; yield the caller's socket, his address as it was accepted, and ours."""
    with listening(ends[0]) as listener, socket.socket(family(ends[1])) as caller:
        caller.bind((ends[1], 0))
        caller.connect((ends[2], listener.getsockname()[1]))
        accepted, far = listener.accept()
        with accepted:
            yield caller, far[:2], accepted.getsockname()[:2]


def others(monkeypatch: pytest.MonkeyPatch, uid: int) -> None:
    """Let all that this process has belong to another user than jupyman's, who has this uid."""
    monkeypatch.setattr(peer, "own_uid", lambda: uid)


@pytest.mark.parametrize("ends", WAYS, ids=["-".join(ends) for ends in WAYS])
def test_our_own_connection_is_no_strangers(ends: tuple[str, str, str], way: str) -> None:
    with connected(ends) as (caller, far, near):
        assert peer.stranger(far, near) is None, way
        caller.shutdown(socket.SHUT_WR)  # has said all, and waits for the answer
        assert peer.stranger(far, near) is None


@pytest.mark.parametrize("ends", WAYS, ids=["-".join(ends) for ends in WAYS])
def test_another_users_connection_is_known_by_his_uid(
    ends: tuple[str, str, str], way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.getuid()
    with connected(ends) as (_, far, near):
        others(monkeypatch, real + 1)
        # Root is everybody's: so comes the browser of Windows to WSL.
        assert peer.stranger(far, near) == (None if real == 0 else real), way


@pytest.mark.parametrize("end", ["close", "reset"])
def test_whoever_has_closed_his_end_is_a_stranger(end: str, way: str) -> None:
    with connected() as (caller, far, near):
        if end == "reset":
            caller.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        else:
            caller.sendall(b"x")
        caller.close()
        assert peer.stranger(far, near) == peer.GONE, way


def test_a_listener_is_no_caller(way: str) -> None:
    with listening("127.0.0.1") as one, listening("127.0.0.1") as two:
        assert peer.stranger(one.getsockname(), two.getsockname()) == peer.GONE, way


def test_a_connection_that_was_not_accepted_yet_has_no_holder(way: str) -> None:
    with listening("127.0.0.1") as listener, socket.create_connection(listener.getsockname()) as caller:
        assert peer.stranger(listener.getsockname(), caller.getsockname()) == peer.GONE, way
        with listener.accept()[0]:
            assert peer.stranger(listener.getsockname(), caller.getsockname()) is None


def test_where_the_kernel_finds_nothing_at_all_its_tables_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peer, "_known", {})
    monkeypatch.setattr(peer, "_query", lambda *_: None)  # without the module tcp_diag: ENOENT of every socket
    with connected() as (_, far, near):
        assert peer.stranger(far, near) is None
    assert peer.stranger(far, near) == peer.GONE


@pytest.mark.parametrize(
    "says", [None, (1, os.getuid(), 0), (1, os.getuid() + 1, 7)], ids=["nothing", "closed", "other"]
)
def test_what_does_not_know_our_own_connection_accuses_nobody(
    says: tuple[int, int, int] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peer, "_known", {})
    # As WSL 1, whose tables are empty; or as one that gives all sockets to somebody.
    monkeypatch.setattr(peer, "_query", lambda *_: says)
    monkeypatch.setattr(peer, "_scan", lambda *_: says)
    with connected() as (_, far, near):
        assert peer.stranger(far, near) is None


def test_where_nothing_is_told_nobody_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(*_: object, **__: object) -> None:
        raise OSError(errno.EACCES, "no")

    monkeypatch.setattr(peer, "_query", forbidden)
    monkeypatch.setattr(Path, "read_text", forbidden)
    with connected() as (_, far, near):
        others(monkeypatch, os.getuid() + 1)
        assert peer.stranger(far, near) is None
        assert not peer.foreign_listener(near[1])


def test_without_a_free_descriptor_nobody_passes_unseen(monkeypatch: pytest.MonkeyPatch) -> None:
    real = socket.socket

    def none_left(family: int = socket.AF_INET, *rest: int) -> socket.socket:
        if family == socket.AF_NETLINK:
            raise OSError(errno.EMFILE, "no")
        return real(family, *rest)

    with connected() as (_, far, near):
        monkeypatch.setattr(socket, "socket", none_left)
        assert peer.stranger(far, near) == peer.GONE
        monkeypatch.undo()
        assert peer.stranger(far, near) is None


@pytest.mark.parametrize("address", LISTENERS)
def test_whose_listener_127_0_0_1_reaches(address: str, way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with listening(address) as sock:
        port = sock.getsockname()[1]
        assert not peer.foreign_listener(port), way
        assert peer.listener_uid(port) == (os.getuid() if address not in {"127.0.0.2", "::1", "::"} else None) or (
            address,
            way,
        ) == ("::", "read")
        others(monkeypatch, os.getuid() + 1)
        reached = address not in {"127.0.0.2", "::1", "::"}
        assert peer.foreign_listener(port) is reached or (address, way) == ("::", "read")
    assert not peer.foreign_listener(port)
    assert peer.listener_uid(port) is None
