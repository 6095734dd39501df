"""The server listens on a private socket, or on a port if one is requested or nothing else works."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.bed import Bed, Cli, User, private_home
from tests.bed.notebooks import served
from tests.bed.ports import free_ports

UP = ("up", "server1", "--no-browser", "--json")


def session(cli: Cli, *options: str) -> dict[str, Any]:
    made = cli(*UP, *options)
    assert made.rc == 0, made
    found: dict[str, Any] = made.json
    return found


def test_a_private_socket_and_the_usual_port_here(cli: Cli, user: User) -> None:
    [local] = free_ports(1)
    made = session(cli, "--local-port", str(local))
    assert made["server"]["port"] is None
    [forward] = made["forwards"]
    assert forward["local"] == f"127.0.0.1:{local}", "no port is taken on the host, so it is free here"
    assert forward["remote"].startswith("unix:/tmp/jm-")
    assert served(made, "/api/status")[0] == 200
    listening = user.run("sh", "-c", "ss -ltnp 2>/dev/null | grep -c jupyter-lab; true").stdout.strip()
    assert listening == "0"


@pytest.mark.parametrize("options", [("--port",), ("--on-conflict", "next", "--port")])
def test_an_explicit_port_selects_a_tcp_port(cli: Cli, options: tuple[str, ...], user: User) -> None:
    del user
    [port] = free_ports(1)
    made = session(cli, *options, str(port))
    assert made["server"]["port"] == port
    assert made["forwards"][0]["remote"] == f"127.0.0.1:{port}"
    assert served(made, "/api/status")[0] == 200


def test_an_sshd_that_forwards_no_sockets_costs_one_more_start(fresh_bed: Bed, users: Callable[[str], User]) -> None:
    user = users("bash")
    with fresh_bed.start_sshd("AllowStreamLocalForwarding no") as sshd, private_home() as home:
        cli = Cli(home, sshd.ssh_config)
        made = session(cli)
        assert made["server"]["port"] is not None
        assert served(made, "/api/status")[0] == 200
        servers = [one for one in user.processes() if any("jupyter-lab" in word for word in one.cmdline())]
        assert [one.pid for one in servers] == [made["server"]["pid"]], "the first one was stopped again"
        assert cli("kill", "server1").rc == 0
        again = cli(*UP)
        assert again.rc == 0, again
        assert "starting again" not in again.stderr, "it is remembered"
        assert again.json["server"]["port"] is not None


def test_forbidden_forwarding_is_reported(fresh_bed: Bed, users: Callable[[str], User]) -> None:
    user = users("bash")
    with fresh_bed.start_sshd("AllowTcpForwarding no") as sshd, private_home() as home:
        refused = Cli(home, sshd.ssh_config)(*UP)
        assert refused.rc == 14, refused
        assert not [one for one in user.processes() if any("jupyter" in word for word in one.cmdline())]


def test_the_engine_sshtunnel_uses_a_port(cli: Cli, user: User) -> None:
    del user
    assert cli("host", "add", "server1").rc == 0
    [config] = cli.home.rglob("config.toml")
    config.write_text(config.read_text() + 'engine = "sshtunnel"\n')
    assert cli("host", "ls", "--json").rc == 0
    made = session(cli)
    assert made["server"]["port"] is not None
    assert served(made, "/api/status")[0] == 200
