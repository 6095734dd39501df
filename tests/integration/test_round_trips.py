"""How often a command has to wait for the far end: counted, for a link of 50 ms makes each of them felt."""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Iterator

import pytest

from jupyman.core import checkup, probe
from jupyman.ssh import config
from jupyman.ssh.auth import Credentials, Keyring
from jupyman.ssh.link import Link
from tests.bed import Bed, User, wait_until
from tests.bed.delay import Line
from tests.bed.interpreter import VERSION

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


def one_command(line: Line) -> None:
    """Assert that one command was run: open a channel, start the shell, send the script; its end waits for nobody."""
    wait_until(lambda: line.trips >= 4, what="the end of the command's channel")
    assert line.trips == 4


def test_connect_and_probe(bed: Bed, line: Line) -> None:
    with contextlib.closing(connect(bed, line)) as link:
        connected = line.trips
        # TCP; versions with key exchange; its second half; new keys; the service; the key: facts of SSH and paramiko.
        assert connected <= 6
        line.trips = 0
        probe.probe(link, "server1", depth="full")
        one_command(line)
        print(f"\nround trips: connect {connected}, probe {line.trips - 1}")


def test_check_of_a_host_with_twenty_environments(bed: Bed, line: Line, user: User) -> None:
    template = user.home / "work" / "env"
    for number in range(20):
        prefix = user.home / ".conda" / "envs" / f"e{number:02}"
        shutil.copytree(template, prefix, symlinks=True)
        user.put(
            prefix / f"lib/python{VERSION}/site-packages/torch/version.py",
            "__version__ = '2.9.1+cu128'\ncuda = '12.8'\n",
        )
    ran = user.home / "conda-ran"
    for name in ("conda", "mamba"):
        user.program(name, f"#!/bin/sh\necho {name} >>{ran}\n")
    user.set_gpu("two-a100")
    with contextlib.closing(connect(bed, line)) as link:
        line.trips = 0
        start = time.monotonic()
        report = checkup.look(link, "server1")
        took = time.monotonic() - start
        one_command(line)
    names = {one.name for one in report.environments if one.prefix.startswith(f"{user.home}/.conda/envs/")}
    assert names == {f"e{number:02}" for number in range(20)}
    assert len([verdict for verdict in report.verdicts if verdict.ok and "with limits" in verdict.text]) >= 20
    assert not ran.exists(), "conda takes a second"
    line_took = 2 * DELAY * (line.trips - 1)
    print(f"\nround trips: check {line.trips - 1}, in {took:.2f} s, of which the line took {line_took:.2f} s")


def test_a_forwarded_connection_costs_one(bed: Bed, line: Line) -> None:
    with contextlib.closing(connect(bed, line)) as link:
        line.trips = 0
        link.open_channel(("127.0.0.1", bed.sshd.port)).close()
        assert line.trips <= 2, "the channel's opening, and its close that nobody waits for"
