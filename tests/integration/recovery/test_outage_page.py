"""During an outage the port stays bound: a page gets our page, an API call gets 503, anything else waits."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from tests.bed import Bed, Cli, Sshd, User, private_home, wait_until
from tests.bed.http import get_page


@pytest.fixture
def sshd(fresh_bed: Bed) -> Iterator[Sshd]:
    with fresh_bed.start_sshd() as made:
        yield made


@pytest.fixture
def up(sshd: Sshd) -> Iterator[tuple[Cli, int]]:
    """A command line with a session, and its local port."""
    with private_home() as home:
        cli = Cli(home, sshd.ssh_config)
        made = cli("up", "server1", "--no-browser", "--json")
        assert made.rc == 0, made
        yield cli, int(made.json["forwards"][0]["local"].rsplit(":", 1)[1])


def link_state(cli: Cli) -> str:
    state: str = cli("ps", "--json").json["sessions"][0]["link"]["state"]
    return state


def test_the_port_answers_while_the_host_cannot(up: tuple[Cli, int], sshd: Sshd, user: User) -> None:
    del user
    cli, port = up
    sshd.stop()
    wait_until(lambda: link_state(cli) == "reconnecting", what="the loss of the link")
    status, fields, body = get_page(port, "/lab", "text/html")
    assert (status, fields["Retry-After"]) == (503, "2")
    assert "server1" in body
    assert "Server last seen alive" in body
    assert 'http-equiv="refresh"' in body
    status, _, body = get_page(port, "/api/kernels", "application/json")
    assert status == 503
    assert "message" in body
    with socket.create_connection(("127.0.0.1", port), 5) as waits:
        # No HTTP: held until the link is back, and then it is the server that answers.
        waits.settimeout(30)
        waits.sendall(b"GET /api HTTP/1.1\r\nHost: 127.0.0.1\r\n")
        sshd.start()
        wait_until(lambda: link_state(cli) == "up", what="the return of the link")
        waits.sendall(b"Connection: close\r\n\r\n")
        assert waits.recv(1024).startswith(b"HTTP/1.1 200")
    assert get_page(port, "/api", "*/*")[0] == 200


def test_the_browser_shows_that_the_server_has_ended(up: tuple[Cli, int], user: User) -> None:
    cli, port = up
    [session] = cli("ps", "--json").json["sessions"]
    user.run("kill", "-9", str(session["server"]["pid"]))

    def ended() -> bool:
        return bool(cli("ps", "--json").json["sessions"][0]["state"] == "exited")

    wait_until(ended, what="the notice of the server's end", timeout=30)
    status, _, body = get_page(port, "/lab", "text/html")
    assert status == 503
    assert "the server has ended" in body
    assert "jupyman up server1" in body
