"""Servers that this computer did not start: listed by `ps -a`, adopted by `up`, stopped from either side."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.bed import Cli, User, private_home, wait_until
from tests.bed.aftermath import no_traceback, nothing_left, servers
from tests.bed.by_hand import RUNTIME, by_hand
from tests.bed.http import get
from tests.bed.notebooks import Kernel, answers, local_port, now, quietly, served, token, up
from tests.bed.ports import free_ports

Session = dict[str, Any]


def listed(cli: Cli, *words: str) -> list[dict[str, Any]]:
    """Return what `ps --all` finds beside the sessions."""
    ran = cli("ps", "--all", "--json", *words)
    assert ran.rc == 0, ran
    found: list[dict[str, Any]] = ran.json["servers"]
    return found


def test_a_server_started_by_hand_is_listed_taken_over_and_stopped(cli: Cli, user: User) -> None:
    with by_hand(user, "--ServerApp.base_url=/mine/") as mine:
        pid, port = mine["pid"], mine["port"]
        [row] = listed(cli, "server1")
        assert row == {
            "host": "server1",
            "pid": pid,
            "port": port,
            "user": user.name,
            "root_dir": str(user.home),
            "started": row["started"],
            "url": f"http://127.0.0.1:{port}/mine/",
            "node": os.uname().nodename,
            "version": mine["version"],
            "session": None,
            "problems": [],
        }
        table = cli("ps", "-a", "server1")
        assert [line.split()[:5] for line in table.stdout.splitlines()] == [
            ["SERVER", "ON", "PID", "PORT", "USER"],
            ["server1", str(pid), str(port), user.name, str(user.home)],
        ]
        assert mine["token"] not in table.stdout + json.dumps(row)
        assert cli("ps", "--json").json["sessions"] == [], "listed, not taken"

        # Its port can be forwarded as any other.
        [there] = free_ports(1)
        tunnel = cli("tunnel", f"{there}:{port}", "server1", "--json")
        assert tunnel.rc == 0, tunnel
        assert get(there, "/mine/api/status", mine["token"])[0] == 200

        taken = up(cli, "server1", "--name", "mine")
        server = taken["server"]
        assert (taken["name"], taken["state"], server["adopted"]) == ("mine", "running", True)
        assert [server[key] for key in ("pid", "port", "app", "env")] == [pid, port, "lab", None]
        assert taken["url"] == f"http://127.0.0.1:{local_port(taken)}/mine/lab?token={mine['token']}"
        assert get(local_port(taken), "/mine/api/status", mine["token"])[0] == 200
        assert get(local_port(taken), "/mine/api/status")[0] == 403
        assert listed(cli) == [], "a session's own server is no stranger"
        [session] = cli("ps", "--json").json["sessions"]
        assert session["server"] == server

        # The daemon's end changes nothing.
        assert cli("daemon", "stop").rc == 0
        again = up(cli, "mine")
        assert (again["server"], again["url"]) == (server, taken["url"])
        killed = cli("kill", "mine")
        assert (killed.rc, killed.stdout) == (0, f"stopped session mine (pid {pid})\n"), killed
        assert not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
        assert cli("tunnel", str(there), "--close").rc == 0
        nothing_left(cli, user)


def test_an_older_server_is_found_and_adopted_if_its_token_is_readable(cli: Cli, user: User) -> None:
    """Notebook 6 calls the file nbserver-PID.json, and the directory notebook_dir."""
    elsewhere = {"JUPYTER_RUNTIME_DIR": str(user.home / "elsewhere")}
    (user.home / "work").mkdir(exist_ok=True)
    with by_hand(user, runtime="elsewhere", env=elsewhere) as one:
        assert listed(cli, "server1") == [], "its file lies where nobody looks"
        old = {key: one[key] for key in ("base_url", "hostname", "password", "pid", "port", "secure", "token", "url")}
        old |= {"notebook_dir": str(user.home / "work"), "sock": ""}
        file = f"{RUNTIME}/nbserver-{one['pid']}.json"
        planted = user.put(file, json.dumps(old, indent=2))
        if os.geteuid() == 0:
            os.chown(planted, 0, 0)
            assert listed(cli, "server1") == [], "what another account wrote there is not believed"
        user.put(file, json.dumps(old, indent=2), 0o600)
        [row] = listed(cli, "server1")
        assert [row[key] for key in ("pid", "port", "root_dir", "version")] == [
            one["pid"],
            one["port"],
            str(user.home / "work"),
            None,
        ]
        # With a password there is no token to be had.
        user.put(file, json.dumps({**old, "token": "", "password": True}), 0o600)
        refused = cli("up", "server1", "--name", "old")
        assert refused.rc == 2, refused
        assert f"the server with pid {one['pid']} requires a password, so it cannot be adopted" in refused.stderr
        assert cli("ps", "--json").json["sessions"] == []
        user.put(file, json.dumps(old), 0o600)
        taken = up(cli, "server1", "--name", "old")
        assert (taken["server"]["pid"], taken["server"]["adopted"]) == (one["pid"], True)
        assert served(taken, "/api/status")[0] == 200
        assert cli("kill", "old").rc == 0
        nothing_left(cli, user)


def test_only_a_name_of_its_own_takes_over(cli: Cli, user: User) -> None:
    """Without --name the user's own server is left as it is."""
    with by_hand(user) as mine:
        session = quietly(cli, "server1", "--app", "server")
        assert (session["server"]["pid"] == mine["pid"], session["server"]["adopted"]) == (False, False)
        assert [row["pid"] for row in listed(cli)] == [mine["pid"]]
        taken = up(cli, "server1", "--name", "mine", "--port", str(mine["port"]))
        assert (taken["server"]["pid"], token(taken)) == (mine["pid"], mine["token"])
        assert cli("kill", "mine", "server1").rc == 0
        nothing_left(cli, user)


# --- two computers ------------------------------------------------------------------------------------------------


@pytest.fixture
def other(ssh_config: Path) -> Iterator[Cli]:
    """The same user at another computer."""
    with private_home() as home:
        yield Cli(home, ssh_config)


def test_a_session_is_taken_over_from_another_computer(cli: Cli, other: Cli, user: User) -> None:
    session = quietly(cli, "server1", "--app", "server")
    kernel = Kernel(session)
    kernel.run(session, "x = 41")
    [row] = listed(other, "server1")
    assert (row["pid"], row["session"]) == (session["server"]["pid"], "server1")
    assert token(session) not in json.dumps(row)
    [here] = free_ports(1)
    taken = up(other, "server1", "--local-port", str(here))
    assert taken["server"] == {**session["server"], "adopted": True}
    assert token(taken) == token(session)
    assert kernel.run(taken, "print(x + 1)") == "42\n"
    assert [one.pid for one in servers(user)] == [session["server"]["pid"]]
    # The first one is not disturbed, and still has its own.
    assert now(cli)["server"] == session["server"]
    assert up(cli, "server1")["url"] == session["url"]
    killed = other("kill", "server1")
    assert killed.rc == 0, killed
    nothing_left(other, user)
    assert answers(local_port(session)), "as an open tab does: the refusal is noticed at once"
    stopped_by_the_other(cli, session, user)
    assert cli("kill", "server1").rc == 0
    nothing_left(cli, user)


def test_what_another_computer_stopped_is_not_restarted_by_a_daemon_that_was_off(
    cli: Cli, other: Cli, user: User
) -> None:
    session = quietly(cli, "server1", "--app", "server", "--restart", "always")
    assert cli("daemon", "stop").rc == 0
    assert up(other, "server1")["server"]["pid"] == session["server"]["pid"]
    assert other("kill", "server1").rc == 0
    stopped_by_the_other(cli, session, user)
    after = up(cli, "server1")
    assert after["server"]["pid"] != session["server"]["pid"]
    assert (after["server"]["adopted"], local_port(after)) == (False, local_port(session))
    no_traceback(cli)


def stopped_by_the_other(cli: Cli, session: Session, user: User) -> None:
    """Wait until `ps` says so; nothing was started in its place."""
    wait_until(lambda: now(cli)["state"] == "exited", what="the notice of the server's end", timeout=40)
    [problem] = now(cli)["problems"]
    assert problem["code"] == "server-stopped"
    assert "it was stopped by " in problem["text"]
    assert f"@{os.uname().nodename}" in problem["text"]
    assert f"(pid {session['server']['pid']})" in problem["text"]
    assert servers(user) == []
