"""The forwarder, when something fails in the loop's thread; and what it does before that thread."""

from __future__ import annotations

import contextlib
import logging
import socket
import sys
from collections.abc import Callable, Iterator

import pytest

from jupyman.local import peer
from jupyman.model.endpoint import Target
from jupyman.ssh.forward.forwarder import Forwarder
from jupyman.ssh.forward.listener import Listener
from jupyman.ssh.io.loop import Watched, shared
from jupyman.ssh.streams.byte_stream import StreamReceiver
from jupyman.ssh.streams.relay import Relay
from tests.bed.wait import wait_until
from tests.unit.ssh.relay_bench import FakeStream


class Opener:
    """A link that notes which streams are asked for."""

    def __init__(self) -> None:
        self.streams: list[FakeStream] = []
        self.fault: Exception | None = None

    def open_stream(self, target: Target, receiver: StreamReceiver) -> FakeStream:
        del target, receiver
        fault, self.fault = self.fault, None
        if fault is not None:
            raise fault
        self.streams.append(FakeStream())
        return self.streams[-1]


@pytest.fixture
def forwarder() -> Iterator[Forwarder]:
    with contextlib.closing(Forwarder("test")) as made:
        yield made


@pytest.fixture
def listener(forwarder: Forwarder) -> Listener:
    return forwarder.listen(0, ("127.0.0.1", 80))


def connect(listener: Listener, count: int) -> list[socket.socket]:
    """Connect so many local programs, and wait until all are accepted."""
    before = listener.open
    made = [socket.create_connection(("127.0.0.1", listener.local_port), 10) for _ in range(count)]
    wait_until(lambda: listener.open == before + count, what="the connections to be accepted")
    return made


def fail_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the loop fail to watch the next relay."""
    real: Callable[[Watched, int], None] = shared().watch
    failed: list[Watched] = []

    def watch(one: Watched, mask: int) -> None:
        if isinstance(one, Relay) and mask and not failed:
            failed.append(one)
            raise OSError("no space left on device")
        real(one, mask)

    monkeypatch.setattr(shared(), "watch", watch)


@pytest.mark.parametrize("fault", ["watch", "open"])
def test_a_relay_that_fails_ends_and_the_others_that_waited_are_carried(
    forwarder: Forwarder,
    listener: Listener,
    fault: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    opener = Opener()
    with contextlib.ExitStack() as stack, caplog.at_level(logging.ERROR):
        for sock in connect(listener, 3):
            stack.enter_context(sock)
        if fault == "watch":
            fail_once(monkeypatch)
        else:
            opener.fault = ValueError("a bug")
        forwarder.attach(opener)
        shared().call(lambda: None)
        assert listener.open == 2
        assert [one.closed for one in opener.streams] == [True, False, False][fault == "open" :]
        assert len(caplog.records) == 1


def test_a_new_connection_that_fails_is_closed(
    forwarder: Forwarder, listener: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    opener = Opener()
    forwarder.attach(opener)
    fail_once(monkeypatch)
    with socket.create_connection(("127.0.0.1", listener.local_port), 10) as sock:
        assert sock.recv(1) == b""
    assert ([one.closed for one in opener.streams], listener.open) == ([True], 0)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere no peer is known to be foreign")
def test_whether_callers_are_known_is_found_out_before_one_comes(
    forwarder: Forwarder, monkeypatch: pytest.MonkeyPatch
) -> None:
    known: dict[str, bool] = {}
    monkeypatch.setattr(peer, "_known", known)
    forwarder.listen(0, ("127.0.0.1", 80))
    assert set(known) == {"_query", "_scan"}
