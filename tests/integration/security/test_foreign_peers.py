"""Another account of this computer and what is ours on it: forwards, the daemon's port, ports of the host."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from jupyman import __version__, api, errors, paths
from jupyman.client import Client
from jupyman.local import daemon_file, peer
from tests import fakes
from tests.bed import Bed, Cli, User, wait_until
from tests.integration.notebooks import answers, local_port, quiet_ports, token
from tests.integration.ssh.test_tunnel import kill_daemon, local, reader, spoken
from tests.integration.terminal import Terminal

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or os.getuid() != 0, reason="whose a connection is: Linux tells; only root can be two users"
)

PASSWORD = "correct horse"
# Run as the neighbour: say something to a port, read what comes; "end" is an end or a reset.
SPEAK = """
import socket, sys
c = socket.socket()
c.settimeout(20)
c.connect(("127.0.0.1", int(sys.argv[1])))
try:
    c.sendall(sys.argv[2].encode())
    c.shutdown(socket.SHUT_WR)
    print(c.recv(9999).decode())
except OSError:
    print()
"""
# Likewise: connect, send and be gone, so that nobody can tell any more whose it was.
HIT = """
import socket, sys
for _ in range(200):
    c = socket.socket()
    c.connect(("127.0.0.1", int(sys.argv[1])))
    try:
        c.send(sys.argv[2].encode())
    except OSError:
        pass
    c.close()
"""
# Likewise: have this very port as soon as it is free, write all that is heard to a file, and answer each with a text.
STAND_IN = """
import socket, sys, time
while True:
    try:
        s = socket.create_server(("127.0.0.1", int(sys.argv[1])))
        break
    except OSError:
        time.sleep(0.01)
print("ready", flush=True)
while True:
    c, _ = s.accept()
    c.settimeout(10)
    try:
        heard = c.recv(9999)
        with open(sys.argv[2], "ab") as file:
            file.write(heard)
        c.sendall(sys.argv[3].encode())
        c.shutdown(socket.SHUT_WR)
        with open(sys.argv[2], "ab") as file:
            while heard:
                heard = c.recv(9999)
                file.write(heard)
    except OSError:
        pass
    c.close()
"""


@pytest.fixture
def cli(bed: Bed, jupyman_home: Path) -> Cli:
    return Cli(jupyman_home, bed.ssh_config)


@pytest.fixture
def neighbour(bed: Bed) -> User:
    return bed.user("other")


def said_by(user: User, port: int, text: str = "hello") -> str:
    return user.run("python3", "-c", SPEAK, str(port), text).stdout.strip()


def hit(user: User, port: int, text: str) -> None:
    done = user.run("python3", "-c", HIT, str(port), text)
    assert done.returncode == 0, done.stderr


@contextlib.contextmanager
def standing_in(user: User, port: int, reply: str, then: Callable[[], None]) -> Iterator[Path]:
    """Let the neighbour have a port as soon as `then` has freed it; yield the file of what he hears."""
    heard = user.put("heard", "")
    words = ("python3", "-c", STAND_IN, str(port), str(heard), reply)
    with user.start(*words, stdout=subprocess.PIPE) as process:
        try:
            then()
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            yield heard
        finally:
            process.kill()


# --- forwards -----------------------------------------------------------------------------------------------------


def test_a_forward_is_for_this_user_only_unless_it_is_shared(cli: Cli, neighbour: User) -> None:
    with reader() as remote:
        [here] = quiet_ports(1)
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


def test_who_connects_sends_and_is_gone_is_not_heard(cli: Cli, neighbour: User) -> None:
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
        [here] = quiet_ports(1)
        assert cli("tunnel", f"{here}:{server.getsockname()[1]}", "server1").rc == 0
        hit(neighbour, here, "x")
        assert spoken(here, b"end") == b""
        thread.join()
    assert heard == [b"end"]


def test_a_sessions_cookie_is_of_no_use_to_another_user_and_share_lets_him_in(cli: Cli, bed: Bed, user: User) -> None:
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


# --- the daemon's port --------------------------------------------------------------------------------------------


def test_the_daemon_hears_nobody_else(tmp_path: Path, neighbour: User) -> None:
    with fakes.serving(tmp_path) as daemon:
        daemon.backend.codes["seen"] = fakes.SECRET_URL
        bearer = f"Authorization: Bearer {fakes.TOKEN}\r\n"
        for path in ("/go?code=seen", f"/v1/prove?nonce={'0' * 32}", "/v1/hello"):
            head = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{daemon.port}\r\n{bearer}\r\n"
            assert said_by(neighbour, daemon.port, head) == ""
        hit(neighbour, daemon.port, f"GET /go?code=seen HTTP/1.1\r\nHost: 127.0.0.1:{daemon.port}\r\n\r\n")
        run = json.dumps({"request": {"op": "url"}})
        head = f"POST /v1/run HTTP/1.1\r\nHost: 127.0.0.1:{daemon.port}\r\n{bearer}Content-Length: {len(run)}\r\n\r\n"
        hit(neighbour, daemon.port, head + run)
        assert daemon.run("ps").status == 0
        assert [type(one) for one in daemon.backend.requests] == [api.PsRequest]
        assert "seen" in daemon.backend.codes


def reply(status: str, body: str) -> str:
    return f"HTTP/1.1 {status}\r\nX-Jupyman-Version: {__version__}\r\nContent-Length: {len(body)}\r\n\r\n{body}"


HELLO = json.dumps({"version": __version__, "pid": os.getpid(), "busy": 0})
AS_OLD = reply("401 Unauthorized", "{}") + reply("200 OK", HELLO)


@pytest.mark.parametrize("answer", [reply("200 OK", HELLO), AS_OLD], ids=["as ours", "as one of 0.1.0"])
@pytest.mark.parametrize("known", [True, False], ids=["Linux", "nobody knows whose"])
def test_who_takes_the_daemons_port_at_a_question_hears_no_answer(
    tmp_path: Path, neighbour: User, monkeypatch: pytest.MonkeyPatch, known: bool, answer: str
) -> None:
    if not known:
        monkeypatch.setattr(peer, "stranger", lambda *_: None)
        monkeypatch.setattr("jupyman.client.foreign_listener", lambda *_: False)
    with contextlib.ExitStack() as stack:
        serving = contextlib.ExitStack()
        daemon = serving.enter_context(fakes.serving(tmp_path))
        stack.callback(serving.close)

        def work(request: api.Up, operation: api.Operation) -> Any:
            del request
            return operation.ask(api.Prompt(id="", kind="secret", text="Password:"))

        daemon.backend.scripts[api.Up] = work
        heard: list[Path] = []

        def type_it(event: api.AnyEvent) -> str:
            assert isinstance(event, api.Prompt)
            heard.append(stack.enter_context(standing_in(neighbour, daemon.port, answer, serving.close)))
            return PASSWORD

        client = Client(paths.find({"JUPYMAN_HOME": str(tmp_path)}), api.ClientContext(interactive=True))
        with pytest.raises(errors.DaemonUnavailable):
            client.run(api.Up(), type_it, start=False)
        text = heard[0].read_text()
    assert PASSWORD not in text
    assert fakes.TOKEN not in text
    assert text == "" if known else text.startswith("GET /v1/prove?nonce=")


def test_a_password_typed_after_the_daemons_death_reaches_nobody(bed: Bed, user: User, cli: Cli) -> None:
    neighbour = bed.user("other")
    user.set_password(PASSWORD)
    options = ("UsePAM yes", "KbdInteractiveAuthentication yes", "PubkeyAuthentication no")
    with bed.start_sshd(*options) as sshd:
        cli.ssh_config = sshd.ssh_config
        with Terminal(cli, "up", "server1", "--no-browser") as terminal:
            terminal.expect("Password: ")
            found = daemon_file.read(cli.home / "run" / "daemon.json")
            assert found is not None
            # The pid is another process of ours by now, so that the file looks as good as before.
            (cli.home / "run" / "daemon.json").write_text(
                (cli.home / "run" / "daemon.json").read_text().replace(str(found.pid), str(os.getpid()), 1)
            )

            def die() -> None:
                os.kill(found.pid, signal.SIGKILL)

            body = json.dumps({"version": __version__, "pid": found.pid, "busy": 0})
            with standing_in(neighbour, found.port, reply("200 OK", body), die) as heard:
                terminal.type(f"{PASSWORD}\n")
                ran = terminal.end()
                assert heard.read_bytes() == b""
    assert ran.rc == 40, ran
    (cli.home / "run" / "daemon.json").unlink(missing_ok=True)


def test_the_browser_is_not_sent_to_who_has_the_daemons_port_by_now(tmp_path: Path, neighbour: User) -> None:
    with contextlib.ExitStack() as stack:
        serving = contextlib.ExitStack()
        daemon = serving.enter_context(fakes.serving(tmp_path))
        stack.callback(serving.close)

        def work(request: api.OpenCode, operation: api.Operation) -> Any:
            operation.emit(api.Step(key="x", text="x", state="run"))
            operation.emit(api.OpenBrowser(url="/go?code=once"))
            return {"name": request.session}

        daemon.backend.scripts[api.OpenCode] = work
        seen: list[api.AnyEvent] = []

        def see(event: api.AnyEvent) -> None:
            seen.append(event)
            if isinstance(event, api.Step):
                stack.enter_context(standing_in(neighbour, daemon.port, "", serving.close))

        client = Client(paths.find({"JUPYMAN_HOME": str(tmp_path)}), api.ClientContext())
        with pytest.raises(errors.DaemonUnavailable):
            client.run(api.OpenCode(), see, start=False)
    assert [type(one) for one in seen] == [api.Step]


# --- a port of another person's on the host -----------------------------------------------------------------------


def test_a_forward_to_another_persons_port_is_asked_about(cli: Cli, neighbour: User) -> None:
    [here] = quiet_ports(1)
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
            [other] = quiet_ports(1)
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
        said = cli("tunnel", f"{quiet_ports(1)[0]}:{held.port}", "-y", "server1")
        assert said.rc == 0, said
        assert whose in said.stderr


@pytest.mark.parametrize("where", ["::1", "127.0.0.2"])
def test_all_loopback_addresses_are_looked_at(cli: Cli, neighbour: User, where: str) -> None:
    [here] = quiet_ports(1)
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


def test_services_and_ports_of_nobody_are_not_asked_about(cli: Cli) -> None:
    first, second, free = quiet_ports(3)
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


def test_an_account_without_a_shell_forwards_and_hears_that_nobody_can_be_seen(bed: Bed, cli: Cli) -> None:
    with bed.start_sshd("ForceCommand /bin/false") as sshd, reader() as remote:
        cli.ssh_config = sshd.ssh_config
        [here] = quiet_ports(1)
        ran = cli("tunnel", f"{here}:{remote}", "server1")
        assert ran.rc == 0, ran
        assert f"whose the program on port {remote} on server1 is cannot be seen" in ran.stderr
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
