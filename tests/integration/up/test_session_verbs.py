"""`ps`, `down`, `url`, `open`, `logs` of a running session."""

from __future__ import annotations

import http.client
import re
import signal
import stat
import subprocess
from typing import Any
from urllib.parse import urlsplit

import psutil
import pytest

from tests.bed import Bed, Cli, User, wait_until
from tests.bed.aftermath import no_traceback, says, servers, tells
from tests.bed.http import get
from tests.bed.notebooks import local_port, now, served, token, up

Session = dict[str, Any]


@pytest.fixture
def cli(shared: tuple[Cli, Session]) -> Cli:
    return shared[0]


@pytest.fixture
def user(bed: Bed) -> User:
    return bed.user()


# --- ps -----------------------------------------------------------------------------------------------------------


def test_ps_is_a_table_without_the_token(cli: Cli, session: Session) -> None:
    ran = cli("ps")
    assert (ran.rc, ran.stderr) == (0, ""), ran
    head, row = ran.stdout.splitlines()
    assert head.split() == ["NAME", "HOST", "STATE", "LINK", "URL", "ENV", "GPU", "PORT", "UPTIME"]
    page, port = session["url"].partition("?")[0], str(session["server"]["port"])
    assert row.split()[:8] == ["server1", "server1", "running", "up", page, "lab", "-", port]
    assert re.fullmatch(r"(\d+[hms] ?)+", " ".join(row.split()[8:]))
    assert token(session) not in ran.stdout


def test_ps_of_hosts_shows_those_alone(cli: Cli, session: Session) -> None:
    assert cli("ps", "server1", "--json").json["sessions"][0]["server"] == session["server"]
    # An alias of the SSH config is a host, too, even where nothing of ours is.
    assert cli("ps", "server-dash", "--json").json == {"sessions": [], "forwards": [], "servers": []}
    unknown = cli("ps", "nosuch")
    says(unknown, 2)
    assert "no session is on a host called 'nosuch'" in unknown.stderr


# --- url, open ------------------------------------------------------------------------------------------------------


def test_url_prints_the_address_and_nothing_else(cli: Cli, session: Session) -> None:
    for words in (("url",), ("url", "server1")):
        ran = cli(*words)
        assert (ran.rc, ran.stdout, ran.stderr) == (0, f"{session['url']}\n", ""), ran
    assert cli("url", "--json").json == {"name": "server1", "url": session["url"]}
    assert cli("url", "nosuch", "--json").json["error"]["code"] == "unknown-session"


def redeem(address: str) -> tuple[int, str | None]:
    """GET an address as the browser does: status, and where it leads."""
    parts = urlsplit(address)
    connection = http.client.HTTPConnection(parts.netloc, timeout=10)
    try:
        connection.request("GET", f"{parts.path}?{parts.query}")
        answer = connection.getresponse()
        assert answer.getheader("Referrer-Policy") == "no-referrer"
        return answer.status, answer.getheader("Location")
    finally:
        connection.close()


@pytest.mark.parametrize("words", [("open",), ("open", "server1"), ("up", "server1")], ids=" ".join)
def test_the_browser_gets_an_address_that_works_once(cli: Cli, session: Session, words: tuple[str, ...]) -> None:
    before = len(cli.browsed)
    ran = cli(*words)
    assert ran.rc == 0, ran
    assert ran.stdout == (f"{session['url']}\n" if words[0] == "up" else "")
    [address] = wait_until(lambda: cli.browsed[before:], what="the browser")
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+/go\?code=[\w-]{32}", address)
    assert token(session) not in address
    assert redeem(address) == (302, session["url"])
    assert redeem(address) == (404, None)
    assert get(local_port(session), urlsplit(session["url"]).path, token(session))[0] == 200
    assert redeem(address.partition("?")[0] + "?code=guessed") == (404, None)


def test_without_a_browser_the_address_is_a_command_away(cli: Cli) -> None:
    before = cli.browsed
    ran = cli("open", env={"BROWSER": ""})
    assert (ran.rc, ran.stdout) == (0, ""), ran
    assert ran.stderr.splitlines() == ["no browser could be opened here", "jupyman url server1 prints the URL"]
    assert cli.browsed == before


# --- logs -----------------------------------------------------------------------------------------------------------


def mark(session: Session, word: str) -> None:
    """Let the server write a line with this word, and with the token in the request that it tells of."""
    path = f"/api/contents/{word}?token={token(session)}"
    assert get(local_port(session), path)[0] == 404


def test_logs_are_the_servers_last_lines_without_tokens(cli: Cli, session: Session, user: User) -> None:
    mark(session, "first-mark")
    mark(session, "second-mark")
    ran = cli("logs", "-n", "1")
    assert (ran.rc, ran.stderr) == (0, ""), ran
    assert len(ran.stdout.splitlines()) == 1
    assert "second-mark" in ran.stdout
    assert cli("logs", "server1", "-n", "0").stdout == ""
    everything = cli("logs", "-n", "100000")
    assert "first-mark" in everything.stdout
    assert "Jupyter Server" in everything.stdout
    daemon = cli("daemon", "logs", "-n", "100000").stdout
    assert daemon
    for text in (everything.stdout, daemon):
        assert token(session) not in text
    [log] = (user.home / ".local/state/jupyman").glob("*/server1/log")
    # What goes wrong with a request Jupyter would tell with all of its address.
    assert "second-mark?token=***" in log.read_text()
    assert token(session) not in log.read_text()
    assert [stat.S_IMODE(path.stat().st_mode) for path in (log, log.parent)] == [0o600, 0o700]
    assert cli("logs", "nosuch").rc == 2


def test_logs_are_followed_until_ctrl_c(cli: Cli, session: Session, user: User) -> None:
    mark(session, "before-mark")
    known = {one.pid for one in user.processes()}
    with cli.start("logs", "-f", "-n", "1", stdin=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        assert "before-mark" in process.stdout.readline()
        for word in ("one-mark", "two-mark"):
            mark(session, word)
            line = process.stdout.readline()
            while word not in line:  # the server's own words around it
                assert line
                line = process.stdout.readline()
            assert token(session) not in line
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
        assert (process.returncode, err) == (130, ""), out
    wait_until(lambda: {one.pid for one in user.processes()} <= known, what="the end of what read the log there")


# --- down -----------------------------------------------------------------------------------------------------------


def test_down_closes_the_forward_and_leaves_the_server(cli: Cli, session: Session, user: User) -> None:
    port = local_port(session)
    ran = cli("down", "server1")
    assert (ran.rc, ran.stderr) == (0, ""), ran
    held = f"127.0.0.1:{port} stays reserved (--release frees it)"
    assert ran.stdout == f"server1: forwards closed, the server on server1 keeps running; {held}\n"
    assert served(session, "/api/status")[0] == 503
    seen = now(cli)
    assert (seen["link"]["state"], seen["forwards"], seen["url"]) == ("idle", [], None)
    assert (seen["state"], seen["server"]) == ("running", session["server"])
    assert psutil.Process(session["server"]["pid"]).is_running()
    for words in (("url",), ("open",)):
        says(cli(*words), 13)
    assert cli("down", "server1", "--json").json["sessions"][0]["forwards"] == [], "again it is no error"
    tells(cli("down", "nosuch", "--json"), 2, "unknown-session")
    # Nobody forwards it after a restart of the daemon either, nor connects.
    assert cli("daemon", "restart").rc == 0
    seen = now(cli)
    assert (seen["link"]["state"], seen["forwards"], seen["url"]) == ("idle", [], None)
    assert served(session, "/api/status")[0] == 503
    after = up(cli, "server1")
    assert [after[same] for same in ("server", "url")] == [session[same] for same in ("server", "url")]
    assert served(after, "/api/status")[0] == 200
    assert [one.pid for one in servers(user)] == [session["server"]["pid"]]
    no_traceback(cli)


def test_the_token_is_in_no_process_of_this_computer_and_in_no_file_of_ours(cli: Cli, session: Session) -> None:
    secret = token(session)
    for process in psutil.process_iter():
        try:
            words = [*process.cmdline(), *process.environ().values()]
        except (psutil.Error, OSError):  # it has ended, or is another user's
            continue
        assert secret not in "\0".join(words), process
    files = [path for path in cli.home.rglob("*") if path.is_file()]
    assert cli.home / "state" / "state.json" in files
    assert [path for path in files if secret.encode() in path.read_bytes()] == []
