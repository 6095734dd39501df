"""Connections of another account: to our forwards and cookies, and of ours to its ports on the host."""

from __future__ import annotations

import contextlib
import http.client
import os
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from tests.bed import Bed, Cli, User, wait_until
from tests.bed.notebooks import answers, local_port, token
from tests.bed.ports import free_ports
from tests.bed.terminal import Terminal
from tests.bed.tunnels import kill_daemon, local, reader, spoken
from tests.integration.security.other_user import hit, said_by

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or os.getuid() != 0, reason="the owner of a connection is known on Linux only; needs root"
)


@pytest.fixture
def cli(bed: Bed, jupyman_home: Path) -> Cli:
    return Cli(jupyman_home, bed.ssh_config)


@pytest.fixture
def neighbour(bed: Bed) -> User:
    return bed.user("other")


# --- forwards -----------------------------------------------------------------------------------------------------


def test_a_forward_is_for_this_user_only_unless_it_is_shared(cli: Cli, neighbour: User) -> None:
    with reader() as remote:
        [here] = free_ports(1)
        assert cli("tunnel", f"{here}:{remote}", "server1").rc == 0
        assert said_by(neighbour, here) == ""
        assert spoken(here) == b"HELLO"  # as root, who is this user
        [seen] = cli("ps", "--json").json["forwards"]
        assert (seen["share"], seen["open"], seen["bytes_out"]) == (False, 0, 5)
        [problem] = seen["problems"]
        assert (problem["code"], problem["severity"]) == ("stranger-refused", "warning")
        assert f"{neighbour.name} (uid {neighbour.uid}) tried to connect to local port {here}" in problem["text"]
        assert problem["text"] in cli("ps").stdout
        log = (cli.home / "state" / "daemon.log").read_text()
        assert said_by(neighbour, here) == ""
        assert (cli.home / "state" / "daemon.log").read_text().count(f"uid {neighbour.uid}") == 1, log
        assert cli("tunnel", f"{here}:{remote}", "--share").rc == 0
        assert said_by(neighbour, here) == "HELLO"
        assert "up, shared" in cli("ps").stdout
        kill_daemon(cli, here)
        assert cli("ps", "--json").json["forwards"][0]["share"] is True
        wait_until(lambda: said_by(neighbour, here) == "HELLO", what="the forward's return")
        assert cli("tunnel", f"{here}:{remote}", "--no-share").rc == 0
        assert said_by(neighbour, here) == ""


def test_data_of_another_user_that_closes_at_once_is_dropped(cli: Cli, neighbour: User) -> None:
    heard: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def listen() -> None:
            while True:
                connection, _ = server.accept()
                with connection, contextlib.suppress(OSError):
                    while chunk := connection.recv(9999):
                        heard.append(chunk)
                if heard[-1:] == [b"end"]:
                    return

        thread = threading.Thread(target=listen)
        thread.start()
        [here] = free_ports(1)
        assert cli("tunnel", f"{here}:{server.getsockname()[1]}", "server1").rc == 0
        hit(neighbour, here, "x")
        assert spoken(here, b"end") == b""
        thread.join()
    assert heard == [b"end"]


def test_a_sessions_cookie_is_useless_to_another_user_unless_the_forward_is_shared(
    cli: Cli, bed: Bed, user: User
) -> None:
    del user  # a home to start in
    neighbour = bed.user("other")
    made = cli("up", "server1", "--no-browser", "--json", timeout=120)
    assert made.rc == 0, made
    port, secret = local_port(made.json), token(made.json)
    # The user's browser shows its cookies to each port of 127.0.0.1, and so to a page of the neighbour's.
    ask = (
        "import http.client, sys\n"
        "c = http.client.HTTPConnection('127.0.0.1', int(sys.argv[1]))\n"
        "c.request('GET', '/lab?token=' + sys.argv[2])\n"
        "r = c.getresponse()\n"
        "print('; '.join(v.split(';')[0] for k, v in r.getheaders() if k.lower() == 'set-cookie'))\n"
    )
    words = [sys.executable, "-c", ask, str(port), secret]
    cookies = subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()
    assert "username-" in cookies
    xsrf = cookies.partition("_xsrf=")[2].partition(";")[0]
    attack = (
        "import http.client, sys\n"
        "c = http.client.HTTPConnection('127.0.0.1', int(sys.argv[1]))\n"
        "try:\n"
        "    c.request('POST', '/api/terminals', '{}', {'Cookie': sys.argv[2], 'X-XSRFToken': sys.argv[3]})\n"
        "    print(c.getresponse().status)\n"
        "except OSError: print('refused')\n"
    )
    words = ["python3", "-c", attack, str(port), cookies, xsrf]
    assert neighbour.run(*words).stdout == "refused\n"
    [seen] = cli("ps", "--json").json["sessions"]
    assert "stranger-refused" in [problem["code"] for problem in seen["problems"]]
    assert f"uid {neighbour.uid}" in cli("ps").stdout
    # The attack works where the user wants others on the port: the refusal was ours.
    for table, status in (("[defaults]\nshare = true\n", "200\n"), ("[hosts.server1]\nshare = false\n", "refused\n")):
        with (cli.home / "config.toml").open("a") as file:
            file.write(table)
        assert cli("up", "server1", "--no-browser").rc == 0
        assert neighbour.run(*words).stdout == status
        assert cli("ps", "--json").json["sessions"][0]["forwards"][0]["share"] is (status == "200\n")


# --- a port of another person's on the host -----------------------------------------------------------------------


def test_a_forward_to_another_persons_port_is_asked_about(cli: Cli, neighbour: User) -> None:
    [here] = free_ports(1)
    with neighbour.hold_port() as held:
        whose = f"port {held.port} on server1 is held by {neighbour.name} (uid {neighbour.uid})"
        refused = cli("tunnel", f"{here}:{held.port}", "server1", "--json")
        assert refused.rc == 26, refused
        error = refused.json["error"]
        assert (error["code"], whose in error["message"]) == ("not-ours", True)
        assert "-y" in error["hint"]
        assert cli("ps", "--json").json["forwards"] == []
        assert not answers(here)
        with Terminal(cli, "tunnel", f"{here}:localhost:{held.port}", "server1") as terminal:
            terminal.expect(f"{whose}; ")
            terminal.expect("Forward it all the same? [y/N]")
            terminal.type("\n")
            assert terminal.end().rc == 26
        # One that is refused keeps none of the others.
        with reader() as remote:
            [other] = free_ports(1)
            assert cli("tunnel", f"{here}:{held.port}", f"{other}:{remote}", "server1").rc == 26
            assert [local(one) for one in cli("ps", "--json").json["forwards"]] == [other]
        with Terminal(cli, "tunnel", f"{here}:{held.port}", "server1") as terminal:
            terminal.expect("Forward it all the same?")
            terminal.type("y\n")
            assert terminal.end().rc == 0
        # Who has said yes is not asked again: not for the same words, nor when the daemon starts.
        assert cli("tunnel", f"{here}:{held.port}", "server1").rc == 0
        kill_daemon(cli, here, other)
        assert len(cli("ps", "--json").json["forwards"]) == 2
        wait_until(lambda: answers(here), what="the forward's return")
        said = cli("tunnel", f"{free_ports(1)[0]}:{held.port}", "-y", "server1")
        assert said.rc == 0, said
        assert whose in said.stderr


@pytest.mark.parametrize("where", ["::1", "127.0.0.2"])
def test_all_loopback_addresses_are_looked_at(cli: Cli, neighbour: User, where: str) -> None:
    [here] = free_ports(1)
    held = neighbour.start(
        "python3",
        "-c",
        "import socket, sys; s = socket.create_server((sys.argv[1], 0), family=int(sys.argv[2])); "
        "print(s.getsockname()[1], flush=True); input()",
        where,
        str(int(socket.AF_INET6 if ":" in where else socket.AF_INET)),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with held:
        assert held.stdout is not None
        port = int(held.stdout.readline())
        written = f"[{where}]" if ":" in where else where
        assert cli("tunnel", f"{here}:{written}:{port}", "server1").rc == 26
        held.kill()


def test_no_question_for_ports_of_services_and_free_ports(cli: Cli) -> None:
    first, second, free = free_ports(3)
    # uid 1: a service's account, as a database has one.
    words = ["setpriv", "--reuid=1", "--regid=1", "--clear-groups", "python3", "-c"]
    code = "import socket; s = socket.create_server(('127.0.0.1', 0)); print(s.getsockname()[1], flush=True); input()"
    how: dict[str, Any] = {"env": {"PATH": "/usr/bin:/bin"}, "text": True, "cwd": "/"}
    with subprocess.Popen([*words, code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, **how) as service:
        assert service.stdout is not None
        port = int(service.stdout.readline())
        ran = cli("tunnel", f"{first}:{port}", f"{second}:{free}", "server1")
        service.kill()
    assert ran.rc == 0, ran
    assert "held by" not in ran.stderr
    assert "nothing listens on" in ran.stderr


def test_an_account_without_a_shell_can_forward_and_owners_are_unknown(bed: Bed, cli: Cli) -> None:
    with bed.start_sshd("ForceCommand /bin/false") as sshd, reader() as remote:
        cli.ssh_config = sshd.ssh_config
        [here] = free_ports(1)
        ran = cli("tunnel", f"{here}:{remote}", "server1")
        assert ran.rc == 0, ran
        assert f"the owner of the program on port {remote} on server1 cannot be seen" in ran.stderr
        assert spoken(here) == b"HELLO"


# --- cookies ------------------------------------------------------------------------------------------------------


def test_the_cookie_of_one_session_is_of_no_use_for_another(cli: Cli, user: User) -> None:
    del user  # a home to start in
    ports, jars = [], []
    for name in ("one", "two"):
        made = cli("up", "server1", "--name", name, "--no-browser", "--json", timeout=120)
        assert made.rc == 0, made
        ports.append(local_port(made.json))
        _, headers = asked(ports[-1], f"/lab?token={token(made.json)}")
        jars.append([value.split(";")[0] for value in headers if value.startswith("username-")])
    [[first], [second]] = jars
    assert first.partition("=")[0] != second.partition("=")[0]
    assert asked(ports[0], "/api/kernels", f"{first}; {second}")[0] == 200
    assert asked(ports[0], "/api/kernels", second)[0] == 403
    # Not even under the name that the other one has: each signs with a secret of its own.
    assert asked(ports[1], "/api/kernels", f"{second.partition('=')[0]}={first.partition('=')[2]}")[0] == 403


def asked(port: int, path: str, cookie: str = "") -> tuple[int, list[str]]:
    """GET; return the status and the cookies that are set."""
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=20)) as connection:
        connection.request("GET", path, headers={"Cookie": cookie} if cookie else {})
        response = connection.getresponse()
        response.read()
        return response.status, response.headers.get_all("Set-Cookie") or []
