"""`jupyman up`: the address works, `--json` is complete, and a second `up` returns the same session."""

from __future__ import annotations

import os
import re
import stat
from importlib import metadata
from typing import Any

import psutil
import pytest

from tests.bed import Bed, Cli, User
from tests.bed.aftermath import servers, tells
from tests.bed.notebooks import answers, local_port, now, quietly, served, token, up

TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")
STEP = re.compile(r"[✓!-] \S.*? +\d+\.\d s")

Session = dict[str, Any]


@pytest.fixture
def cli(shared: tuple[Cli, Session]) -> Cli:
    return shared[0]


@pytest.fixture
def user(bed: Bed) -> User:
    return bed.user()


def test_the_session_object_has_every_promised_key(session: Session, user: User) -> None:
    server, [forward] = session["server"], session["forwards"]
    here, there = local_port(session), server["port"]
    assert TIME.fullmatch(server["started"])
    assert TIME.fullmatch(session["link"]["since"])
    assert session == {
        "name": "server1",
        "host": "server1",
        "state": "running",
        "link": {
            "state": "up",
            "since": session["link"]["since"],
            "reconnects": 0,
            "last_error": None,
            "next_attempt": None,
            "silent_since": None,
        },
        "server": {
            "pid": server["pid"],
            "port": there,
            "version": metadata.version("jupyter_server"),
            "app": "lab",
            "env": str(user.conda / "envs" / "lab"),
            "root_dir": str(user.home),
            "started": server["started"],
            "gpus": None,
            "adopted": False,
            "node": os.uname().nodename,
            "kernel_env": None,
        },
        "url": f"http://127.0.0.1:{here}/lab?token={token(session)}",
        "forwards": [
            {
                "local": f"127.0.0.1:{here}",
                "remote": f"127.0.0.1:{there}",
                "state": "up",
                "open": forward["open"],
                "bytes_in": forward["bytes_in"],
                "bytes_out": forward["bytes_out"],
                "share": False,
            }
        ],
        "job": None,
        "problems": [],
        "gpu_use": [],
        "held": None,
    }
    assert [type(forward[name]) for name in ("open", "bytes_in", "bytes_out")] == [int, int, int]
    assert forward["bytes_in"] > 0, "the server was asked through the forward before the address was told"


def test_the_server_is_the_users_and_so_is_its_token(session: Session, user: User) -> None:
    process = psutil.Process(session["server"]["pid"])
    assert process.uids().real == user.uid
    listening = [one.laddr for one in process.net_connections("inet") if one.status == psutil.CONN_LISTEN]
    assert [(one.ip, one.port) for one in listening] == [("127.0.0.1", session["server"]["port"])]
    directory = user.home / ".local/state/jupyman" / os.uname().nodename / "server1"
    kept = directory / "token"
    assert kept.read_text() == token(session)
    assert [stat.S_IMODE(path.stat().st_mode) for path in (directory, kept)] == [0o700, 0o600]


def test_the_forward_leads_to_the_server_with_the_token_only(session: Session) -> None:
    status, body = served(session, "/api/status")
    assert (status, set(body)) == (200, {"connections", "kernels", "last_activity", "started"})
    assert served(session, "/api/status", secret="")[0] == 403
    assert served(session, "/api/status", secret="0" * 48)[0] == 403
    status, page = served(session, "/lab")
    assert status == 200
    assert b"JupyterLab" in page


def test_again_it_is_the_same_server_at_the_same_address(cli: Cli, session: Session, user: User) -> None:
    again = cli("up", "server1", "--no-browser")
    assert again.rc == 0, again
    assert again.stdout == f"{session['url']}\n", "nothing but the address"
    steps = again.stderr.splitlines()
    assert len(steps) >= 4, again
    assert [line for line in steps if not STEP.fullmatch(line)] == []
    told = cli("up", "server1", "--json")
    assert told.rc == 0, told
    assert [line for line in told.stderr.splitlines() if not STEP.fullmatch(line)] == []
    assert told.json["server"] == session["server"]
    assert told.json["url"] == session["url"]
    assert [one.pid for one in servers(user)] == [session["server"]["pid"]]
    assert cli.browsed == []


def test_the_only_known_host_needs_no_name(cli: Cli, session: Session) -> None:
    assert up(cli)["server"] == session["server"]


def test_a_second_name_is_a_second_server_and_names_it_afterwards(cli: Cli, session: Session, user: User) -> None:
    second = quietly(cli, "server1", "--name", "second")
    assert (second["name"], second["host"]) == ("second", "server1")
    assert {one.pid for one in servers(user)} == {session["server"]["pid"], second["server"]["pid"]}
    assert second["server"]["port"] != session["server"]["port"]
    assert local_port(second) != local_port(session)
    assert served(second, "/api/status", token(session))[0] == 403, "each has a token of its own"
    assert up(cli, "second")["server"] == second["server"], "a session's name stands for its host, too"
    assert up(cli, "--name", "second")["server"] == second["server"]
    assert up(cli, "server1")["server"] == session["server"]
    assert [one["name"] for one in cli("ps", "--json").json["sessions"]] == ["server1", "second"]
    assert cli("kill", "second").rc == 0
    assert not answers(local_port(second))
    assert now(cli)["server"] == session["server"]


@pytest.mark.parametrize(
    ("option", "asked", "runs", "daemon"),
    [
        ("--env", "tf", "envs/lab", "of before"),
        ("--dir", "work", "home", "of before"),
        ("--app", "server", "lab", "of before"),
        ("--gpu", "none", "none set", "of before"),
        ("--env", "tf", "envs/lab", "fresh"),
        ("--gpu", "none", "none set", "fresh"),
    ],
)
def test_other_settings_than_those_of_the_running_session_are_refused(
    cli: Cli, session: Session, option: str, asked: str, runs: str, daemon: str
) -> None:
    before = now(cli)
    if daemon == "fresh":
        assert cli("daemon", "stop").rc == 0
    said = cli("up", "server1", option, asked)
    assert (said.rc, said.stdout) == (2, ""), said
    error, hint = said.stderr.splitlines()[-2:]
    assert error.startswith("error: session server1 is already running with other settings: ")
    assert f"{option} {asked} (it runs " in error
    assert runs in error.partition("(it runs ")[2]
    assert "jupyman kill server1" in hint
    tells(cli("up", "server1", option, asked, "--json"), 2, "usage")
    after = now(cli)
    for same in ("state", "server", "url"):
        assert after[same] == before[same]
    assert served(session, "/api/status")[0] == 200


@pytest.mark.parametrize("same", [("--env", "lab"), ("--dir", "~"), ("--dir", "."), ("--app", "lab")], ids=" ".join)
def test_the_settings_of_the_running_session_are_accepted(cli: Cli, session: Session, same: tuple[str, str]) -> None:
    assert up(cli, "server1", *same)["server"] == session["server"]
