"""The relay on its own: a real local socket, and a byte stream, a loop and an owner that the test plays by hand."""

from __future__ import annotations

import ast
import contextlib
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import jupyman.ssh.forward
import jupyman.ssh.streams
from jupyman.ssh.forward import forwarder as forwarder_module
from jupyman.ssh.io.loop import READ, WRITE
from jupyman.ssh.streams import relay as module
from jupyman.ssh.streams.relay import HEAD, LITTLE, RelayState
from tests.unit.ssh.relay_bench import Bench, FakeStream


@pytest.fixture
def bench() -> Iterator[Bench]:
    made = Bench()
    yield made
    made.close()


def answering(answer: bytes | None) -> Iterator[Bench]:
    made = Bench(lambda asked, waited: answer if waited is None else None)
    yield made
    made.close()


@pytest.fixture
def answers() -> Iterator[Bench]:
    """Its origin answers a lost request in the host's place."""
    yield from answering(b"503")


@pytest.fixture
def repeats() -> Iterator[Bench]:
    """Its origin wants a lost request to be sent again."""
    yield from answering(None)


# --- bytes ------------------------------------------------------------------------------------------------------------


def test_what_is_sent_before_the_stream_is_open_goes_first(bench: Bench) -> None:
    bench.local.send(b"hello ")
    stream = bench.begin()
    bench.turn()
    assert (stream.sent, bench.relay.state) == (b"", RelayState.OPENING)
    bench.local.send(b"world")
    bench.relay.opened()
    bench.turn()
    assert (stream.sent, bench.relay.state) == (b"hello world", RelayState.OPEN)
    bench.receive(b"answer")
    bench.exchange()
    assert (bench.got, stream.given_back, bench.counts) == (b"answer", 6, [6, 11])
    assert bench.calls == ["opened"]


def test_more_than_is_read_ahead_stays_in_the_socket(bench: Bench) -> None:
    data = bytes(range(256)) * (2 * HEAD // 256)
    stream = bench.begin()
    bench.local.setblocking(True)
    bench.local.send(data)
    bench.turn()
    assert bench.relay.mask == 0
    bench.relay.opened()
    bench.turn()
    assert stream.sent == data


def test_a_window_that_does_not_take_the_beginning_ends_it(bench: Bench) -> None:
    bench.local.send(b"hello")
    stream = bench.begin(credit=4)
    bench.turn()
    bench.relay.opened()
    assert (bench.relay.state, stream.closed) == (RelayState.ENDED, True)


def test_without_credit_the_local_program_is_not_read(bench: Bench) -> None:
    stream = bench.open(credit=3)
    bench.local.send(b"abcdef")
    bench.turn()
    assert (stream.sent, stream.starved, bench.relay.mask & READ) == (b"abc", True, 0)
    stream.free = 100
    bench.relay.writable()
    bench.turn()
    assert (stream.sent, bench.relay.mask & READ) == (b"abcdef", READ)


def test_a_slow_reader_gets_all_of_it_and_credit_is_for_what_it_took(bench: Bench) -> None:
    stream = bench.open()
    data = bytes(range(256)) * 1024
    bench.receive(data)
    bench.receive(data)
    bench.turn()
    assert 0 < stream.given_back < len(data)
    assert bench.relay.mask & WRITE
    bench.exchange()
    assert (bench.got, stream.given_back, bench.relay.mask & WRITE) == (data + data, 2 * len(data), 0)


# --- ends -------------------------------------------------------------------------------------------------------------


def test_the_local_end_comes_first(bench: Bench) -> None:
    stream = bench.open()
    bench.local.send(b"question")
    bench.local.shutdown(socket.SHUT_WR)
    bench.turn()
    assert (stream.sent, stream.eof_sent, bench.relay.state) == (b"question", True, RelayState.OPEN)
    bench.receive(b"answer")
    bench.relay.eof()
    bench.read()
    assert (bench.got, bench.got_eof, bench.relay.state, stream.closed) == (b"answer", True, RelayState.ENDED, True)


def test_the_local_end_comes_while_the_stream_opens(bench: Bench) -> None:
    stream = bench.begin()
    bench.local.send(b"question")
    bench.local.shutdown(socket.SHUT_WR)
    bench.turn()
    assert bench.relay.state is RelayState.OPENING
    bench.relay.opened()
    assert (stream.sent, stream.eof_sent) == (b"question", True)


def test_the_far_end_comes_first(bench: Bench) -> None:
    stream = bench.open()
    bench.receive(b"greeting")
    bench.relay.eof()
    bench.read()
    assert (bench.got, bench.got_eof, bench.relay.state) == (b"greeting", True, RelayState.OPEN)
    bench.local.send(b"late")
    bench.local.shutdown(socket.SHUT_WR)
    bench.turn()
    assert (stream.sent, stream.eof_sent, bench.relay.state) == (b"late", True, RelayState.ENDED)


def test_the_far_end_comes_behind_what_a_slow_reader_has_not_taken(bench: Bench) -> None:
    bench.open()
    data = bytes(300_000)
    bench.receive(data)
    bench.relay.eof()
    bench.relay.closed()
    assert bench.relay.state is RelayState.OPEN
    bench.exchange()
    assert (bench.got == data, bench.got_eof, bench.relay.state) == (True, True, RelayState.DRAINING)


def test_closed_by_the_far_end_what_is_sent_in_vain_is_dropped_until_the_local_end(bench: Bench) -> None:
    stream = bench.open()
    bench.receive(b"last words")
    bench.relay.closed()
    bench.local.send(b"in vain")
    bench.turn()
    bench.read()
    assert (bench.got, bench.got_eof, stream.sent) == (b"last words", True, b"")
    assert (bench.relay.state, bench.calls[-1]) == (RelayState.DRAINING, "schedule_close")
    bench.local.close()
    bench.turn()
    assert bench.relay.state is RelayState.ENDED


def test_a_local_reset_closes_the_stream(bench: Bench) -> None:
    stream = bench.open()
    bench.receive(bytes(300_000))
    bench.reset()
    bench.turn()
    assert (bench.relay.state, stream.closed) == (RelayState.ENDED, True)


def test_a_refusal_is_the_owners_matter(bench: Bench) -> None:
    bench.begin()
    bench.relay.refused("administratively prohibited")
    assert bench.calls == ["refused: administratively prohibited", "end"]


def test_a_program_that_gives_up_while_it_waits_is_let_go(bench: Bench) -> None:
    bench.local.close()
    bench.relay.answer()
    assert bench.relay.state is RelayState.ENDED


def test_a_bug_ends_one_relay_and_is_logged(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    def broken(inward: int, outward: int) -> None:
        raise ZeroDivisionError

    stream = bench.open()
    bench.count = broken  # type: ignore[method-assign]
    bench.receive(b"x")
    assert (bench.relay.state, stream.closed) == (RelayState.ENDED, True)
    assert "ZeroDivisionError" in caplog.text


# --- the link is lost, or silent --------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["lost", "detach", "withdraw"])
def test_lost_while_it_opens_it_waits_and_nothing_is_missing(answers: Bench, how: str) -> None:
    answers.local.send(b"hello")
    first = answers.begin()
    answers.turn()
    getattr(answers.relay, how)()
    assert (answers.relay.state, first.closed) == (RelayState.WAITING, True)
    answers.local.send(b" again")
    second = answers.open()
    answers.turn()
    assert second.sent == b"hello again"


def test_lost_with_a_request_under_way_it_is_answered(answers: Bench) -> None:
    answers.open()
    answers.local.send(b"GET /")
    answers.turn()
    answers.relay.lost()
    answers.read()
    assert (answers.got, answers.got_eof, answers.relay.state) == (b"503", True, RelayState.DRAINING)


def test_lost_with_a_request_under_way_it_is_sent_again(repeats: Bench) -> None:
    repeats.open()
    repeats.local.send(b"GET /")
    repeats.turn()
    repeats.relay.lost()
    assert repeats.relay.state is RelayState.WAITING
    stream = repeats.open()
    assert stream.sent == b"GET /"


@pytest.mark.parametrize("how", ["nothing asked", "answered in part", "local end", "slow reader", "too long"])
def test_lost_in_the_middle_of_anything_else_it_ends(answers: Bench, how: str) -> None:
    stream = answers.open()
    if how != "nothing asked":
        answers.local.setblocking(True)
        answers.local.send(bytes(2 * HEAD) if how == "too long" else b"GET /")
        answers.turn()
        assert stream.sent
    if how == "answered in part":
        answers.receive(b"HTTP/1.1 200")
    elif how == "local end":
        answers.local.shutdown(socket.SHUT_WR)
        answers.turn()
    elif how == "slow reader":
        answers.receive(bytes(300_000))
        answers.local.send(b"GET /next")
        answers.turn()
    answers.relay.lost()
    assert (answers.relay.state, stream.closed) == (RelayState.ENDED, True)
    answers.read()
    assert b"503" not in answers.got


def test_lost_after_the_far_end_closed_a_slow_reader_still_gets_all(answers: Bench) -> None:
    answers.open()
    data = bytes(300_000)
    answers.receive(data)
    answers.relay.closed()
    answers.relay.lost()
    answers.exchange()
    assert (answers.got == data, answers.got_eof) == (True, True)


def test_open_it_is_not_withdrawn(bench: Bench) -> None:
    stream = bench.open()
    bench.relay.withdraw()
    assert (bench.relay.state, stream.closed) == (RelayState.OPEN, False)


def test_while_the_host_is_silent_a_page_is_answered_and_the_host_receives_nothing() -> None:
    bench = Bench(lambda asked, waited: b"503" if asked.startswith(b"GET") else None)
    stream = bench.open()
    bench.held = True
    bench.local.send(b"frame of a websocket")
    bench.turn()
    assert stream.sent == b"frame of a websocket"
    bench.receive(b"another one")
    bench.local.send(b"GET /lab")
    bench.turn()
    bench.read()
    assert (bench.got, stream.sent, stream.closed) == (b"another one503", b"frame of a websocket", True)
    assert bench.relay.state is RelayState.DRAINING
    bench.close()


# --- any order of events ----------------------------------------------------------------------------------------------

EVENTS = (
    *("local sends", "local ends", "local resets", "local reads"),
    *("opened", "received", "eof", "closed", "writable", "lost", "refused"),
    *("begin", "withdraw", "answer"),
)


@given(st.lists(st.sampled_from(EVENTS), max_size=40), st.sampled_from([b"503", b"", None]))
def test_any_order_of_events(events: list[str], answer: bytes | None) -> None:
    """No byte is lost, doubled or out of order on one stream; no stream is used after its end, nor a relay."""
    bench = Bench(lambda asked, waited: answer)
    relay, stream = bench.relay, FakeStream()
    local, far = bytearray(), bytearray()  # what either side has sent; `far` on this stream
    eof = closed = False  # of the far end, on this stream
    gone = ended = False  # the local program
    for number, event in enumerate(events):
        data = b"%d %s " % (number, bytes([65 + number % 26]) * (20_000 if number % 7 == 0 else 5))
        state = relay.state
        running = state is RelayState.OPEN and relay.stream is not None
        if event == "local sends" and not ended and not gone:
            with contextlib.suppress(OSError):
                local += data[: bench.local.send(data)]
        elif event == "local ends" and not ended and not gone:
            ended = True
            with contextlib.suppress(OSError):
                bench.local.shutdown(socket.SHUT_WR)
        elif event == "local resets" and not gone:
            gone = True
            bench.reset()
        elif event == "local reads" and not gone:
            bench.read()
        elif event == "begin" and state is RelayState.WAITING:
            stream = bench.begin()
            eof = closed = False
            far.clear()
            bench.got = b""
        elif event in {"opened", "refused"} and state is RelayState.OPENING:
            relay.opened() if event == "opened" else relay.refused("no")
        elif event == "received" and running and not eof:
            bench.receive(data)
            far += data
        elif event == "eof" and running and not eof:
            eof = True
            relay.eof()
        elif event == "closed" and running and not closed:
            eof = closed = True
            relay.closed()
        elif event == "writable" and running:
            relay.writable()
        elif event == "lost" and state in {RelayState.OPENING, RelayState.OPEN} and relay.stream is not None:
            relay.lost()
            running = False
        elif event == "withdraw":
            relay.withdraw()
        elif event == "answer" and state is RelayState.WAITING:
            relay.answer()
        bench.turn()
        assert stream.sent in local, "in order, and nothing twice"
        assert stream.given_back <= len(far)
        if relay.state is RelayState.OPEN and not gone:
            assert bytes(far).startswith(bench.got), "what the far end sent, and nothing else"
        if state is RelayState.ENDED:
            assert relay.state is RelayState.ENDED
    if relay.state is RelayState.OPEN and not gone and not relay._far_closed:
        bench.exchange()
        assert bench.got == far
        assert stream.given_back == len(far)
        assert bench.got_eof == eof
        assert bytes(local).endswith(stream.sent)
        assert stream.eof_sent == ended
    bench.close()
    assert bench.calls.count("end") == 1
    assert relay.stream is None


# --- what it knows ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    [Path(forwarder_module.__file__), *sorted(Path(jupyman.ssh.streams.__path__[0]).glob("*.py"))],
    ids=lambda path: path.name,
)
def test_it_knows_no_ssh(path: Path) -> None:
    imported = {
        name
        for node in ast.walk(ast.parse(path.read_text()))
        for name in (
            [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else []
        )
    }
    ours = {name for name in imported if name.startswith("jupyman.ssh.")}
    assert "paramiko" not in imported
    assert {name.split(".")[2] for name in ours} <= {"forward", "io", "streams"}


def test_a_turn_reads_little_until_there_is_a_lot(bench: Bench) -> None:
    limits: list[int] = []
    stream = bench.open()
    send_from = stream.send_from

    def noting(sock: socket.socket, limit: int) -> list[memoryview]:
        limits.append(limit)
        return send_from(sock, limit)

    stream.send_from = noting  # type: ignore[method-assign]
    bench.local.setblocking(True)
    bench.local.send(bytes(LITTLE + 1))
    bench.turn()
    assert limits[:2] == [LITTLE, module.LOT]
