"""A link in long use: thousands of heartbeats and hundreds of channels leave nothing in this process."""

from __future__ import annotations

import contextlib
import gc
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from jupyman.ssh.link import Link
from tests.bed.sshd import private_sshd

BEATS = 2000  # an hour's worth
CHANNELS = 300


@pytest.fixture
def link(tmp_path: Path) -> Iterator[Link]:
    with private_sshd(tmp_path / "bed") as sshd, contextlib.closing(sshd.open()) as made:
        yield made


def footprint() -> tuple[int, int, int]:
    gc.collect()
    return threading.active_count(), psutil.Process().num_fds(), len(gc.get_objects())


def test_heartbeats_and_channels_leave_nothing_behind(link: Link) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=512) as listener:
        target = ("127.0.0.1", listener.getsockname()[1])

        def use(beats: int, channels: int) -> None:
            for _ in range(beats):
                link.heartbeat(10)
            for _ in range(channels):
                link.open_channel(target).close()
                listener.accept()[0].close()
            assert link.run("echo hello\n", timeout=30).stdout == b"hello\n"

        use(50, 5)
        before = footprint()
        use(BEATS, CHANNELS)
        threads, descriptors, objects = (after - was for after, was in zip(footprint(), before, strict=True))
    assert (threads, descriptors) <= (0, 0)
    # A thing left by each would be thousands, or hundreds; caches take some.
    assert objects < CHANNELS / 2
    seen = link.transport.channels_seen
    assert len(seen) == 0, "numbers are no objects, and grow all the same"
    assert [number in seen for number in (0, CHANNELS, 10**6)] == [True, True, False]
