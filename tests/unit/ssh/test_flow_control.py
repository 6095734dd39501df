"""The windows of a channel: bounded, never at a standstill, whatever the other end's habits."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from jupyman.ssh.channels.flow_control import ENOUGH, FLIGHT, FLIGHT_TURN, WINDOW, WINDOW_MAX, ReceiveWindow, SendWindow
from jupyman.ssh.io.backlog import PIECE, Backlog

MIB = 1 << 20


class Pool:
    """What windows may grow by."""

    def __init__(self, size: int) -> None:
        self.left = size

    def take(self, size: int) -> int:
        given_ = min(size, self.left)
        self.left -= given_
        return given_


# --- from the host ------------------------------------------------------------------------------------------------


@given(st.integers(0, 1 << 30), st.integers(0, 64 * MIB))
def test_what_may_come_and_what_is_kept_are_bounded_together(seed: int, spare: int) -> None:
    chosen, pool = random.Random(seed), Pool(spare)
    window = ReceiveWindow(pool.take)
    granted, held = WINDOW, 0
    for _ in range(300):
        if granted and chosen.random() < 0.5:
            size = chosen.randint(1, granted)
            assert window.take(size)
            granted, held = granted - size, held + size
        elif held:
            size = chosen.randint(1, held)
            held -= size
            granted += window.deliver(size)
        assert granted + held <= WINDOW_MAX
        assert granted + held <= WINDOW + spare - pool.left
    window.close()
    assert pool.left == spare


def test_what_is_delivered_after_the_end_takes_nothing() -> None:
    pool = Pool(128 * MIB)
    for _ in range(100):
        window = ReceiveWindow(pool.take)
        assert window.take(WINDOW)
        window.deliver(WINDOW)
        assert window.take(WINDOW)
        window.close()
        assert window.deliver(WINDOW) == 0
    assert pool.left == 128 * MIB


def test_a_window_that_is_delivered_opens_again_whole() -> None:
    window = ReceiveWindow(lambda _: 0)
    for _ in range(5):
        assert window.take(WINDOW)
        assert window.deliver(WINDOW) == WINDOW


def test_a_host_that_sends_more_than_it_may_is_noticed() -> None:
    window = ReceiveWindow(lambda _: 0)
    assert window.take(WINDOW)
    assert not window.take(1)


def test_it_grows_while_the_program_keeps_up_and_not_while_it_does_not() -> None:
    pool = Pool(1 << 40)
    quick = ReceiveWindow(pool.take)
    granted = WINDOW
    for _ in range(40):
        quick.take(granted // 2)
        granted += quick.deliver(granted // 2) - granted // 2
    assert granted == WINDOW_MAX
    slow = ReceiveWindow(pool.take)
    slow.take(WINDOW)
    assert sum(slow.deliver(WINDOW // 4) for _ in range(3)) == 3 * WINDOW // 4


# --- to the host --------------------------------------------------------------------------------------------------


@given(
    st.integers(0, 1 << 30),
    st.integers(1, 4 * MIB),
    st.floats(0.001, 1.0),
    st.floats(0.0, 0.2),
)
def test_bytes_always_go_on_however_late_a_host_acknowledges(seed: int, size: int, late: float, trip: float) -> None:
    """A host that acknowledges only when a share of its window is consumed: OpenSSH 96 KiB, others up to all of it."""
    chosen = random.Random(seed)
    window = SendWindow()
    window.open(size, trip)
    threshold = max(1, int(size * late))
    flight = consumed = sent = 0
    for _ in range(400):
        contended = chosen.random() < 0.5
        free = window.free(contended=contended)
        assert free <= size - flight - consumed
        if free:
            take = min(free, chosen.randint(1, 262144))
            window.take(take)
            flight, sent = flight + take, sent + take
            continue
        # Nothing may be sent: either `grow` resumes it by the time that all is consumed, or `lapse` helps.
        consumed, flight = consumed + flight, 0
        resumed = False
        if consumed >= threshold:
            resumed = window.grow(consumed, contended=contended)
            consumed = 0
        if not resumed:
            resumed = window.lapse()
        assert resumed
        assert window.free(contended=False) > 0
    assert sent >= size


def test_alone_the_whole_window_is_used_and_beside_others_a_part_of_it() -> None:
    window = SendWindow()
    window.open(2 * MIB, 0.0001)
    assert window.free(contended=False) == 2 * MIB
    assert window.free(contended=True) == FLIGHT_TURN
    window.take(FLIGHT_TURN)
    assert window.free(contended=True) == FLIGHT - FLIGHT_TURN
    far = SendWindow()
    far.open(2 * MIB, 0.05)
    for _ in range(2 * MIB // FLIGHT_TURN):
        assert far.free(contended=True) == FLIGHT_TURN
        far.take(FLIGHT_TURN)
    assert far.free(contended=True) == 0


def test_small_growth_is_not_worth_a_turn() -> None:
    window = SendWindow()
    window.open(2 * MIB, 0.0001)
    window.take(2 * MIB)
    assert not window.grow(100_000, contended=False)  # nobody asked
    window.take(100_000)
    assert window.free(contended=False) == 0
    assert not window.grow(ENOUGH - 1, contended=False)
    assert window.grow(1, contended=False)
    assert not window.grow(1, contended=False)  # once


def test_after_a_silence_any_growth_is() -> None:
    window = SendWindow()
    window.open(2 * MIB, 0.0001)
    window.take(2 * MIB)
    assert window.free(contended=False) == 0
    assert not window.lapse()
    assert window.grow(1, contended=False)


# --- the backlog --------------------------------------------------------------------------------------------------


@given(st.integers(0, 1 << 30))
def test_a_backlog_gives_back_what_it_got(seed: int) -> None:
    chosen = random.Random(seed)
    backlog, wanted, got = Backlog(), bytearray(), bytearray()
    for _ in range(60):
        if chosen.random() < 0.5:
            data = chosen.randbytes(chosen.choice((1, 100, 1000, PIECE, 50_000)))
            cut = chosen.randint(0, len(data))
            skip = chosen.randint(0, len(data) - 1)
            backlog.add([memoryview(data[:cut]), memoryview(data[cut:])], skip)
            wanted += data[skip:]
        elif backlog:
            whole = b"".join(backlog.head(chosen.randint(1, 5)))
            taken = chosen.randint(0, len(whole))
            got += whole[:taken]
            backlog.drop(taken)
        assert len(backlog) == len(wanted) - len(got)
        assert bool(backlog) == (len(wanted) != len(got))
    while backlog:
        whole = b"".join(backlog.head(3))
        got += whole
        backlog.drop(len(whole))
    assert got == wanted


def test_small_pieces_cost_little() -> None:
    backlog = Backlog()
    for _ in range(10_000):
        backlog.add([memoryview(b"x" * 10)], 0)
    assert len(backlog) == 100_000
    assert len(backlog._pieces) <= 100_000 // (PIECE - 10) + 1
    backlog.clear()
    assert not backlog
