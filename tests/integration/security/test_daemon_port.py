"""The daemon's port and another account of this computer: no answer to its requests, no secret to its listener."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from jupyman import __version__, api, errors, paths
from jupyman.client import Client
from jupyman.local import daemon_file, peer
from tests import fakes
from tests.bed import Bed, Cli, User
from tests.bed.terminal import Terminal
from tests.integration.security.other_user import hit, said_by, standing_in

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or os.getuid() != 0, reason="the owner of a connection is known on Linux only; needs root"
)

PASSWORD = "correct horse"


@pytest.fixture
def cli(bed: Bed, jupyman_home: Path) -> Cli:
    return Cli(jupyman_home, bed.ssh_config)


@pytest.fixture
def neighbour(bed: Bed) -> User:
    return bed.user("other")


def test_the_daemon_accepts_no_request_of_another_user(tmp_path: Path, neighbour: User) -> None:
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
def test_an_answer_is_not_sent_to_another_users_listener_on_the_daemons_port(
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


def test_a_password_typed_after_the_daemons_death_is_not_sent(bed: Bed, user: User, cli: Cli) -> None:
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


def test_the_browser_is_not_sent_to_another_users_listener_on_the_daemons_port(tmp_path: Path, neighbour: User) -> None:
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
