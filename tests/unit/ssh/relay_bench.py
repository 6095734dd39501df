"""A relay with everything around it played by hand: the byte stream, the loop, the owner and the origin."""

from __future__ import annotations

import contextlib
import select
import socket
import struct

from jupyman.ssh.io.loop import READ, WRITE, Watched
from jupyman.ssh.streams.origin import Respond
from jupyman.ssh.streams.relay import Relay, RelayState

CREDIT = 1 << 20


class FakeStream:
    """A byte stream that notes what is sent, and never accepts what a stream would not."""

    def __init__(self, credit: int = CREDIT) -> None:
        self.free = credit
        self.sent = b""
        self.given_back = 0
        self.eof_sent = self.closed = self.starved = False

    def credit(self) -> int:
        assert not self.closed
        self.starved = self.free == 0
        return self.free

    def send(self, data: bytes) -> bool:
        assert not self.closed
        assert not self.eof_sent
        if len(data) > self.free:
            return False
        self.free -= len(data)
        self.sent += data
        return True

    def send_from(self, sock: socket.socket, limit: int) -> list[memoryview]:
        assert 0 < limit <= self.free
        data = sock.recv(limit)
        if data:
            assert self.send(data)
        return [memoryview(data)] if data else []

    def send_eof(self) -> None:
        assert not self.closed
        assert not self.eof_sent
        self.eof_sent = True

    def delivered(self, size: int) -> None:
        assert not self.closed
        self.given_back += size

    def close(self) -> None:
        assert not self.closed
        self.closed = True


class Bench:
    """A relay between a socketpair and a fake stream, with its owner, its origin and its loop."""

    def __init__(self, respond: Respond | None = None) -> None:
        near, self.local = socket.socketpair()
        near.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        near.setblocking(False)
        self.local.setblocking(False)
        self.near = near
        self.respond = respond
        self.held = False
        self.counts = [0, 0]
        self.calls: list[str] = []
        self.got = b""
        self.got_eof = False
        self.relay = Relay(self, self, self, near)

    # The loop.
    def watch(self, one: Watched, mask: int) -> None:
        one.mask = mask

    def turn(self) -> None:
        """Do what a loop would until nothing is ready any more."""
        relay = self.relay
        for _ in range(200):
            if relay.state is RelayState.ENDED or not relay.mask:
                return
            reads, writes, _ = select.select(
                [self.near] if relay.mask & READ else [], [self.near] if relay.mask & WRITE else [], [], 0
            )
            ready = (READ if reads else 0) | (WRITE if writes else 0)
            if not ready:
                return
            relay.ready(ready)
        raise AssertionError("the relay is called for ever")

    # The origin.
    def count(self, inward: int, outward: int) -> None:
        self.counts[0] += inward
        self.counts[1] += outward

    # The owner.
    def opened(self, relay: Relay) -> None:
        self.calls.append("opened")

    def refused(self, relay: Relay, reason: str) -> None:
        self.calls.append(f"refused: {reason}")
        self.end(relay)

    def schedule_close(self, relay: Relay) -> None:
        self.calls.append("schedule_close")

    def end(self, relay: Relay) -> None:
        if relay.state is not RelayState.ENDED:
            self.calls.append("end")
            relay.release()

    # The local program.
    def read(self) -> None:
        """Read what has come."""
        with contextlib.suppress(BlockingIOError, ConnectionResetError):
            while not self.got_eof:
                data = self.local.recv(1 << 16)
                self.got += data
                self.got_eof = not data

    def exchange(self) -> None:
        """Let both sides run until nothing moves."""
        for _ in range(1000):
            before = len(self.got)
            self.turn()
            self.read()
            if len(self.got) == before:
                return

    def begin(self, credit: int = CREDIT) -> FakeStream:
        stream = FakeStream(credit)
        self.relay.begin(stream)
        return stream

    def open(self, credit: int = CREDIT) -> FakeStream:
        stream = self.begin(credit)
        self.relay.opened()
        return stream

    def receive(self, data: bytes) -> None:
        self.relay.received([memoryview(data)], len(data))

    def reset(self) -> None:
        self.local.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.local.close()

    def close(self) -> None:
        self.end(self.relay)
        self.local.close()
