"""A host that sends odd messages on a link: they are answered as RFC 4253 demands, or end it with a named error."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from pathlib import Path
from typing import Any

import pytest

from jupyman import errors
from jupyman.ssh.login import keys
from jupyman.ssh.wire import compat
from tests.bed import wait_until
from tests.bed.hostile import Gateway, Moment, Oddity, text
from tests.integration.ssh.odd_host import BAD, HUGE, entered, log_in


@pytest.mark.usefixtures("packets")
def test_unknown_messages_are_answered_and_the_link_lives(odd: Gateway, key: Path) -> None:
    with contextlib.closing(log_in(key, odd.port)) as link:
        wait_until(lambda: len(odd.connections[-1]._channels.values()) == 3, 10, "the channels opened ahead")
        server = odd.connections[-1]
        unknown = [
            kind for kind in range(1, 256) if kind not in compat.KNOWN and kind not in {2, 3, 4}
        ]  # among them those of a login, which is over
        server.say(*(bytes([kind]) + BAD for kind in unknown))
        server.say(b"\x02", b"\x02" + HUGE, b"\x03", b"\x03" + HUGE, b"\x04", b"\x04" + HUGE)
        link.open_channel(("127.0.0.1", 1)).close()
        assert len(unknown) == 234
        wait_until(lambda: len(server.unimplemented) >= len(unknown), 10, "an answer to each")
        # By its sequence number, and none to what needs none.
        assert server.unimplemented == server.sent[: len(unknown)]
        assert link.alive


@pytest.mark.usefixtures("packets")
def test_what_may_come_during_a_later_exchange_of_keys_does_not_disturb_it(odd: Gateway, key: Path) -> None:
    odd.oddity = None
    with contextlib.closing(log_in(key, odd.port)) as link:
        server = odd.connections[-1]
        # Else paramiko's server answers to them in the middle, which is not allowed.
        wait_until(lambda: len(link._sessions._ahead) == 3, 10, "the channels opened ahead")
        said = (b"\x08" + BAD, b"\x13", b"\x1d", b"\x02", b"\x04" + HUGE, b"\x03" + HUGE)  # RFC 4253, section 7.1
        server.say_in_exchange(said)
        server.renegotiate_keys()
        wait_until(lambda: len(server.unimplemented) == 3, 10, "the answers")
        assert server.unimplemented == server.sent[:3]
        assert link.heartbeat(5) < 5
        link.open_channel(("127.0.0.1", 1)).close()


def test_a_key_of_the_agent_may_have_any_comment(tmp_path: Path, key: Path) -> None:
    blob = keys.public_blob(str(key))
    assert blob is not None
    answer = text(b"\x0c" + struct.pack(">I", 1) + text(blob) + text(BAD))
    path = tmp_path / "agent"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(100)
                connection.sendall(answer)
                connection.recv(100)

        thread = threading.Thread(target=serve)
        thread.start()
        agent = keys.Agent(str(path))
        assert [one.asbytes() for one in agent.get_keys()] == [blob]
        agent.close()
        thread.join()


@pytest.mark.usefixtures("packets")
def test_a_flood_of_unknown_messages_takes_bounded_memory(
    odd: Gateway, key: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("sender", "paramiko_packets"):
        monkeypatch.setattr(f"jupyman.ssh.wire.{module}.FLOOD", 1 << 20)
    ended, over = threading.Event(), threading.Event()
    with contextlib.closing(log_in(key, odd.port)) as link:
        link.on_lost(lambda _: ended.set())
        server = odd.connections[-1]
        # It stops reading at the first answer.
        server.on_unimplemented = lambda _: over.wait(120)
        sock: Any = link.transport.sock
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)
        said = 0
        with contextlib.suppress(OSError, EOFError):
            while not ended.is_set() and said < 50_000:
                server.say(*[b"\xc8"] * 100)
                said += 100
        try:
            assert ended.wait(60), f"{said} unknown messages whose answers nobody reads"
        finally:
            over.set()


CHANNEL = [
    b"\x50" + text(BAD) + b"\x01",
    b"\x50" + HUGE,
    b"\x5a" + text(BAD) + bytes(12),
    b"\x5a" + HUGE,
    b"\x5b" + bytes(4),
    b"\x5c" + bytes(4) + struct.pack(">I", 1) + text(BAD) + text(BAD),
    b"\x5c" + bytes(4) + HUGE * 2,
    b"\x5c" + bytes(4),
    b"\x62" + bytes(4) + text(b"exit-signal") + b"\x00" + text(BAD) + b"\x01" + text(BAD) + text(BAD),
    b"\x62" + bytes(4) + text(BAD) + b"\x01",
    b"\x62" + bytes(4) + HUGE,
    b"\x5e" + bytes(4) + HUGE,
    b"\x5f" + bytes(4) + HUGE * 2,
    b"\x5d" + bytes(4) + HUGE,
    b"\x5d" + bytes(4),
    b"\x5e\x01\x00\x00\x00" + HUGE,
    b"\x5b\x01\x00\x00\x00",
    b"\x62\x01\x00\x00\x00" + HUGE,
]


@pytest.mark.usefixtures("packets")
@pytest.mark.parametrize("moment", ["after", "open", "request"])
@pytest.mark.parametrize("number", range(len(CHANNEL)))
def test_odd_messages_on_channels_at_most_end_in_a_named_error(
    odd: Gateway, key: Path, moment: Moment, number: int
) -> None:
    odd.oddity = Oddity(moment, (CHANNEL[number],), "go on")
    reasons: list[str] = []
    link = entered(key, odd.port)
    if link is None:
        return
    with contextlib.closing(link):
        link.on_lost(reasons.append)
        with contextlib.suppress(errors.JupymanError):
            link.open_channel(("127.0.0.1", 1), timeout=2.0).close()
        with contextlib.suppress(errors.JupymanError):
            link.run("true\n", timeout=1.0)
        if not link.alive:
            wait_until(lambda: reasons, 5, "the reason")
            assert reasons[0].isprintable()
