"""How often a command has to wait for the far end: counted, for a link of 50 ms makes each of them felt."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest

from jupyman.core import probe
from jupyman.ssh import config
from jupyman.ssh.auth import Credentials, Keyring
from jupyman.ssh.link import Link
from tests.bed import Bed
from tests.bed.delay import Line

DELAY = 0.04  # seconds each way: longer than what either end needs to say all that it has to say


@pytest.fixture
def line(bed: Bed) -> Iterator[Line]:
    with Line(bed.sshd.port, DELAY) as made:
        yield made


def connect(bed: Bed, line: Line) -> Link:
    """Log in through the line; the host keeps its name in known_hosts."""
    text = bed.ssh_config.read_text().replace(f"Port {bed.sshd.port}", f"Port {line.port}")
    text += f"    HostKeyAlias [127.0.0.1]:{bed.sshd.port}\n"
    path = bed.folder / f"ssh_config-line-{line.port}"
    path.write_text(text)
    return Link.open(config.read("server1", ssh_config=str(path)), Credentials(), Keyring())


def test_connect_and_probe(bed: Bed, line: Line) -> None:
    with contextlib.closing(connect(bed, line)) as link:
        connected = line.trips
        # TCP; versions with key exchange; its second half; new keys; the service; the key: facts of SSH and paramiko.
        assert connected <= 6
        line.trips = 0
        probe.probe(link, "server1", depth="full")
        assert line.trips <= 3, "open a channel, start the shell, send the script"
        print(f"\nround trips: connect {connected}, probe {line.trips}")


def test_a_forwarded_connection_costs_one(bed: Bed, line: Line) -> None:
    with contextlib.closing(connect(bed, line)) as link:
        line.trips = 0
        link.open_channel(("127.0.0.1", bed.sshd.port)).close()
        assert line.trips <= 2, "the channel's opening, and its close that nobody waits for"
