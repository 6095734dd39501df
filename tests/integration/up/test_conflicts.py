"""`up --port P` when P is taken: by whom, what --on-conflict does, and nothing else changes."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator
from typing import Any

import psutil
import pytest

from tests.bed import Cli, Ran, User, wait_until
from tests.bed.aftermath import leftovers, nothing_left, servers
from tests.bed.by_hand import by_hand
from tests.bed.notebooks import Kernel, local_port, now, served
from tests.bed.ports import free_ports
from tests.bed.terminal import Terminal

# A Jupyter Server without the lab: it starts faster, and its port is the same matter.
UP = ("up", "server1", "--app", "server", "--no-browser", "--port")
UNSEEN = '#!/bin/sh\necho "${0##*/}" >>~/asked\nexit 1\n'


def alive(pid: int) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    return False


def started(ran: Ran) -> dict[str, Any]:
    """Return the session of `up --json`, which must have succeeded."""
    assert ran.rc == 0, ran
    found: dict[str, Any] = ran.json
    return found


def nothing_started(cli: Cli, user: User, *but: int) -> None:
    """Assert that the user runs nothing but these, and that no session came to be."""
    assert cli("ps", "--json").json["sessions"] == []
    assert servers(user) == []
    assert not (user.home / ".local/state/jupyman").exists()
    assert {one.pid for one in user.processes() if not one.name().startswith("sshd")} == set(but)


# --- the neighbour's ------------------------------------------------------------------------------------------------


def test_a_neighbours_port_is_left_alone_and_the_next_one_used(cli: Cli, user: User, users: Any) -> None:
    port, here = free_ports(2)
    other = users("other")
    with other.hold_port(port) as held, socket.create_server(("127.0.0.1", here)):
        # What may be ended is the user's own, whatever the policy says.
        ran = cli(*UP, str(port), "--local-port", str(here), "--on-conflict", "kill", "--json")
        session = started(ran)
        assert session["server"]["port"] > port
        assert f"! port {port} is held by {other.name} (uid {other.uid}), not yours: using" in ran.stderr
        assert alive(held.pid)
        # The one here, too: it is held by the very process that runs this test.
        assert local_port(session) > here
        assert f"! local port {here} is taken (held by " in ran.stderr
        assert f", pid {os.getpid()}): using {local_port(session)}" in ran.stderr


@pytest.mark.parametrize("hidden", [(), ("lsof",), ("lsof", "ss")], ids=["lsof", "ss", "proc"])
def test_the_holder_is_named_by_whatever_tool_there_is(
    cli: Cli, user: User, users: Any, hidden: tuple[str, ...]
) -> None:
    for name in hidden:
        user.program(name, UNSEEN)
    other = users("other")
    with user.hold_port() as own, other.hold_port() as alien:
        ran = cli(*UP, str(own.port), "--on-conflict", "fail")
        assert ran.rc == 22, ran
        python = str(user.conda / "bin" / "python")
        assert f"error: port {own.port} on server1 is taken: your own process {python}" in ran.stderr
        assert f"(pid {own.pid})" in ran.stderr
        told = cli(*UP, str(own.port), "--on-conflict", "fail", "--json").json["error"]
        holder = told["details"]["holder"]
        assert told["code"] == "port-in-use"
        assert (holder["pid"], holder["uid"], holder["ours"]) == (own.pid, user.uid, True)
        assert (user.home / "asked").exists() == bool(hidden)
        if hidden:
            assert set((user.home / "asked").read_text().split()) == set(hidden)
        ran = cli(*UP, str(alien.port), "--on-conflict", "fail")
        assert ran.rc == 22, ran
        assert f"error: port {alien.port} on server1 is taken: {other.name} (uid {other.uid})" in ran.stderr
        assert [alive(own.pid), alive(alien.pid)] == [True, True]
        nothing_started(cli, user, own.pid)


# --- the user's own -------------------------------------------------------------------------------------------------


def test_without_a_terminal_the_next_port_is_used(cli: Cli, user: User) -> None:
    [port] = free_ports(1)
    # What listens on every address has it on 127.0.0.1 as well.
    with user.hold_port(port, "0.0.0.0") as held:
        ran = cli(*UP, str(port), "--json")
        assert started(ran)["server"]["port"] > port
        assert f"! port {port} is held by your own process" in ran.stderr
        assert "not yours" not in ran.stderr
        assert alive(held.pid)


def test_a_question_with_choices_is_asked_on_a_terminal(cli: Cli, user: User) -> None:
    [port] = free_ports(1)
    with user.hold_port(port) as held:
        for keys in ("cancel\n", "\x03"):
            with Terminal(cli, *UP, str(port)) as terminal:
                terminal.expect(f"port {port} on server1 is held by your own process")
                terminal.expect(f"(pid {held.pid})")
                terminal.expect("next / kill / cancel [next]")
                terminal.type(keys)
                ran = terminal.end()
            assert ran.rc == (22 if keys == "cancel\n" else 130), ran
            nothing_started(cli, user, held.pid)
        with Terminal(cli, *UP, str(port)) as terminal:
            terminal.expect("[next]")
            terminal.type("maybe\n")
            terminal.expect("one of next / kill / cancel")
            terminal.type("\n")
            assert terminal.end().rc == 0
        assert now(cli)["server"]["port"] > port
        assert alive(held.pid)
        with Terminal(cli, *UP, str(port), "--name", "second") as terminal:
            terminal.expect("[next]")
            terminal.type("k\n")
            ran = terminal.end()
        assert ran.rc == 0, ran
        assert f"port {port} was held by your own process" in ran.stderr
        assert now(cli, "second")["server"]["port"] == port
        assert not alive(held.pid)


def test_the_users_own_jupyter_can_be_taken_over(cli: Cli, user: User) -> None:
    with by_hand(user) as mine:
        with Terminal(cli, *UP, str(mine["port"])) as terminal:
            terminal.expect(f"port {mine['port']} on server1 is held by your own Jupyter (pid {mine['pid']})")
            terminal.expect("adopt / next / kill / cancel [adopt]")
            terminal.type("\n")
            ran = terminal.end()
        assert ran.rc == 0, ran
        session = now(cli)
        assert (session["server"]["pid"], session["server"]["adopted"]) == (mine["pid"], True)
        assert session["server"]["port"] == mine["port"]
        assert f"token={mine['token']}" in session["url"]
        assert servers(user) == []


def test_the_port_of_another_session(cli: Cli, user: User) -> None:
    [port] = free_ports(1)
    first = started(cli(*UP, str(port), "--json"))
    assert first["server"]["port"] == port
    kernel = Kernel(first)
    holder = f"your own Jupyter (pid {first['server']['pid']})"
    ran = cli(*UP, str(port), "--name", "second", "--on-conflict", "fail")
    assert ran.rc == 22, ran
    assert f"error: port {port} on server1 is taken: {holder}" in ran.stderr
    assert kernel.run(first, "print(6 * 7)").strip() == "42"
    # Who asks for it gets it: the other session ends as by `kill`, its kernels too, and is not taken for running.
    second = started(ran := cli(*UP, str(port), "--name", "second", "--on-conflict", "kill", "--json"))
    assert f"port {port} was held by {holder}: ended it" in ran.stderr
    assert second["server"]["port"] == port
    # Its address here does not lead to its successor, not for a moment.
    assert served(first, "/api")[0] == 503
    wait_until(lambda: now(cli)["state"] == "exited", what="the first session's end being noticed")
    assert "stopped by" in now(cli)["problems"][0]["text"]
    assert [one.pid for one in servers(user)] == [second["server"]["pid"]]
    assert cli("kill", "server1", "second").rc == 0
    nothing_left(cli, user)


# --- what is no conflict --------------------------------------------------------------------------------------------


@contextlib.contextmanager
def connected(*, reuse: bool) -> Iterator[tuple[int, socket.socket, socket.socket]]:
    """Connect somewhere; yield the port at our end, and both ends."""
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket() as near:
        if reuse:
            near.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            near.bind(("127.0.0.1", *free_ports(1)))
        near.connect(server.getsockname())
        with server.accept()[0] as far:
            far.settimeout(20)
            yield near.getsockname()[1], near, far


def test_the_near_end_of_a_connection_is_no_holder(cli: Cli, user: User) -> None:
    with connected(reuse=True) as (port, near, far):
        ran = cli(*UP, str(port), "--on-conflict", "kill", "--json")
        assert started(ran)["server"]["port"] == port
        assert f"✓ port {port} is free on server1" in ran.stderr
        near.sendall(b"still here")
        assert far.recv(100) == b"still here"


def test_a_port_that_cannot_be_bound_all_the_same_is_taken(cli: Cli, user: User) -> None:
    # Without SO_REUSEADDR the kernel keeps the port for the connection alone: nobody listens, and nobody else can.
    with connected(reuse=False) as (port, near, far):
        ran = cli(*UP, str(port), "--on-conflict", "fail")
        assert ran.rc == 22, ran
        assert f"error: the port is taken: {port} (Address already in use)" in ran.stderr
        assert cli("ps", "--json").json["sessions"] == []
        assert leftovers([user]) == []
        near.sendall(b"still here")
        assert far.recv(100) == b"still here"


def test_a_listener_on_ipv6_only_is_no_conflict(cli: Cli, user: User) -> None:
    [port] = free_ports(1)
    with user.hold_port(port, "::1") as held:
        ran = cli(*UP, str(port), "--on-conflict", "kill", "--json")
        assert started(ran)["server"]["port"] == port
        assert f"✓ port {port} is free on server1" in ran.stderr
        assert alive(held.pid)
