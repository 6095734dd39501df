"""Another version or build of jupyman here, or 0.1.0 on another computer: servers run on, and no record is damaged.

The wheel of 0.1.0 is in tests/data/releases.
"""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from jupyman import __version__
from tests.bed import Bed, Cli, Ran, User, private_home, release, wait_until
from tests.bed.aftermath import no_traceback, says, servers, stuck
from tests.bed.command import REPOSITORY
from tests.bed.notebooks import Kernel, local_port, now
from tests.bed.ports import free_port

RECORDED = REPOSITORY / "tests" / "data" / "state"
OLD = "0.0.1"
FUTURE = "999.0.0"
Environ = dict[str, str]
Session = dict[str, Any]


def copied(folder: Path, version: str = __version__) -> Environ:
    """Copy the package, perhaps under another version; returns the environment that finds it."""
    shutil.copytree(REPOSITORY / "jupyman", folder / "jupyman", ignore=shutil.ignore_patterns("__pycache__"))
    start = folder / "jupyman" / "__init__.py"
    start.write_text(start.read_text().replace(f'"{__version__}"', f'"{version}"'))
    return {"PYTHONPATH": str(folder)}


def made(cli: Cli, *words: str, env: Environ | None = None) -> Session:
    """Make a session; its local port is one that no other test takes while a daemon is replaced."""
    ran = cli("up", "server1", "--no-browser", "--json", "--local-port", str(free_port()), *words, env=env)
    assert ran.rc == 0, ran
    session: Session = ran.json
    return session


def daemon(cli: Cli) -> tuple[str, int]:
    """Return the version and the pid of the only daemon; asking replaces none."""
    status = cli("daemon", "status", "--json").json
    assert [one.pid for one in cli.processes() if "daemon" in one.cmdline()] == [status["pid"]]
    return status["version"], status["pid"]


# --- copies of this version that are changed a little -------------------------------------------------------------


def test_a_new_version_replaces_the_old_daemon(cli: Cli, tmp_path: Path) -> None:
    old = copied(tmp_path, OLD)
    session = made(cli, env=old)
    assert daemon(cli)[0] == OLD
    assert cli("ps").rc == 0
    assert daemon(cli)[0] == __version__
    comes_back(cli, session)


def test_commands_that_replace_it_at_the_same_moment_share_one_daemon(cli: Cli, tmp_path: Path) -> None:
    old = copied(tmp_path, OLD)
    assert cli("daemon", "start", env=old).rc == 0
    with ThreadPoolExecutor(4) as pool:
        ran = [one.result() for one in [pool.submit(cli, "ps") for _ in range(4)]]
    assert [one for one in ran if one.rc != 0] == []
    assert daemon(cli)[0] == __version__


def test_a_daemon_of_0_1_0_which_can_prove_nothing_gives_way_too(cli: Cli, tmp_path: Path) -> None:
    old = copied(tmp_path, OLD)
    for name, line in (
        ("daemon/server.py", '            Route("/v1/prove", self._prove, methods=["GET"]),\n'),
        ("daemon/server.py", ', "/v1/prove"'),
    ):
        file = tmp_path / "jupyman" / name
        assert line in file.read_text()
        file.write_text(file.read_text().replace(line, ""))
    assert cli("daemon", "start", env=old).rc == 0
    version, pid = daemon(cli)
    assert version == OLD
    assert cli("ps", "--json").rc == 0
    assert daemon(cli)[0] == __version__
    assert daemon(cli)[1] != pid


def test_an_old_version_does_not_end_the_newer_daemon(cli: Cli, tmp_path: Path) -> None:
    assert cli("daemon", "start", env=copied(tmp_path, FUTURE)).rc == 0
    refused = cli("ps", "--json")
    assert refused.rc == 41, refused
    assert refused.json["error"]["code"] == "version-mismatch"
    assert FUTURE in refused.json["error"]["message"]
    assert cli("daemon", "stop").rc == 0


def test_the_same_build_elsewhere_shares_the_daemon_and_another_one_replaces_it(cli: Cli, tmp_path: Path) -> None:
    other = copied(tmp_path)
    assert cli("daemon", "start", env=other).rc == 0
    _, first = daemon(cli)
    assert cli("ps").rc == 0
    assert daemon(cli)[1] == first, "two environments with one release take turns, and one daemon serves both"
    with (tmp_path / "jupyman" / "cli" / "main.py").open("a") as file:
        file.write("# another build\n")
    assert cli("ps", env=other).rc == 0
    _, second = daemon(cli)
    assert second != first
    assert cli("ps", env=other).rc == 0
    assert daemon(cli)[1] == second


def test_who_follows_a_log_keeps_no_old_daemon_alive(cli: Cli, tmp_path: Path) -> None:
    old = copied(tmp_path, OLD)
    made(cli, env=old)
    with cli.start("logs", "-f", "server1", env=old, stdin=subprocess.DEVNULL) as follower:
        assert follower.stdout is not None
        assert follower.stdout.readline()
        assert cli("ps", "--json").json["sessions"][0]["state"] == "running"
        assert daemon(cli)[0] == __version__
        _, said = follower.communicate(timeout=30)
        says(Ran(follower.returncode, "", said), 40)


def test_an_operation_under_way_is_not_interrupted(cli: Cli, user: User, tmp_path: Path) -> None:
    old = copied(tmp_path, OLD)
    busy = stuck(user, "awk", "exec sleep 1000")
    with cli.start("up", "server1", "--no-browser", env=old, stdin=subprocess.DEVNULL) as working:
        wait_until(busy.exists, what="the operation")
        version, pid = daemon(cli)
        refused = cli("ps")
        says(refused, 41)
        assert "and commands wait for it" in refused.stderr
        assert daemon(cli) == (version, pid) == (OLD, pid)
        working.send_signal(signal.SIGINT)
        assert working.wait(60) == 130
    wait_until(lambda: cli("ps").rc == 0, 60, "the end of what undoes it")
    assert daemon(cli)[0] == __version__


@pytest.mark.parametrize("recorded", ["0.1.0-early", "0.1.0"])
def test_recorded_files_of_0_1_0_lead_to_the_running_server(cli: Cli, user: User, recorded: str) -> None:
    session = made(cli)
    assert cli("daemon", "stop").rc == 0
    # The record has the fields of 0.1.0 and no others; the state file is that of 0.1.0, for this server.
    live = dict(line.split(" ", 1) for line in records(user)["server1"].splitlines())
    fields = [line.split(" ", 1) for line in (RECORDED / "0.1.0-server1.record").read_text().splitlines()]
    text = "".join(f"{key} {live.get(key, value)}\n" for key, value in fields)
    user.put(f".local/state/jupyman/{live['node']}/server1/record", text, 0o600)
    state = json.loads((RECORDED / f"{recorded}.json").read_text())
    spec = state["sessions"]["server1"]
    spec.update(pid=int(live["pid"]), node=live["node"], local_port=local_port(session))
    state["tunnels"] = []
    shutil.rmtree(cli.home / "state")
    (cli.home / "state").mkdir(mode=0o700)
    (cli.home / "state" / "state.json").write_text(json.dumps(state))

    comes_back(cli, session)
    assert {one["name"] for one in cli("ps", "--json").json["sessions"]} == {"server1", "train", "old"}
    assert records(user)["server1"] == text
    assert cli("kill", "-y", "server1").rc == 0
    assert servers(user) == []
    no_traceback(cli)


# --- the real 0.1.0 -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> Environ:
    """The environment that finds 0.1.0."""
    return {"PYTHONPATH": str(release.install("0.1.0", tmp_path_factory.mktemp("release")))}


@pytest.fixture
def elsewhere(bed: Bed, old: Environ) -> Iterator[Cli]:
    """0.1.0 on another computer of the same person."""
    with private_home() as home:
        yield Cli(home, bed.ssh_config, old)


def records(user: User) -> dict[str, str]:
    """Return the launch records on the host by session."""
    folder = user.home / ".local" / "state" / "jupyman"
    return {file.parent.name: file.read_text() for file in folder.glob("*/*/record")}


def same(session: Session) -> Session:
    """Return what an upgrade must not change of a session."""
    return {key: session[key] for key in ("name", "host", "state", "server", "url")} | {
        "forwards": [(one["local"], one["remote"], one["state"]) for one in session["forwards"]]
    }


def comes_back(cli: Cli, session: Session, env: Environ | None = None) -> None:
    """Assert that `ps` shows the session as it was; on a busy machine that takes longer than one `ps` waits."""

    def back() -> bool:
        shown = {one["name"]: one for one in cli("ps", "--json", env=env).json["sessions"]}
        return same(shown[session["name"]]) == same(session)

    wait_until(back, what=f"the return of {session['name']}", timeout=60)


def test_sessions_forwards_and_records_of_0_1_0_survive(cli: Cli, user: User, old: Environ) -> None:
    port = free_port()
    for words in ((), ("--name", "tcp", "--port", str(port)), ("--name", "off")):
        made(cli, *words, env=old)
    assert cli("down", "off", env=old).rc == 0
    with user.hold_port() as held:
        assert cli("tunnel", f"{free_port()}:{held.port}", "--host", "server1", env=old).rc == 0
        before = cli("ps", "--json", env=old).json
        assert daemon(cli)[0] == "0.1.0"
        kernel = Kernel(before["sessions"][0])
        kernel.run(before["sessions"][0], "x = 41")
        written = records(user)

        assert cli("ps").rc == 0  # the first command of this version
        assert daemon(cli)[0] == __version__
        for session in before["sessions"][:2]:
            comes_back(cli, session)
        after = cli("ps", "--json").json
        assert [one["name"] for one in after["sessions"]] == ["server1", "tcp", "off"]
        forwards = [[(one["local"], one["remote"], one["state"]) for one in ps["forwards"]] for ps in (before, after)]
        assert forwards[0] == forwards[1]
        assert records(user) == written
        assert kernel.run(after["sessions"][0], "print(x + 1)") == "42\n"
        assert {one.pid for one in servers(user)} == {one["server"]["pid"] for one in before["sessions"]}
        # This version adopts and ends them.
        up = cli("up", "off", "--no-browser", "--json")
        assert up.rc == 0, up
        assert up.json["server"] == before["sessions"][2]["server"]
        assert records(user) == written
        assert cli("kill", "-y", "server1", "tcp", "off").rc == 0
        assert servers(user) == []
    no_traceback(cli)


def test_0_1_0_elsewhere_does_no_damage(cli: Cli, user: User, elsewhere: Cli) -> None:
    session = made(cli)
    written = records(user)
    adopted = made(elsewhere)
    assert adopted["server"]["pid"] == session["server"]["pid"]
    [listed] = elsewhere("ps", "--json").json["sessions"]
    assert listed["state"] == "running"
    assert elsewhere("ps", "--all", "server1").rc == 0
    assert elsewhere("down", "server1").rc == 0
    assert records(user) == written
    assert same(now(cli)) == same(session)
    # It ends the server: here that is known, and the next `up` starts another.
    assert elsewhere("kill", "-y", "server1").rc == 0
    assert servers(user) == []
    wait_until(lambda: now(cli)["state"] == "exited", what="the news of its end", timeout=60)
    again = made(cli)
    assert again["server"]["pid"] != session["server"]["pid"]
    assert cli("kill", "-y", "server1").rc == 0
    for one in (cli, elsewhere):
        no_traceback(one)


def test_what_0_1_0_started_elsewhere_is_adopted_and_ended_here(cli: Cli, user: User, elsewhere: Cli) -> None:
    session = made(elsewhere)
    adopted = made(cli)
    assert adopted["server"]["pid"] == session["server"]["pid"]
    assert same(now(elsewhere)) == same(session)
    assert cli("kill", "-y", "server1").rc == 0
    assert servers(user) == []
    wait_until(lambda: now(elsewhere)["state"] == "exited", what="the news of its end", timeout=60)
    assert "stopped_by " in records(user)["server1"]
    assert elsewhere("kill", "-y", "server1").rc == 0
    for one in (cli, elsewhere):
        no_traceback(one)


def test_a_client_of_0_1_0_that_meets_this_daemon_and_the_way_back(cli: Cli, user: User, old: Environ) -> None:
    session = made(cli, env=old)
    comes_back(cli, session)
    for words in (("ps",), ("url", "server1"), ("logs", "server1"), ("up", "server1", "--no-browser")):
        says(cli(*words, env=old), 41)
    assert daemon(cli)[0] == __version__
    # As docs/upgrading.md says.
    assert cli("daemon", "stop", env=old).rc == 0
    state = cli.home / "state" / "state.json"
    shutil.copy(state.with_name("state.json.v1"), state)
    comes_back(cli, session, old)
    assert daemon(cli)[0] == "0.1.0"
    assert cli("kill", "-y", "server1", env=old).rc == 0
    assert servers(user) == []


def test_0_1_0_does_not_touch_the_state_of_this_version(cli: Cli, old: Environ) -> None:
    session = made(cli)
    state = cli.home / "state" / "state.json"
    before = state.read_bytes()
    assert cli("daemon", "stop").rc == 0
    refused = cli("ps", env=old)
    says(refused, 41)
    assert "newer" in refused.stderr
    assert state.read_bytes() == before
    comes_back(cli, session)
