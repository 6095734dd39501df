"""`jupyman kill`: ends its targets after a question, and nothing else."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.bed import Bed, Cli, User, wait_until
from tests.bed.aftermath import nothing_left
from tests.bed.http import get
from tests.bed.ports import free_ports
from tests.bed.terminal import Terminal

# Listens on a free port, says which, and takes no notice of SIGTERM.
STUBBORN = """
import signal, socket, sys
signal.signal(signal.SIGTERM, signal.SIG_IGN)
held = socket.create_server(("127.0.0.1", 0))
print(held.getsockname()[1], flush=True)
sys.stdin.read()
"""


@pytest.fixture
def cli(bed: Bed, jupyman_home: Path) -> Cli:
    """The command line with a home of its own; a test of a session asks for `user` too, whose home is cleaned."""
    return Cli(jupyman_home, bed.ssh_config)


def alive(pid: int) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    return False


# --- a port's listener --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["{port} --host server1", "server1:{port}"])
def test_a_ports_listener_is_shown_and_ended_after_a_yes(cli: Cli, bed: Bed, form: str) -> None:
    with bed.user().hold_port() as held:
        words = form.format(port=held.port).split()
        with Terminal(cli, "kill", *words) as terminal:
            terminal.expect(f"End your own process {bed.user().conda}/bin/python")
            terminal.expect(f"(pid {held.pid}) on server1? [y/N]")
            terminal.type("n\n")
            ran = terminal.end()
        assert ran.rc == 130, ran
        assert "nothing was stopped" in ran.stderr
        assert alive(held.pid)
        with Terminal(cli, "kill", *words) as terminal:
            terminal.expect("[y/N]")
            terminal.type("y\n")
            ran = terminal.end()
        assert ran.rc == 0, ran
        assert ran.stdout == f"stopped port {held.port} of server1 (pid {held.pid})\n"
        assert not alive(held.pid)


def test_enter_alone_and_ctrl_c_end_nothing(cli: Cli, bed: Bed) -> None:
    with bed.user().hold_port() as held:
        for keys in ("\n", "\x03"):
            with Terminal(cli, "kill", f"server1:{held.port}") as terminal:
                terminal.expect("[y/N]")
                terminal.type(keys)
                ran = terminal.end()
            assert ran.rc == 130, ran
        assert alive(held.pid)


def test_without_a_terminal_yes_is_required(cli: Cli, bed: Bed) -> None:
    with bed.user().hold_port() as held:
        ran = cli("kill", f"server1:{held.port}", input="y\n")
        assert ran.rc == 2, ran
        assert "hint: -y answers yes" in ran.stderr
        assert alive(held.pid)
        ran = cli("kill", "-y", f"server1:{held.port}", "--json")
        assert ran.rc == 0, ran
        told = {"target": f"server1:{held.port}", "session": None, "host": "server1"}
        assert ran.json == {"killed": [{**told, "pid": held.pid, "port": held.port}]}
        assert not alive(held.pid)
        ran = cli("kill", "-y", f"server1:{held.port}")
        assert ran.rc == 2, ran
        assert f"error: nothing listens on port {held.port} of server1" in ran.stderr


def test_a_neighbours_process_is_left_alone(cli: Cli, bed: Bed) -> None:
    other = bed.user("other")
    with other.hold_port() as held:
        for words in ((), ("-y",), ("-y", "--force")):
            ran = cli("kill", f"server1:{held.port}", *words)
            assert ran.rc == 26, ran
            assert f"is held by {other.name} (uid {other.uid}): not yours" in ran.stderr
        assert alive(held.pid)


def test_the_far_end_of_a_connection_is_no_listener(cli: Cli, bed: Bed) -> None:
    code = (
        "import socket, sys; s = socket.create_connection(('127.0.0.1', int(sys.argv[1]))); "
        "print(s.getsockname()[1], flush=True); s.recv(1)"
    )
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        running(bed.user(), code, str(server.getsockname()[1])) as process,
    ):
        port = said(process)
        ran = cli("kill", "-y", "--force", f"server1:{port}")
        assert ran.rc == 2, ran
        assert "nothing listens" in ran.stderr
        assert alive(process.pid)


@contextlib.contextmanager
def running(user: User, code: str, *words: str) -> Iterator[subprocess.Popen[str]]:
    """Run a Python program as a user; it ends with the test."""
    pipe = subprocess.PIPE
    with user.start(str(user.conda / "bin/python"), "-c", code, *words, stdin=pipe, stdout=pipe) as process:
        try:
            yield process
        finally:
            process.kill()


def said(process: subprocess.Popen[str]) -> int:
    assert process.stdout is not None
    return int(process.stdout.readline())


def test_a_stopped_process_ends_too(cli: Cli, bed: Bed) -> None:
    with bed.user().hold_port() as held:
        os.kill(held.pid, signal.SIGSTOP)
        wait_until(lambda: psutil.Process(held.pid).status() == psutil.STATUS_STOPPED, what="the stop")
        ran = cli("kill", "-y", f"server1:{held.port}")
        assert ran.rc == 0, ran
        assert not alive(held.pid)


def test_one_that_ignores_sigterm_needs_force(cli: Cli, bed: Bed) -> None:
    with running(bed.user(), STUBBORN) as process:
        port = said(process)
        ran = cli("kill", "-y", f"server1:{port}")
        assert ran.rc == 27, ran
        assert f"error: pid {process.pid} on server1 does not end" in ran.stderr
        assert f"hint: jupyman kill --force server1:{port}" in ran.stderr
        assert alive(process.pid)
        ran = cli("kill", "-y", "--force", f"server1:{port}")
        assert ran.rc == 0, ran
        assert not alive(process.pid)


def test_all_targets_are_tried_and_the_first_failure_counts(cli: Cli, bed: Bed) -> None:
    user, other = bed.user(), bed.user("other")
    with user.hold_port() as first, other.hold_port() as alien, user.hold_port() as last:
        targets = [f"server1:{port}" for port in (first.port, alien.port, last.port)]
        ran = cli("kill", "-y", *targets, "nobody")
        assert ran.rc == 26, ran
        assert f"error: port {alien.port} of server1 is held by {other.name}" in ran.stderr
        assert "no session is called 'nobody'" in ran.stderr
        assert [alive(one.pid) for one in (first, alien, last)] == [False, True, False]


@pytest.mark.parametrize("target", ["0", "65536", "server1:0", "-x:1", ""])
def test_what_is_no_target_is_refused_before_anything_is_touched(cli: Cli, target: str) -> None:
    ran = cli("kill", "-y", "--json", "--", target)
    assert ran.rc == 2, ran
    assert ran.json["error"]["code"] == "usage"
    assert cli.processes() == []


# --- sessions -----------------------------------------------------------------------------------------------------


def up(cli: Cli, *words: str) -> tuple[int, int, str]:
    """Start a session on a bare Jupyter Server; return its port, its pid and its address here."""
    [port] = free_ports(1)
    ran = cli("up", "server1", "--app", "server", "--port", str(port), "--json", *words)
    assert ran.rc == 0, ran
    session = ran.json
    return session["server"]["port"], session["server"]["pid"], session["url"]


def test_a_sessions_port_means_the_session_with_its_kernels(cli: Cli, user: User) -> None:
    port, pid, url = up(cli)
    address, _, token = url.partition("/?token=")
    status, kernel = get(int(address.rpartition(":")[2]), "/api/kernels", token, "POST", {"name": "python3"})
    assert status == 201, kernel
    [child] = wait_until(lambda: psutil.Process(pid).children(recursive=True), what="the kernel")
    with Terminal(cli, "kill", str(port)) as terminal:
        terminal.expect(f"Port {port} is the server of session server1. Stop it? [y/N]")
        terminal.type("n\n")
        assert terminal.end().rc == 130
    assert alive(pid)
    ran = cli("kill")
    assert ran.rc == 2, ran
    with Terminal(cli, "kill") as terminal:
        terminal.expect("Stop session server1 with its kernels on server1? [y/N]")
        terminal.type("no\n")
        assert terminal.end().rc == 130
    assert alive(pid)
    assert alive(child.pid)
    with Terminal(cli, "kill", str(port)) as terminal:
        terminal.expect("[y/N]")
        terminal.type("y\n")
        ran = terminal.end()
    assert ran.rc == 0, ran
    assert ran.stdout == f"stopped session server1 (pid {pid})\n"
    assert not alive(pid)
    assert not alive(child.pid)
    nothing_left(cli, user)


def test_of_several_sessions_one_must_be_named(cli: Cli, user: User) -> None:
    # Only digits are a port; so no session may be called so.
    assert cli("up", "server1", "--name", "8888").rc == 2
    _, first, _ = up(cli)
    _, second, _ = up(cli, "--name", "p8888")
    with Terminal(cli, "kill") as terminal:
        ran = terminal.end()
    assert ran.rc == 2, ran
    assert "hint: name a session or a port; sessions here: p8888, server1" in ran.stderr
    assert [alive(first), alive(second)] == [True, True]
    ran = cli("kill", "nobody", "p8888", "server1", "--json")
    assert ran.rc == 2, ran
    assert ran.json["error"]["code"] == "unknown-session"
    assert [alive(first), alive(second)] == [False, False]
    nothing_left(cli, user)
