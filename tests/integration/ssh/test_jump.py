"""Hosts behind hosts: ProxyJump over one and two hops, and ProxyCommand."""

from __future__ import annotations

import contextlib
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from jupyman import errors
from jupyman.ssh.config import ssh_g as ssh_config
from jupyman.ssh.link import Link, scan
from jupyman.ssh.login.auth import Credentials, Keyring
from tests.bed.sshd import Sshd, private_sshd
from tests.integration.ssh.answers import Answers


@dataclass
class Chain:
    servers: list[Sshd]
    config: Path

    def write(self, *extra: str) -> None:
        includes = [f"Include {server.ssh_config}" for server in self.servers]
        self.config.write_text("\n".join(["Host last", *extra, "Match all", *includes]))

    def open(self, host: str, ask: Answers | None = None) -> Link:
        read = ssh_config.read(host, ssh_config=str(self.config))
        return Link.open(read, Credentials(ask=ask), Keyring(), timeout=10)

    def works(self, host: str) -> bool:
        with contextlib.closing(self.open(host)) as link:
            return link.run("echo hello\n", timeout=10).stdout == b"hello\n"


def accepted(sshd: Sshd) -> int:
    """Count the logins with a key."""
    return sshd.log.read_text().count("Accepted publickey")


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Sshd]]:
    folder = tmp_path_factory.mktemp("jump")
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(private_sshd(folder / name, host=name)) for name in ("first", "second", "last")]


@pytest.fixture
def chain(servers: list[Sshd], tmp_path: Path) -> Iterator[Chain]:
    yield Chain(servers, tmp_path / "config")
    for server in servers:
        server.trust()
        server.configure()


def test_one_hop(chain: Chain) -> None:
    chain.write("ProxyJump first")
    before = accepted(chain.servers[0])
    assert chain.works("last")
    assert accepted(chain.servers[0]) > before


def test_two_hops_and_the_end_of_all_when_closed(chain: Chain) -> None:
    chain.write("ProxyJump first,second")
    with contextlib.closing(chain.open("last")) as link:
        assert link.run("echo hello\n", timeout=10).stdout == b"hello\n"
        assert link.heartbeat(3) < 3
        assert link.peer == "127.0.0.1"
        served = [server.children() for server in chain.servers]
        assert all(served)
    for children in served:
        _, alive = psutil.wait_procs(children, 3)
        assert not alive


def test_a_hop_with_a_hop_of_its_own(chain: Chain) -> None:
    chain.write("ProxyJump second")
    chain.servers[1].configure("ProxyJump first")
    before = accepted(chain.servers[0])
    assert chain.works("last")
    assert accepted(chain.servers[0]) > before


def test_each_hop_is_verified(chain: Chain) -> None:
    chain.write("ProxyJump first,second")
    chain.servers[1].trust("")
    with pytest.raises(errors.HostKeyFault, match="key of second is unknown"):
        chain.open("last")
    answers = Answers("yes")
    chain.open("last", answers).close()
    assert "second" in answers.asked[0][1]


def test_each_hop_logs_in(chain: Chain) -> None:
    chain.write("ProxyJump first")
    text = chain.servers[0].ssh_config.read_text()
    chain.servers[0].ssh_config.write_text(text.replace("IdentityFile", "# IdentityFile"))
    with pytest.raises(errors.AuthenticationFailed, match="@first"):
        chain.open("last")


def test_a_hop_that_cannot_reach_the_host(chain: Chain) -> None:
    chain.write("ProxyJump first", "Port 1")
    with pytest.raises(errors.HostUnreachable, match="cannot be reached from the jump host") as caught:
        chain.open("last")
    assert not isinstance(caught.value, errors.HostSilent), "the jump host was reached, and counts logins"


def test_a_jump_to_itself_is_named(chain: Chain) -> None:
    chain.write("ProxyJump first")
    chain.servers[0].configure("ProxyJump second")
    chain.servers[1].configure("ProxyJump first")
    with pytest.raises(errors.ConfigFault, match="jump hosts"):
        chain.open("last")


def test_none_means_none(chain: Chain) -> None:
    chain.write("ProxyJump none")
    assert ssh_config.read("last", ssh_config=str(chain.config)).proxy_jump == ()


def test_a_proxy_command(chain: Chain) -> None:
    if shutil.which("nc") is not None:
        command = "nc %h %p"
    else:
        relay = Path(chain.config.parent / "relay.py")
        relay.write_text(
            "import socket,sys,threading,os\n"
            "s=socket.create_connection((sys.argv[1],int(sys.argv[2])))\n"
            "def up():\n"
            "    while d:=os.read(0,65536): s.sendall(d)\n"
            "    s.shutdown(1)\n"
            "threading.Thread(target=up,daemon=True).start()\n"
            "while d:=s.recv(65536): os.write(1,d)\n"
        )
        command = f"{sys.executable} {relay} %h %p"
    chain.write(f"ProxyCommand {command}")
    before = {child.pid for child in psutil.Process().children()}
    assert chain.works("last")
    left = [child for child in psutil.Process().children() if child.pid not in before]
    assert not [child for child in left if child.name() != "sshd"]


def test_a_proxy_command_that_fails_is_unreachable(chain: Chain) -> None:
    chain.write("ProxyCommand false")
    with pytest.raises(errors.HostUnreachable) as caught:
        chain.open("last")
    assert not isinstance(caught.value, errors.HostSilent), "of its connections nothing is known"


def test_the_key_behind_a_hop_cannot_be_looked_at(chain: Chain) -> None:
    chain.write("ProxyJump first")
    with pytest.raises(errors.UsageFault, match="another machine"):
        scan(ssh_config.read("last", ssh_config=str(chain.config)))
