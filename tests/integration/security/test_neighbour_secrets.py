"""The token is in no place that another account of the host can read, and in none of the user's logs."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from jupyman.demo.cell import execute
from tests.bed import Bed, Cli, private_home

# Run as the other user: every readable file below the folders that has changed since a time, and every /proc/PID.
SEARCH = r"""
import json, os, sys
needle, start = sys.argv[1].encode(), float(sys.argv[2])
seen, hits = 0, []

def look(path):
    global seen
    try:
        seen += 1
        if path[:6] != "/proc/" and os.stat(path).st_ctime < start:
            return  # unchanged since before the token was made
        with open(path, "rb") as file:
            if needle in file.read(20_000_000):
                hits.append(path)
    except (OSError, MemoryError):
        pass

for top in sys.argv[3:]:
    for folder, _, names in os.walk(top):
        for name in names:
            path = os.path.join(folder, name)
            if os.path.isfile(path) and not os.path.islink(path):
                look(path)
for pid in os.listdir("/proc"):
    if pid.isdigit() and int(pid) != os.getpid():
        for name in ("cmdline", "environ", "maps", "mountinfo"):
            look("/proc/%s/%s" % (pid, name))
for table in ("tcp", "tcp6", "unix", "udp"):
    look("/proc/net/" + table)
print(json.dumps([seen, hits]))
"""
# Run as the other user: connect to every UNIX socket of the user, and list the ports on which the user listens.
KNOCK = r"""
import json, os, socket, sys
opened = []
for line in open("/proc/net/unix").read().splitlines()[1:]:
    path = line.split()[7] if len(line.split()) > 7 else ""
    if path.startswith("/tmp/jm-"):
        try:
            socket.socket(socket.AF_UNIX).connect(path)
            opened.append(path)
        except OSError:
            pass
for table in ("/proc/net/tcp", "/proc/net/tcp6"):
    for line in open(table).read().splitlines()[1:]:
        cells = line.split()
        if cells[3] == "0A" and cells[7] == sys.argv[1]:
            opened.append(cells[1])
print(json.dumps(opened))
"""


@pytest.fixture(scope="module")
def begun() -> float:
    """Return a time before the token was made, as files have it."""
    return time.time() - 1


@pytest.fixture(scope="module")
def whole(begun: float, bed: Bed) -> Iterator[tuple[Cli, dict[str, Any], str]]:
    """A command line, its session and its token, after all that `up`, `kernel add` and a cell do."""
    assert begun
    try:
        with private_home() as home:
            cli = Cli(home, bed.ssh_config)
            made = cli("up", "server1", "--no-browser", "--json", "--env", "pytorch")
            assert made.rc == 0, made
            added = cli("kernel", "add", "pytorch", "server1", "--name", "second")
            assert added.rc == 0, added
            url = made.json["url"]
            assert execute(url, "print(6 * 7)", kernel="second") == "42\n"
            for words in (("ps",), ("ps", "-a"), ("check", "server1"), ("logs", "server1"), ("host", "ls")):
                assert cli(*words).rc == 0
            assert cli("open", "server1").rc == 0
            yield cli, made.json, url.partition("token=")[2]
    finally:
        bed.reset()


def as_neighbour(bed: Bed, code: str, *arguments: str) -> Any:
    done = bed.user("other").run("python3", "-c", code, *arguments, timeout=120)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_the_neighbour_finds_the_token_nowhere(whole: tuple[Cli, dict[str, Any], str], bed: Bed, begun: float) -> None:
    cli, _, token = whole
    decoy = bed.user("bash").put("decoy", f"a careless user wrote {token} here")
    places = ["/tmp", "/var/tmp", "/dev/shm", "/run", str(cli.home), str(bed.folder)]
    seen, hits = as_neighbour(bed, SEARCH, token, str(begun), *places)
    assert str(decoy) in hits, "the search itself works"
    assert {Path(hit).name for hit in hits} == {"decoy"}
    assert seen > 1000
    decoy.unlink()


def test_the_neighbour_connects_to_nothing(whole: tuple[Cli, dict[str, Any], str], bed: Bed) -> None:
    _, session, _ = whole
    socket_path = session["forwards"][0]["remote"].removeprefix("unix:")
    assert socket_path in Path("/proc/net/unix").read_text()
    # No port of a kernel either, by which another user could read cells and outputs.
    assert as_neighbour(bed, KNOCK, str(bed.user("bash").uid)) == []


def test_the_logs_hold_no_token(whole: tuple[Cli, dict[str, Any], str], bed: Bed) -> None:
    cli, _, token = whole
    user = bed.user("bash")
    logs = [*cli.home.rglob("*.log"), *(user.home / ".local" / "state" / "jupyman").rglob("log*")]
    assert len(logs) >= 2
    for log in logs:
        text = log.read_text(errors="replace")
        assert text
        assert token not in text
    state = [path for path in cli.home.rglob("*") if path.is_file() and token in path.read_text(errors="replace")]
    assert state == [], "the token stays on the host, and in the daemon's memory"
    assert token not in cli("logs", "server1").stdout
    assert token not in cli("ps").stdout, "others may see the screen"
    assert token in cli("ps", "--json").stdout
    assert all(token not in address for address in cli.browsed)


def test_only_private_files_and_folders_were_made(whole: tuple[Cli, dict[str, Any], str], bed: Bed) -> None:
    cli, _, _ = whole
    ours = [*(bed.user("bash").home / ".local" / "state" / "jupyman").rglob("*"), *cli.home.rglob("*"), cli.home]
    assert len(ours) > 8
    for path in ours:
        if not path.is_symlink():
            assert path.stat().st_mode & 0o077 == 0, path


def test_nothing_gets_into_the_shell_history(whole: tuple[Cli, dict[str, Any], str], bed: Bed) -> None:
    _, _, token = whole
    user = bed.user("bash")
    found = subprocess.run(
        ["grep", "-rlaF", "--", token, str(user.home)], capture_output=True, text=True, check=False
    ).stdout.splitlines()
    assert all("/.local/state/jupyman/" in path for path in found), found
    assert any(path.endswith("/token") for path in found)


def test_a_second_user_of_the_laptop_cannot_enter(whole: tuple[Cli, dict[str, Any], str], bed: Bed) -> None:
    # The account of the host's other user is on this computer as well.
    cli, session, _ = whole
    stranger = bed.user("other")
    listed = stranger.run("python3", "-c", "import os, sys; print(os.listdir(sys.argv[1]))", str(cli.home))
    assert listed.returncode != 0
    assert "PermissionError" in listed.stderr
    daemon = cli("daemon", "status", "--json").json["port"]
    local = session["forwards"][0]["local"].rsplit(":", 1)[1]
    ask = "import http.client, sys; c = http.client.HTTPConnection('127.0.0.1', int(sys.argv[1])); "
    ask += "c.request('GET', sys.argv[2])\ntry: print(c.getresponse().status)\nexcept OSError: print('no answer')"
    # Neither port answers; through `ssh -L` another user would reach the server.
    for port, path in ((str(daemon), "/v1/hello"), (local, "/api/kernels")):
        assert stranger.run("python3", "-c", ask, port, path).stdout == "no answer\n"
