"""After a server's end `ps` shows the reason, `up` starts its successor at the same address, `kill` leaves nothing."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.bed import Cli, User, wait_until
from tests.bed.aftermath import leftovers, nothing_left
from tests.bed.notebooks import Kernel, answers, local_port, now, quietly, served, token, up

Session = dict[str, Any]


def ended(cli: Cli) -> Session:
    """Wait until `ps` says that the server is gone."""

    wait_until(lambda: now(cli)["state"] == "exited", what="the notice of the server's end", timeout=40)
    return now(cli)


def kill_9(session: Session, user: User) -> None:
    """End the server as the OOM killer does, and wait for it."""
    pid = session["server"]["pid"]
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: pid not in {one.pid for one in user.processes()}, what="the server's end")


@pytest.mark.parametrize("watched", [True, False], ids=["while the daemon watches", "while none runs"])
def test_a_killed_server_is_reported_and_has_a_successor(cli: Cli, user: User, watched: bool) -> None:
    session = quietly(cli, "server1", "--app", "server")
    if not watched:
        assert cli("daemon", "stop").rc == 0
    kill_9(session, user)
    if watched:
        # As an open tab does: the host's refusal is noticed at once.
        assert answers(local_port(session))
    seen = ended(cli)
    [problem] = seen["problems"]
    assert problem["code"] in {"server-killed", "server-exited"}
    assert f"(pid {session['server']['pid']})" in problem["text"]
    assert "jupyman up server1" in problem["fix"]
    assert seen["server"] == session["server"], "what is known of the dead one"
    assert seen["url"] is None
    listed = cli("ps").stdout
    assert f"server1: {problem['text']} (" in listed
    assert listed.splitlines()[1].split()[:3] == ["server1", "server1", "exited"]
    after = up(cli, "server1")
    assert (after["state"], after["server"]["adopted"], after["problems"]) == ("running", False, [])
    assert after["server"]["pid"] != session["server"]["pid"]
    assert after["url"] == session["url"], "same local port, same token"
    assert served(after, "/api/status")[0] == 200
    assert now(cli)["state"] == "running"
    kill_9(after, user)
    killed = cli("kill", "server1")
    assert (killed.rc, killed.stdout) == (0, "stopped session server1: its server had already ended\n"), killed
    nothing_left(cli, user)


def test_kill_of_a_dead_server_by_a_fresh_daemon_takes_what_its_kernels_left(cli: Cli, user: User) -> None:
    session = quietly(cli, "server1", "--app", "server")
    kernel = Kernel(session)
    kernel.run(session, "import subprocess; subprocess.Popen(['sleep', '600'])")
    assert cli("daemon", "stop").rc == 0
    kill_9(session, user)
    assert leftovers([user]), "a token, a runtime folder, perhaps the kernel"
    killed = cli("kill", "server1", "--json")
    assert killed.rc == 0, killed
    assert [killed.json["killed"][0][key] for key in ("session", "pid", "port")] == ["server1", None, None]
    nothing_left(cli, user)


def test_kill_ends_the_server_its_kernels_and_what_they_started(cli: Cli, user: User) -> None:
    session = quietly(cli, "server1", "--app", "server")
    kernel = Kernel(session)
    code = """
import os, subprocess
print(os.getpid())
print(subprocess.Popen(["sleep", "600"]).pid)
print(subprocess.Popen(["sleep", "600"], start_new_session=True).pid)
"""
    started = [int(line) for line in kernel.run(session, code).split()]
    assert {one.pid for one in user.processes()} >= {session["server"]["pid"], *started}
    directory = user.home / ".local/state/jupyman" / os.uname().nodename / "server1"
    runtime = runtime_folder(directory)
    assert list(runtime.glob("kernel-*.json"))
    killed = cli("kill", "server1", "--json")
    assert killed.rc == 0, killed
    assert killed.json == {
        "killed": [
            {
                "target": "server1",
                "session": "server1",
                "host": "server1",
                "pid": session["server"]["pid"],
                "port": session["server"]["port"],
            }
        ]
    }
    assert not {one.pid for one in user.processes()} & {session["server"]["pid"], *started}
    assert not runtime.exists()
    assert {path.name for path in directory.iterdir()} == {"record", "log"}
    assert token(session) not in "".join(path.read_text() for path in directory.iterdir())
    assert not answers(local_port(session))
    nothing_left(cli, user)
    gone = cli("kill", "server1")
    assert gone.rc == 2, gone
    assert "no session is called 'server1'" in gone.stderr


def runtime_folder(directory: Path) -> Path:
    """Return the folder of the kernels' sockets that a session's record names."""
    lines = dict(line.split(" ", 1) for line in (directory / "record").read_text().splitlines())
    return Path(lines["runtime"])


@pytest.mark.parametrize("verb", ["kill", "up"])
def test_whoever_has_the_dead_servers_pid_now_is_left_alone_with_its_children(cli: Cli, user: User, verb: str) -> None:
    session = quietly(cli, "server1", "--app", "server")
    assert cli("daemon", "stop").rc == 0
    kill_9(session, user)
    record = user.home / ".local/state/jupyman" / os.uname().nodename / "server1" / "record"
    script = "sleep 600 & echo $!; wait"
    with user.start("sh", "-c", script, stdout=subprocess.PIPE) as innocent:
        assert innocent.stdout is not None
        child = psutil.Process(int(innocent.stdout.readline()))
        text = record.read_text()
        record.write_text(text.replace(f"\npid {session['server']['pid']}\n", f"\npid {innocent.pid}\n"))
        assert record.read_text() != text
        done = cli(verb, "server1", *(("--no-browser",) if verb == "up" else ()))
        assert done.rc == 0, done
        assert str(innocent.pid) not in done.stdout, done
        assert innocent.poll() is None
        assert child.status() == psutil.STATUS_SLEEPING
        innocent.kill()
