"""A session outlives the daemon, the link, the host's sshd, a reboot here, and a broken state file."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from jupyman.local import daemon_file
from tests.bed import Bed, Cli, Sshd, User, wait_until
from tests.bed.aftermath import no_traceback, servers
from tests.bed.notebooks import Kernel, a_session, answers, local_port, now, up

Session = dict[str, Any]


@pytest.fixture(scope="module")
def sshd(bed: Bed) -> Iterator[Sshd]:
    with bed.start_sshd() as made:
        yield made


@pytest.fixture(scope="module")
def made(bed: Bed, sshd: Sshd) -> Iterator[tuple[Cli, Session, Kernel]]:
    with a_session(bed, sshd=sshd) as (cli, session):
        kernel = Kernel(session)
        kernel.run(session, "x = 41")
        yield cli, session, kernel


@pytest.fixture
def user(bed: Bed) -> User:
    return bed.user()


def daemon(cli: Cli) -> int:
    found = daemon_file.read(cli.home / "run" / "daemon.json")
    assert found is not None
    return found.pid


def kill_daemon(cli: Cli) -> None:
    """End it as a crash would."""
    os.kill(daemon(cli), signal.SIGKILL)
    wait_until(lambda: not cli.processes(), what="the daemon's end")


def forget_runtime(cli: Cli) -> None:
    """Do what a reboot of this computer does: no process is left, and nothing in the runtime folder."""
    kill_daemon(cli)
    shutil.rmtree(cli.home / "run")


def stop_daemon(cli: Cli) -> None:
    stopped = cli("daemon", "stop")
    assert (stopped.rc, stopped.stdout) == (0, "daemon stopped; your servers keep running\n"), stopped


@pytest.mark.parametrize("ended", [kill_daemon, stop_daemon, forget_runtime], ids=lambda how: how.__name__)
def test_a_session_outlives_the_daemon(
    made: tuple[Cli, Session, Kernel], ended: Callable[[Cli], None], user: User
) -> None:
    cli, session, kernel = made
    before = daemon(cli)
    ended(cli)
    wait_until(lambda: not answers(local_port(session)), what="the end of the daemon's listeners")
    start = time.monotonic()
    seen = now(cli)  # starts another daemon, and waits for what it finds
    print(f"{ended.__name__}: state {seen['state']} {time.monotonic() - start:.2f} s after the next command")
    assert daemon(cli) != before
    same_again(cli, session, kernel, seen)
    assert [one.pid for one in servers(user)] == [session["server"]["pid"]]


def same_again(cli: Cli, session: Session, kernel: Kernel, seen: Session) -> None:
    """Assert that the session is the one of before: server, address, token, and what the kernel knows."""
    if seen["state"] != "running":  # a busy machine: `ps` waits five seconds and no longer
        wait_until(lambda: now(cli)["state"] == "running", what="the session's return")
        seen = now(cli)
    for same in ("name", "host", "server", "url", "problems"):
        assert seen[same] == session[same]
    assert (seen["link"]["state"], seen["forwards"][0]["state"]) == ("up", "up")
    assert kernel.run(session, "print(x + 1)") == "42\n"
    again = up(cli, "server1")
    assert [again[same] for same in ("server", "url")] == [session[same] for same in ("server", "url")]
    no_traceback(cli)


def cut(sshd: Sshd) -> None:
    """Cut the connection; sshd goes on listening."""
    carriers = sshd.connections()
    assert carriers
    for carrier in carriers:
        carrier.kill()


def restart(sshd: Sshd) -> None:
    sshd.stop()
    sshd.start()


@pytest.mark.parametrize("lost", [cut, restart], ids=lambda how: how.__name__)
def test_a_session_outlives_its_link(
    made: tuple[Cli, Session, Kernel], lost: Callable[[Sshd], None], sshd: Sshd
) -> None:
    cli, session, kernel = made
    before = now(cli)["link"]["reconnects"]
    lost(sshd)

    def back() -> bool:
        one = now(cli)
        return bool(one["link"]["reconnects"] > before and one["forwards"][0]["state"] == "up")

    wait_until(back, what="the link's return", timeout=40)
    seen = now(cli)
    assert seen["link"]["reconnects"] == before + 1
    assert seen["link"]["last_error"]
    same_again(cli, session, kernel, seen)


def test_ps_counts_a_blip_and_keeps_silent_about_it(made: tuple[Cli, Session, Kernel], sshd: Sshd) -> None:
    cli, session, kernel = made
    before = now(cli)
    with socket.create_connection(("127.0.0.1", local_port(session)), 5):
        wait_until(lambda: now(cli)["forwards"][0]["open"] == 1, what="the count of an open connection")
    cut(sshd)
    wait_until(lambda: now(cli)["link"]["reconnects"] > before["link"]["reconnects"], what="the link's return")
    wait_until(lambda: now(cli)["forwards"][0]["state"] == "up", what="the session's return")
    kernel.run(session, "print(1)")
    seen = now(cli)
    assert (seen["state"], seen["problems"]) == ("running", [])
    assert seen["link"]["last_error"]
    assert seen["forwards"][0]["bytes_in"] > before["forwards"][0]["bytes_in"]
    assert seen["forwards"][0]["bytes_out"] > before["forwards"][0]["bytes_out"]
    heads, row = cli("ps").stdout.splitlines()
    count = seen["link"]["reconnects"]
    assert f"up (reconnected {'once' if count == 1 else f'{count} times'})" in row
    assert "LINK" in heads


def test_a_session_outlives_a_host_that_is_away_while_the_daemon_starts(
    made: tuple[Cli, Session, Kernel], sshd: Sshd
) -> None:
    cli, session, kernel = made
    kill_daemon(cli)
    sshd.stop()
    try:
        seen = now(cli)
        assert (seen["state"], seen["link"]["state"]) == ("lost", "reconnecting")
        assert seen["forwards"][0]["local"] == session["forwards"][0]["local"], "the port is held for the browser's tab"
        assert (seen["server"], seen["url"]) == (None, None)
    finally:
        sshd.start()
    same_again(cli, session, kernel, now(cli))


# --- the state file -----------------------------------------------------------------------------------------------

GARBAGE = [b"", b"\0" * 512, b'{"version": 1, "sessions": {"server1": {', b'{"version": 1, "sessions": {"\xff": {}}}']


def state_files(cli: Cli) -> list[Path]:
    return [cli.home / "state" / name for name in ("state.json", "state.json.bak")]


@pytest.mark.parametrize("garbage", GARBAGE, ids=["empty", "zeros", "truncated", "no text"])
def test_a_broken_state_file_costs_nothing(made: tuple[Cli, Session, Kernel], garbage: bytes) -> None:
    cli, session, kernel = made
    up(cli, "server1")  # each writes the file, and keeps the one before
    stop_daemon(cli)
    state, backup = state_files(cli)
    assert backup.exists()
    state.write_bytes(garbage)
    same_again(cli, session, kernel, now(cli))
    told_of(cli, state, garbage)


def test_without_any_state_the_server_is_adopted_again(made: tuple[Cli, Session, Kernel]) -> None:
    cli, session, kernel = made
    up(cli, "server1")
    stop_daemon(cli)
    for path in state_files(cli):
        path.write_bytes(GARBAGE[2])
    listed = cli("ps", "--json")
    assert (listed.rc, listed.json["sessions"]) == (0, []), listed
    for path in state_files(cli):
        told_of(cli, path, GARBAGE[2])
    adopted = up(cli, "server1", "--local-port", str(local_port(session)))
    assert adopted["server"] == {**session["server"], "adopted": True}
    assert adopted["url"] == session["url"]
    assert kernel.run(adopted, "print(x + 1)") == "42\n"


def told_of(cli: Cli, path: Path, garbage: bytes) -> None:
    """Assert that the daemon's log names a file that could not be read, and that it was set aside."""
    log = cli("daemon", "logs", "-n", "1000").stdout
    assert f"{path} could not be read" in log
    kept = [other.read_bytes() for other in path.parent.glob(f"{path.name}.broken-*")]
    assert garbage in kept
