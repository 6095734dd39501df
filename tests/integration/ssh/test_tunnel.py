"""`jupyman tunnel`: forwards without a session, through a real sshd to real listeners."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any

import pytest

from tests.bed import Bed, Cli, wait_until
from tests.bed.aftermath import listeners, nothing_left, refused
from tests.bed.notebooks import answers
from tests.bed.ports import free_ports
from tests.bed.tunnels import kill_daemon, local, reader, spoken


@pytest.fixture
def cli(bed: Bed, jupyman_home: Path) -> Cli:
    """The command line with a home of its own; forwards leave nothing in the users' homes to clean up."""
    return Cli(jupyman_home, bed.ssh_config)


def forwards(cli: Cli) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = cli("ps", "--json").json["forwards"]
    return found


def test_a_forward_carries_connections_and_their_half_closes(cli: Cli) -> None:
    with reader() as remote:
        [here] = free_ports(1)
        ran = cli("tunnel", f"{here}:{remote}", "--host", "server1", "--json")
        assert ran.rc == 0, ran
        [forward] = ran.json["forwards"]
        ends = {"host": "server1", "local": f"127.0.0.1:{here}", "remote": f"127.0.0.1:{remote}"}
        assert forward.pop("link")["state"] == "up"
        counts = {"open": 0, "bytes_in": 0, "bytes_out": 0}
        assert forward == {**ends, **counts, "state": "up", "share": False}
        text = b"x" * 300_000
        # The answer comes only after our half is closed: it must travel to the far end, and not close the other half.
        assert spoken(here, text) == text.upper()
        [seen] = forwards(cli)
        assert {key: seen[key] for key in ends} == ends
        assert (seen["bytes_in"], seen["bytes_out"]) == (len(text), len(text))
        again = cli("tunnel", f"{here}:{remote}", "server1")
        assert again.rc == 0, again
        assert [line.split() for line in again.stdout.splitlines()] == [
            ["FORWARD", "HOST", "REMOTE", "STATE"],
            [ends["local"], "server1", ends["remote"], "up"],
        ]
        assert len(forwards(cli)) == 1


def test_a_taken_local_port_is_reported_and_the_next_one_is_used(cli: Cli) -> None:
    # Host and client are one machine here: what listens there has the local port, too.
    with reader() as port:
        ran = cli("tunnel", str(port), "server1", "--json")
        assert ran.rc == 0, ran
        [first] = ran.json["forwards"]
        assert local(first) > port
        assert f"local port {port} is taken (held by" in ran.stderr
        assert f"pid {os.getpid()}): using {local(first)}" in ran.stderr
        assert spoken(local(first)) == b"HELLO"
        # The only host that is known needs no name; the same words mean the same forward.
        assert cli("tunnel", str(port), "--json").json["forwards"][0]["local"] == first["local"]
        assert cli("tunnel", str(local(first)), "--close", "--json").json["forwards"][0]["local"] == first["local"]
        again = cli("tunnel", str(port), "server1", "--json").json["forwards"][0]
        closed = cli("tunnel", str(port), str(local(again)), "--close", "--json")
        assert [one["local"] for one in closed.json["forwards"]] == [again["local"]]
        assert spoken(local(again)) == b""
        assert forwards(cli) == []


def test_several_at_once_also_to_other_addresses(cli: Cli) -> None:
    with reader() as one, reader(host="127.0.0.2") as two, reader(host="::1") as three:
        ports = free_ports(3)
        specs = [f"{ports[0]}:{one}", f"{ports[1]}:127.0.0.2:{two}", f"{ports[2]}:[::1]:{three}"]
        ran = cli("tunnel", *specs, "server1")
        assert ran.rc == 0, ran
        rows = [line.split() for line in ran.stdout.splitlines()[1:]]
        remotes = [f"127.0.0.1:{one}", f"127.0.0.2:{two}", f"[::1]:{three}"]
        assert rows == [
            [f"127.0.0.1:{port}", "server1", remote, "up"] for port, remote in zip(ports, remotes, strict=True)
        ]
        assert [spoken(port) for port in ports] == [b"HELLO"] * 3
        assert [line.split()[:4] for line in cli("ps").stdout.splitlines()[1:]] == rows
        closed = cli("tunnel", *specs[:2], "--close")
        assert closed.rc == 0, closed
        assert [line.split()[3] for line in closed.stdout.splitlines()] == ["STATE", "closed", "closed"]
        assert [spoken(port) for port in ports] == [b"", b"", b"HELLO"]
        assert [local(forward) for forward in forwards(cli)] == [ports[2]]
        # One that does not exist keeps none of the others.
        partly = cli("tunnel", str(ports[0]), str(ports[2]), "--close")
        assert partly.rc == 2, partly
        assert f"no forward of server1 has local port {ports[0]}; closed: 127.0.0.1:{ports[2]}" in partly.stderr
        assert [line.split()[0] for line in partly.stdout.splitlines()] == ["FORWARD", f"127.0.0.1:{ports[2]}"]
        assert forwards(cli) == []


def test_a_forward_may_come_before_what_it_leads_to(cli: Cli) -> None:
    here, there = free_ports(2)
    ran = cli("tunnel", f"{here}:{there}", "server1")
    assert ran.rc == 0, ran
    assert f"nothing listens on 127.0.0.1:{there} on server1 yet" in ran.stderr
    assert spoken(here) == b""
    with reader(there):
        assert spoken(here) == b"HELLO"


@pytest.mark.parametrize("engine", ["native", "sshtunnel"])
def test_a_forward_to_itself_is_refused(cli: Cli, engine: str) -> None:
    """The host is this computer, and nothing but the forward's own listener has the port there."""
    cli.home.mkdir(exist_ok=True)
    (cli.home / "config.toml").write_text(f'[hosts.server1]\nengine = "{engine}"\n')
    loop, here, there = free_ports(3)
    said = refused(cli, "tunnel", str(loop), "--host", "server1", status=2, code="usage")
    assert f"127.0.0.1:{loop} on server1 is this forward itself: server1 is this computer" in said.stderr
    assert not answers(loop), "the port is free again"
    assert forwards(cli) == []
    with reader(there):
        mixed = cli("tunnel", str(loop), f"{here}:{there}", "server1", "--json")
        assert (mixed.rc, mixed.json["error"]["code"]) == (2, "usage"), mixed
        assert [local(one) for one in mixed.json["forwards"]] == [here]
        assert [local(one) for one in forwards(cli)] == [here], "the other one is opened"
        with socket.create_connection(("127.0.0.1", here), 10) as sock:
            assert sock.getpeername()[1] == here


def test_forwards_that_lead_to_each_other_end_at_the_bound_and_ps_names_it(cli: Cli) -> None:
    with reader() as remote:
        one, two, other = free_ports(3)
        # The account there is another one than ours here, as a rule.
        assert cli("tunnel", "--share", f"{one}:{two}", "server1").rc == 0
        assert cli("tunnel", "--share", f"{two}:{one}", f"{other}:{remote}", "server1").rc == 0
        with socket.create_connection(("127.0.0.1", one), 10) as sock:
            sock.sendall(b"x")

            def named() -> list[str]:
                return [p["code"] for forward in forwards(cli) for p in forward.get("problems", [])]

            assert set(wait_until(named, what="the bound", timeout=60)) == {"forward-full"}
            assert all(forward["open"] <= 1024 for forward in forwards(cli))
            assert spoken(other) == b"HELLO"
            assert ": 1024 were open at once (look which program" in cli("ps").stdout
        wait_until(lambda: all(f["open"] == 0 for f in forwards(cli)), what="the end of the connections", timeout=60)
        assert spoken(other) == b"HELLO"


def test_after_the_last_close_nothing_is_left(cli: Cli, bed: Bed) -> None:
    here, there = free_ports(2)
    assert cli("tunnel", f"{here}:{there}", "server1").rc == 0
    assert listeners(cli) == 2
    refused(cli, "tunnel", str(there), "--close", status=2, code="usage")
    assert [local(forward) for forward in forwards(cli)] == [here]
    assert cli("tunnel", str(here), "--close", "--host", "server1").rc == 0
    nothing_left(cli, bed.user())
    # The link is kept warm for the next command; nothing wants it back when it is gone.
    for connection in bed.sshd.connections():
        connection.kill()
    wait_until(lambda: link(cli, "server1")["state"] == "idle", what="the link being let go")


def link(cli: Cli, host: str) -> dict[str, Any]:
    hosts = cli("host", "ls", "--json").json["hosts"]
    found: dict[str, Any] = next(one["link"] for one in hosts if one["name"] == host)
    return found


def test_forwards_outlive_the_daemon_on_the_same_local_ports(cli: Cli) -> None:
    with reader() as remote:
        first, second = free_ports(2)
        opened = cli("tunnel", f"{first}:{remote}", f"{second}:{remote}", "server1", "--json")
        assert opened.rc == 0, opened
        kill_daemon(cli, first, second)
        assert [local(forward) for forward in forwards(cli)] == [first, second]
        wait_until(lambda: all(forward["state"] == "up" for forward in forwards(cli)), what="the forwards' return")
        assert [spoken(first), spoken(second)] == [b"HELLO"] * 2


def test_a_local_port_that_was_lost_meanwhile_can_be_replaced(cli: Cli) -> None:
    with reader() as remote:
        [here] = free_ports(1)
        assert cli("tunnel", f"{here}:{remote}", "server1").rc == 0
        kill_daemon(cli, here)
        with reader(here):
            assert [(local(one), one["state"]) for one in forwards(cli)] == [(here, "waiting")]
            ran = cli("tunnel", f"{here}:{remote}", "server1", "--json")
            assert ran.rc == 0, ran
            [replaced] = ran.json["forwards"]
            assert local(replaced) > here
            assert spoken(local(replaced)) == b"HELLO"
        assert [local(one) for one in forwards(cli)] == [local(replaced)]


@pytest.mark.parametrize("spec", ["0", "70000", "6006:0", "6006:x:", "6006:[::g]:1", "a:b:c:d"])
def test_what_is_no_forward_is_refused_before_anything_is_touched(cli: Cli, spec: str) -> None:
    ran = cli("tunnel", spec, "6006", "--json")
    assert ran.rc == 2, ran
    assert ran.json["error"]["code"] == "usage"
    assert cli.processes() == []
