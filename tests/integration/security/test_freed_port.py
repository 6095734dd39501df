"""The port of an open tab and another user of this computer: after `down`, and after the daemon's death."""

from __future__ import annotations

import contextlib
import errno
import http.client
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from jupyman.local import daemon_file
from tests.bed import Bed, Cli, User, impostor, private_home, wait_until
from tests.bed.aftermath import no_traceback
from tests.bed.by_hand import by_hand
from tests.bed.http import get
from tests.bed.notebooks import Kernel, answers, local_port, now, quietly, served, token, up
from tests.bed.old_stack import old_stack
from tests.bed.ports import free_ports

Session = dict[str, Any]
# As a server binds: with SO_REUSEADDR.
BIND = "import socket, sys; socket.create_server(('127.0.0.1', int(sys.argv[1])))"


@pytest.fixture
def neighbour(fresh_bed: Bed) -> User:
    return fresh_bed.user("other")


@pytest.fixture
def second(ssh_config: Path) -> Iterator[Cli]:
    """The same user at another computer."""
    with private_home() as home:
        yield Cli(home, ssh_config)


def kill_daemon(cli: Cli) -> None:
    """End it as a crash would."""
    found = daemon_file.read(cli.home / "run" / "daemon.json")
    assert found is not None
    os.kill(found.pid, signal.SIGKILL)
    wait_until(lambda: not cli.processes(), what="the daemon's end")


def python(user: User) -> str:
    """An interpreter that the account can run."""
    return str(user.conda / "bin" / "python")


@contextlib.contextmanager
def listening(user: User, port: int) -> Iterator[Callable[[], bytes]]:
    """Have a user listen on a port of this computer, as soon as it is free; yields what he has heard so far."""
    heard = user.home / "heard"
    words = [python(user), "-c", Path(impostor.__file__).read_text(), str(port), str(heard)]
    with user.start(*words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "READY\n"
            yield lambda: heard.read_bytes() if heard.exists() else b""
        finally:
            process.kill()


def ask(port: int, path: str, **headers: str) -> tuple[int, str, http.client.HTTPMessage]:
    """GET a path of a port of this computer."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request("GET", path, headers={name.replace("_", "-"): value for name, value in headers.items()})
        answer = connection.getresponse()
        return answer.status, answer.read().decode(), answer.headers
    finally:
        connection.close()


def page(port: int) -> tuple[int, str]:
    """What a browser's tab gets."""
    return ask(port, "/lab", Accept="text/html")[:2]


def cookie(session: Session) -> str:
    """Log in by the session's address as a browser does; return its cookie as the browser would send it."""
    _, _, headers = ask(local_port(session), f"/login?token={token(session)}")
    cookies = [value.partition(";")[0] for value in headers.get_all("Set-Cookie") or []]
    [found] = [one for one in cookies if not one.startswith("_xsrf")]
    return found


def enters(session: Session, secret: str, crumb: str) -> list[int]:
    """What somebody on the host gets with a token, and with a cookie: the server listens on a port there."""
    port, path = session["server"]["port"], "/api/kernels"
    by_token = ask(port, path, Authorization=f"token {secret}")[0]
    return [by_token, ask(port, path, Cookie=crumb, Host=f"127.0.0.1:{local_port(session)}")[0]]


def ended(channels: Any) -> None:
    """Assert that a websocket ends."""
    import websocket

    with contextlib.suppress(websocket.WebSocketConnectionClosedException, ConnectionError):
        while channels.recv():
            pass


def codes(session: Session) -> list[str]:
    return [one["code"] for one in session["problems"]]


# --- down -----------------------------------------------------------------------------------------------------------


def test_after_down_the_port_stays_ours_and_open_tabs_get_our_page(cli: Cli, neighbour: User) -> None:
    session = quietly(cli, "server1")
    port, kernel = local_port(session), Kernel(session)
    import websocket

    channels = websocket.create_connection(
        f"ws://127.0.0.1:{port}/api/kernels/{kernel.id}/channels", header=[f"Authorization: token {token(session)}"]
    )
    channels.settimeout(30)
    assert cli("down", "server1").rc == 0
    ended(channels)
    seen = now(cli)
    assert (seen["forwards"], seen["url"], seen["held"]) == ([], None, f"127.0.0.1:{port}")
    assert f"down, 127.0.0.1:{port} stays reserved" in cli("ps").stdout
    tried = neighbour.run(python(neighbour), "-c", BIND, str(port))
    assert f"Errno {errno.EADDRINUSE}" in tried.stderr
    status, body = page(port)
    assert status == 503
    assert "server1: the session is down" in body
    assert "jupyman up server1" in body
    # With the token, too: nothing gets through to the server.
    secret = f"token {token(session)}"
    assert ask(port, "/api/status", Authorization=secret)[0] == 503
    # What a page of JupyterLab asks for: no dialog for lists, a second look for a kernel.
    assert ask(port, "/api/sessions?1", Authorization=secret, Sec_Fetch_Mode="cors")[0] == 504
    again = up(cli, "server1")
    assert [again[key] for key in ("url", "server", "forwards")] != [None, None, []]
    assert (again["url"], again["server"], again["held"]) == (session["url"], session["server"], None)
    assert kernel.run(again, "print(6 * 7)") == "42\n"
    no_traceback(cli)


def test_a_session_that_is_down_keeps_its_port_over_the_daemons_end_until_it_is_released(
    cli: Cli, neighbour: User
) -> None:
    session = quietly(cli, "server1")
    port = local_port(session)
    assert cli("down", "server1").rc == 0
    for ended in (lambda: kill_daemon(cli), lambda: cli("daemon", "stop")):
        ended()
        wait_until(lambda: not answers(port), what="the end of its listeners")
        seen = now(cli)
        assert (seen["link"]["state"], seen["held"], seen["problems"]) == ("idle", f"127.0.0.1:{port}", [])
        assert "the session is down" in page(port)[1]
    released = cli("down", "server1", "--release", "--json")
    assert (released.rc, released.json["sessions"][0]["held"]) == (0, None)
    assert neighbour.run(python(neighbour), "-c", BIND, str(port)).returncode == 0
    assert cli("daemon", "restart").rc == 0
    assert now(cli)["held"] is None
    assert not answers(port), "released once, it stays free"
    assert up(cli, "server1")["url"] == session["url"], "and is the session's again with the next up"
    assert cli("down", "server1").rc == 0
    assert cli("kill", "server1").rc == 0
    assert not answers(port)


def test_an_up_that_fails_leaves_a_session_down_as_it_was(cli: Cli) -> None:
    session = quietly(cli, "server1")
    port = local_port(session)
    [other] = free_ports(1)
    assert cli("down", "server1").rc == 0
    os.kill(session["server"]["pid"], signal.SIGSTOP)  # it does not answer, and the identity cannot be proven
    try:
        failed = cli("up", "server1", "--local-port", str(other), "--no-browser")
        assert failed.rc != 0, failed
    finally:
        os.kill(session["server"]["pid"], signal.SIGCONT)
    assert not answers(other)
    assert now(cli)["held"] == f"127.0.0.1:{port}"
    assert "the session is down" in page(port)[1]
    moved = up(cli, "server1", "--local-port", str(other))
    assert (local_port(moved), served(moved, "/api/status")[0]) == (other, 200)
    assert not answers(port)


# --- after the daemon's death ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("finder", ["the next daemon", "up"])
def test_a_request_sent_to_the_port_of_a_dead_daemon_is_of_no_use_to_another_user(
    cli: Cli, neighbour: User, finder: str
) -> None:
    session = quietly(cli, "server1")
    heard_of(cli, neighbour, session, finder)


@pytest.mark.parametrize("app", ["lab", "notebook"])
def test_the_jupyter_of_years_ago_changes_its_token_too(cli: Cli, neighbour: User, app: str) -> None:
    session = quietly(cli, "server1", "--env", str(old_stack()), "--app", app)
    heard_of(cli, neighbour, session, "up")


def heard_of(cli: Cli, neighbour: User, session: Session, finder: str) -> None:
    port, secret, crumb = local_port(session), token(session), cookie(session)
    assert enters(session, secret, crumb) == [200, 200], "what they are worth before"
    kernel = Kernel(session)
    kernel.run(session, "x = 41")
    [directory] = (Path(session["server"]["root_dir"]) / ".local/state/jupyman").glob("*/server1")
    key = (directory / "cookie_secret").read_bytes()
    kill_daemon(cli)
    with listening(neighbour, port) as heard:
        ask(port, "/api/kernels", Authorization=f"token {secret}", Cookie=crumb)
        assert secret.encode() in heard()
        assert crumb.encode() in heard()
        if finder != "up":
            seen = now(cli)
            assert (codes(seen), seen["url"], seen["forwards"]) == (["local-port"], None, [])
            assert f"user {neighbour.name} (uid {neighbour.uid})" in seen["problems"][0]["text"]
            wait_until(lambda: enters(session, secret, crumb) == [403, 403], what="the change of the token")
        said = cli("up", "server1", "--json", "--no-browser")
        assert said.rc == 0, said
        assert f"local port {port} is held by a program of user {neighbour.name}" in said.stderr
        moved = said.json
        assert local_port(moved) != port
        assert codes(moved) == ["local-port"]
        assert moved["server"] == session["server"], "it was not started again"
        assert enters(session, secret, crumb) == [403, 403]
        assert ask(local_port(moved), "/api/kernels", Authorization=f"token {secret}")[0] == 403
        assert token(moved) != secret
        assert kernel.run(moved, "print(x + 1)") == "42\n"
        assert enters(moved, token(moved), cookie(moved)) == [200, 200]
        assert token(moved).encode() not in heard()
    # Nor does a server that is started again take the old cookie.
    assert (directory / "cookie_secret").read_bytes() != key
    assert sorted(path.name for path in directory.glob("*token*")) == ["token"]
    assert up(cli, "server1")["url"] == moved["url"], "once is enough"
    told = cli("daemon", "logs", "-n", "1000").stdout + (directory / "log").read_text() + said.stderr
    assert secret not in told
    assert token(moved) not in told
    no_traceback(cli)


def test_a_page_that_is_loaded_after_the_change_talks_with_the_new_token(cli: Cli, neighbour: User) -> None:
    session = quietly(cli, "server1")
    kill_daemon(cli)
    with listening(neighbour, local_port(session)):
        moved = up(cli, "server1")
    status, body, _ = ask(local_port(moved), f"/lab?token={token(moved)}", Accept="text/html")
    assert status == 200
    assert token(session) not in body
    assert f'"token": "{token(moved)}"' in body


def test_a_port_that_another_program_of_ours_has_changes_no_token(cli: Cli) -> None:
    session = quietly(cli, "server1")
    port = local_port(session)
    kill_daemon(cli)
    with subprocess.Popen(
        [sys.executable, "-c", Path(impostor.__file__).read_text(), str(port), os.devnull],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as mine:
        try:
            assert mine.stdout is not None
            assert mine.stdout.readline() == "READY\n"
            moved = up(cli, "server1")
        finally:
            mine.kill()
    assert local_port(moved) != port
    assert token(moved) == token(session)
    assert codes(moved) == []


def test_a_second_computer_reads_the_new_token(cli: Cli, second: Cli, neighbour: User) -> None:
    session = quietly(cli, "server1")
    there = up(second, "server1", "--local-port", str(free_ports(1)[0]))
    assert token(there) == token(session)
    go_on = neighbour.home / "go on"
    waits = f"import os, time\nwhile not os.path.exists({str(go_on)!r}): time.sleep(0.05)\nprint(6 * 7)"
    kernel = Kernel(there)
    with ThreadPoolExecutor(1) as pool:
        printed = pool.submit(kernel.run, there, waits)
        try:
            kill_daemon(cli)
            with listening(neighbour, local_port(session)):
                moved = up(cli, "server1")
            assert token(moved) != token(session)
            news = there["url"].replace(token(there), token(moved))
            wait_until(lambda: second("url").stdout == f"{news}\n", 30, "the news")
            assert served(there, "/api/status")[0] == 403
        finally:
            go_on.touch()
        assert printed.result(60) == "42\n", "what was open stays open"
    again = up(second, "server1")
    assert served(again, "/api/status")[0] == 200
    assert token(again) == token(moved)
    assert codes(again) == []


def test_a_server_that_cannot_change_its_token_is_named(cli: Cli, neighbour: User, user: User) -> None:
    with by_hand(user) as mine:
        [here] = free_ports(1)
        taken = up(cli, "server1", "--name", "mine", "--local-port", str(here))
        kill_daemon(cli)
        with listening(neighbour, here):
            said = cli("up", "mine", "--json", "--no-browser")
        assert said.rc == 0, said
        moved = said.json
        assert (token(moved), token(taken)) == (mine["token"], mine["token"])
        assert "cannot change it" in said.stderr
        for one in (moved, now(cli, "mine"), up(cli, "mine")):
            assert codes(one) == ["token-seen"]
            assert "jupyman kill mine" in one["problems"][0]["fix"]
        # Nor does the next daemon forget it.
        assert cli("daemon", "restart").rc == 0
        wait_until(lambda: codes(now(cli, "mine")) == ["token-seen"], what="the session's return")
        assert get(local_port(now(cli, "mine")), "/api/status", mine["token"])[0] == 200


def test_a_server_of_an_older_jupyman_is_named_too(cli: Cli, neighbour: User, user: User) -> None:
    session = quietly(cli, "server1")
    [record] = (user.home / ".local/state/jupyman").glob("*/server1/record")
    lines = record.read_text().splitlines()
    record.write_text("".join(f"{line}\n" for line in lines if not line.startswith(("rereads ", "python "))))
    kill_daemon(cli)
    with listening(neighbour, local_port(session)):
        moved = up(cli, "server1")
    assert codes(moved) == ["token-seen"]
    assert token(moved) == token(session)
    assert served(moved, "/api/status")[0] == 200
