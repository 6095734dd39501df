"""The loop on its own: a broken selector, and what is left to the end of a turn."""

from __future__ import annotations

import logging
import selectors
import socket
import threading

import pytest

from jupyman.ssh.io import loop as module
from jupyman.ssh.io.loop import READ, Loop

LIMIT = 10.0  # seconds


class Noting:
    """A watched socket, and an alarm."""

    first = False

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.mask = 0
        self.called = threading.Event()

    def ready(self, mask: int) -> None:
        self.sock.recv(mask)
        self.called.set()

    def due(self) -> None:
        self.called.set()


@pytest.fixture
def loop() -> Loop:
    return Loop()  # it lives as long as the process


@pytest.fixture
def selecting(monkeypatch: pytest.MonkeyPatch) -> Loop:
    """Return a loop with the selector of Windows, for which a closed socket is an error."""
    monkeypatch.setattr(selectors, "DefaultSelector", selectors.SelectSelector)
    return Loop()


def passes(loop: Loop) -> bool:
    """Return whether the loop runs what is posted."""
    done = threading.Event()
    loop.post(done.set)
    return done.wait(LIMIT)


def test_a_socket_that_is_closed_while_it_is_watched_does_not_end_the_loop(
    selecting: Loop, caplog: pytest.LogCaptureFixture
) -> None:
    ours, its = socket.socketpair()
    closed, other = Noting(socket.socket()), Noting(ours)
    alarm = Noting(ours)
    with ours, its, caplog.at_level(logging.ERROR):

        def close() -> None:
            for one in (closed, other):
                selecting.watch(one, READ)
            selecting.remind(alarm, 0.0)
            closed.sock.close()

        selecting.post(close)
        assert passes(selecting)
        its.send(b"x")
        assert other.called.wait(LIMIT)
        assert alarm.called.wait(LIMIT)
        assert (closed.mask, other.mask) == (0, READ)
        assert len(caplog.records) == 1
        selecting.call(lambda: selecting.watch(other, 0))


def test_a_selector_that_fails_for_another_reason_is_logged_once(
    loop: Loop, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(timeout: float | None) -> None:
        raise OSError(timeout)

    monkeypatch.setattr(module, "BREAK", 0.001)
    turn = loop.turn
    with caplog.at_level(logging.ERROR):
        real = loop._selector.select
        loop.call(lambda: setattr(loop._selector, "select", fail))
        for _ in range(3):
            assert passes(loop)
        assert loop.turn > turn
        loop.call(lambda: setattr(loop._selector, "select", real))
        assert len(caplog.records) == 1


def test_what_is_left_to_the_end_may_leave_more_to_the_end(loop: Loop) -> None:
    done = threading.Event()
    loop.post(lambda: loop.at_end(lambda: loop.at_end(done.set)))
    assert done.wait(LIMIT)


def test_only_its_own_thread_is_inside(loop: Loop) -> None:
    found: list[bool] = []
    loop.call(lambda: found.append(loop.inside))
    assert (found, loop.inside) == ([True], False)
