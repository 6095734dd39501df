"""One sshd for all tests of this room that change nothing of it, a link to it, and a forwarder on the link."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from jupyman.ssh.forward.forwarder import Forwarder
from jupyman.ssh.link import Link
from jupyman.ssh.wire.packetizer import Packetizer
from jupyman.ssh.wire.paramiko_packets import ParamikoPacketizer
from tests.bed.hostile import Gateway, gateway
from tests.bed.sshd import Sshd, keygen, private_sshd, public


@pytest.fixture(scope="session")
def shared_sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    """Yield the sshd of this worker."""
    with private_sshd(tmp_path_factory.mktemp("ssh") / "bed", rsa=True) as made:
        yield made


@pytest.fixture
def sshd(shared_sshd: Sshd) -> Iterator[Sshd]:
    """Yield the worker's sshd; the client's files and the accepted key are restored afterwards."""
    yield shared_sshd
    shared_sshd.authorized.write_text(f"{public(shared_sshd.client_key)}\n")
    shared_sshd.trust()
    shared_sshd.configure()


@pytest.fixture(params=["ours", "paramiko's"])
def packets(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Choose the packetizer of the test's links: ours, and the one for a version of paramiko that ours does not fit.

    A test requests it by ``usefixtures``, so that it precedes `link`.
    """
    chosen = Packetizer if request.param == "ours" else ParamikoPacketizer
    monkeypatch.setattr("jupyman.ssh.channels.self_check.packetizer", lambda: chosen)


@pytest.fixture
def link(sshd: Sshd) -> Iterator[Link]:
    """Yield a link to `sshd`."""
    with contextlib.closing(sshd.open()) as made:
        yield made


@pytest.fixture
def forwarder(link: Link) -> Iterator[Forwarder]:
    """Yield our forwarder on `link`."""
    made = Forwarder("test")
    made.attach(link)
    with contextlib.closing(made):
        yield made


@pytest.fixture(scope="session")
def key(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the key of the odd host, which its user has as well."""
    return keygen(tmp_path_factory.mktemp("odd") / "key")


@pytest.fixture
def odd(key: Path) -> Iterator[Gateway]:
    """Yield a host that sends odd messages when it is told to."""
    with gateway(key) as made:
        yield made
