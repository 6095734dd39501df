"""The daemon's API over a real socket: authentication, events, questions, and clients that leave.

Over 400 lines because every test is of the same API, by the same few requests.
"""

from __future__ import annotations

import http.client
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

import msgspec
import pytest

import jupyman.client
import jupyman.daemon.request_stream
import jupyman.daemon.server
import jupyman.daemon.web_server
from jupyman import API_VERSION, __version__, api, errors, paths
from jupyman.api.results import SessionUrl
from jupyman.client import Client
from jupyman.local import build, hello
from tests import fakes
from tests.bed import wait_until

WAIT = 10.0  # seconds that an event may take on a busy machine


@pytest.fixture
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[fakes.Served]:
    with fakes.serving(tmp_path_factory.mktemp("home")) as served:
        yield served


def ask(
    daemon: fakes.Served, method: str, path: str, body: bytes | None = None, **headers: str
) -> tuple[int, dict[str, str], bytes]:
    """Send one request; the token and the right Host are there unless `headers` says otherwise ("" leaves one out)."""
    given = {"Host": f"127.0.0.1:{daemon.port}", "Authorization": f"Bearer {fakes.TOKEN}", **headers}
    with closing(http.client.HTTPConnection("127.0.0.1", daemon.port, timeout=WAIT)) as connection:
        connection.putrequest(method, path, skip_host=True)
        for name, value in given.items():
            if value:
                connection.putheader(name, value)
        if body is not None:
            connection.putheader("Content-Length", str(len(body)))
        connection.endheaders(body)
        response = connection.getresponse()
        return response.status, {name.lower(): value for name, value in response.getheaders()}, response.read()


def call(op: str, **fields: Any) -> bytes:
    return json.dumps({"request": {"op": op, **fields}}).encode()


@contextmanager
def stream(daemon: fakes.Served, request: bytes, **client: Any) -> Iterator[http.client.HTTPResponse]:
    """Open /v1/run and leave the reading to the test; leaving the block hangs up."""
    body = json.dumps({**json.loads(request), "client": client}).encode()
    with closing(http.client.HTTPConnection("127.0.0.1", daemon.port, timeout=WAIT)) as connection:
        connection.request("POST", "/v1/run", body, {"Authorization": f"Bearer {fakes.TOKEN}"})
        with connection.getresponse() as response:
            yield response


def client(daemon: fakes.Served, *, interactive: bool = False) -> Client:
    return Client(paths.find({"JUPYMAN_HOME": str(daemon.home)}), api.ClientContext(interactive=interactive))


# --- who is let in ------------------------------------------------------------------------------------------------


def test_hello(daemon: fakes.Served) -> None:
    status, headers, body = ask(daemon, "GET", "/v1/hello")
    assert status == 200
    assert json.loads(body)["version"] == __version__
    assert headers["x-jupyman-version"] == __version__


@pytest.mark.parametrize(
    "header", ["", "Bearer", "Bearer x", f"Basic {fakes.TOKEN}", f"Bearer {fakes.TOKEN}x", "Bearer \u00e9", fakes.TOKEN]
)
@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/v1/hello"), ("POST", "/v1/run"), ("POST", "/v1/answer"), ("GET", "/x")]
)
def test_without_the_token(daemon: fakes.Served, method: str, path: str, header: str) -> None:
    status, headers, _ = ask(daemon, method, path, call("ps"), Authorization=header)
    assert status == 401
    assert headers["x-jupyman-version"] == __version__
    assert daemon.backend.requests == []


@pytest.mark.parametrize(
    "host", ["", "evil.example.org", "127.0.0.1", "127.0.0.1:1", "[::1]:{port}", "evil.example.org:{port}"]
)
def test_foreign_host(daemon: fakes.Served, host: str) -> None:
    assert ask(daemon, "POST", "/v1/run", call("ps"), Host=host.format(port=daemon.port))[0] in {400, 403}
    assert ask(daemon, "GET", "/go?code=x", Host=host.format(port=daemon.port))[0] in {400, 403}
    assert daemon.backend.requests == []


@pytest.mark.parametrize(
    "origin", ["http://evil.example.org", "null", "https://127.0.0.1:{port}", "http://127.0.0.1:1"]
)
def test_foreign_origin(daemon: fakes.Served, origin: str) -> None:
    assert ask(daemon, "POST", "/v1/run", call("ps"), Origin=origin.format(port=daemon.port))[0] == 403
    assert daemon.backend.requests == []


def test_own_names(daemon: fakes.Served) -> None:
    for name in (f"127.0.0.1:{daemon.port}", f"localhost:{daemon.port}"):
        assert ask(daemon, "POST", "/v1/run", call("ps"), Host=name, Origin=f"http://{name}")[0] == 200


@pytest.mark.parametrize(
    ("body", "status"),
    [(b"", 400), (b"{", 400), (b"[]", 400), (call("format-disk"), 400), (call("up", port="x"), 400), (b"\xff", 400)],
)
def test_what_is_no_request(daemon: fakes.Served, body: bytes, status: int) -> None:
    assert ask(daemon, "POST", "/v1/run", body)[0] == status
    assert daemon.backend.requests == []


@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/v1/run"), ("POST", "/go"), ("HEAD", "/go?code=x"), ("GET", "/nowhere")]
)
def test_what_is_no_route(daemon: fakes.Served, method: str, path: str) -> None:
    assert ask(daemon, method, path)[0] in {404, 405}


def test_oversized_body(daemon: fakes.Served) -> None:
    size = jupyman.daemon.server.BODY_LIMIT
    assert ask(daemon, "POST", "/v1/run", call("ps", hosts=["h" * size]))[0] == 413
    with socket.create_connection(("127.0.0.1", daemon.port), timeout=WAIT) as raw:
        head = f"POST /v1/run HTTP/1.1\r\nHost: 127.0.0.1:{daemon.port}\r\nAuthorization: Bearer {fakes.TOKEN}\r\n"
        raw.sendall(head.encode() + b"Transfer-Encoding: chunked\r\n\r\n")
        chunk = b"10000\r\n" + b"x" * 0x10000 + b"\r\n"
        for _ in range(size // 0x10000 + 1):  # says no length, goes on and on
            raw.sendall(chunk)
        assert raw.recv(4096).startswith(b"HTTP/1.1 413")
    assert daemon.backend.requests == []


def test_a_body_that_does_not_come(daemon: fakes.Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jupyman.daemon.server, "BODY_TIMEOUT", 0.1)
    with socket.create_connection(("127.0.0.1", daemon.port), timeout=WAIT) as raw:
        head = f"POST /v1/run HTTP/1.1\r\nHost: 127.0.0.1:{daemon.port}\r\nAuthorization: Bearer {fakes.TOKEN}\r\n"
        raw.sendall(head.encode() + b"Content-Length: 100\r\n\r\nx")
        assert raw.recv(4096).startswith(b"HTTP/1.1 408")


@pytest.mark.parametrize("sent", [b"", b"GET /v1/hello HT", b"GET /v1/hello HTTP/1.1\r\nHost: x\r\nX: "])
def test_a_head_that_does_not_come(daemon: fakes.Served, monkeypatch: pytest.MonkeyPatch, sent: bytes) -> None:
    monkeypatch.setattr(jupyman.daemon.web_server, "HEAD_TIMEOUT", 0.1)
    with socket.create_connection(("127.0.0.1", daemon.port), timeout=WAIT) as raw:
        raw.sendall(sent)
        assert raw.recv(4096) == b""


# --- the one-time address -----------------------------------------------------------------------------------------


def test_one_time_code(daemon: fakes.Served) -> None:
    daemon.backend.codes["once"] = fakes.SECRET_URL
    assert ask(daemon, "HEAD", "/go?code=once", Authorization="")[0] == 405  # does not use it up
    status, headers, _ = ask(daemon, "GET", "/go?code=once", Authorization="")
    assert (status, headers["location"]) == (302, fakes.SECRET_URL)
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["cache-control"] == "no-store"
    status, headers, body = ask(daemon, "GET", "/go?code=once", Authorization="")
    assert status == 404
    assert "location" not in headers
    assert b"jupyman open" in body


@pytest.mark.parametrize("query", ["", "?code=", "?code=%00", "?x=once"])
def test_no_code(daemon: fakes.Served, query: str) -> None:
    daemon.backend.codes["once"] = fakes.SECRET_URL
    assert ask(daemon, "GET", f"/go{query}", Authorization="")[0] == 404


# --- events, questions, leaving -----------------------------------------------------------------------------------


def test_events_come_while_the_work_goes_on(daemon: fakes.Served) -> None:
    go_on = threading.Event()

    def work(request: api.Up, operation: api.Operation) -> Any:
        del request
        operation.emit(api.Step(key="a", text="first", state="run"))
        assert go_on.wait(WAIT)
        return {"x": 1}

    daemon.backend.scripts[api.Up] = work
    with stream(daemon, call("up")) as response:
        assert json.loads(response.readline())["text"] == "first"
        go_on.set()
        assert json.loads(response.readline()) == {"event": "done", "result": {"x": 1}}
        assert response.readline() == b""


def test_a_silent_operation_is_kept_alive(daemon: fakes.Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jupyman.daemon.server, "KEEPALIVE", 0.05)
    go_on = threading.Event()
    daemon.backend.scripts[api.Up] = lambda _, operation: (go_on.wait(WAIT), operation.cancelled.is_set())[1]
    with stream(daemon, call("up")) as response:
        assert response.readline() == b"\n"
        assert response.readline() == b"\n"
        go_on.set()
        lines = [line for line in response if line.strip()]
    assert json.loads(lines[0]) == {"event": "done", "result": False}


def test_leaving_cancels(daemon: fakes.Served) -> None:
    started, called, ended = threading.Event(), threading.Event(), threading.Event()
    said: list[str] = []

    def work(request: api.Up, operation: api.Operation) -> Any:
        del request
        operation.on_cancel(called.set)
        operation.emit(api.Step(key="a", text="first", state="run"))
        started.set()
        if operation.cancelled.wait(WAIT):
            said.append("cancelled")
        operation.emit(api.Step(key="a", text="to nobody", state="done"))
        operation.on_cancel(lambda: said.append("called at once"))
        ended.set()

    daemon.backend.scripts[api.Up] = work
    with stream(daemon, call("up")) as response:
        response.readline()
        assert started.wait(WAIT)
    assert called.wait(WAIT)
    assert ended.wait(WAIT)
    assert said == ["cancelled", "called at once"]


def test_an_ended_operation_is_not_cancelled(daemon: fakes.Served) -> None:
    kept: list[api.Operation] = []
    called: list[int] = []

    def work(request: api.Url, operation: api.Operation) -> Any:
        del request
        kept.append(operation)
        operation.on_cancel(lambda: called.append(1))
        return SessionUrl(name="x", url="y")

    daemon.backend.scripts[api.Url] = work
    assert client(daemon).run(api.Url(), lambda _: None).url == "y"
    assert ask(daemon, "GET", "/v1/hello")[0] == 200  # the server is past the end of the stream
    assert not kept[0].cancelled.is_set()
    assert called == []


def test_ctrl_c_in_the_client_cancels(daemon: fakes.Served) -> None:
    cancelled = threading.Event()

    def work(request: api.Up, operation: api.Operation) -> Any:
        del request
        operation.emit(api.Step(key="a", text="first", state="run"))
        assert operation.cancelled.wait(WAIT)
        cancelled.set()

    def interrupt(event: api.AnyEvent) -> str | None:
        raise KeyboardInterrupt

    daemon.backend.scripts[api.Up] = work
    with pytest.raises(KeyboardInterrupt):
        client(daemon).run(api.Up(), interrupt)
    assert cancelled.wait(WAIT)


def test_what_the_callers_output_raises_is_its_own(daemon: fakes.Served) -> None:
    def broken(event: api.AnyEvent) -> str | None:
        raise BrokenPipeError

    daemon.backend.scripts[api.Logs] = lambda _, operation: operation.emit(api.Output(line="x"))
    with pytest.raises(BrokenPipeError):
        client(daemon).run(api.Logs(), broken)


def test_question_and_answer(daemon: fakes.Served) -> None:
    def work(request: api.Url, operation: api.Operation) -> Any:
        del request
        return SessionUrl(name="x", url=operation.ask(api.Prompt(id="", kind="secret", text="Password:")))

    daemon.backend.scripts[api.Url] = work
    asked: list[api.Prompt] = []

    def answer(event: api.AnyEvent) -> str | None:
        assert isinstance(event, api.Prompt)
        asked.append(event)
        return "s3cret"

    assert client(daemon, interactive=True).run(api.Url(), answer).url == "s3cret"
    assert len(asked[0].id) == 32
    late = json.dumps({"id": asked[0].id, "value": "again"}).encode()
    assert json.loads(ask(daemon, "POST", "/v1/answer", late)[2]) == {"taken": False}
    assert ask(daemon, "POST", "/v1/answer", b"{}")[0] == 400


def test_giving_up_leaving_and_silence_end_a_question(daemon: fakes.Served) -> None:
    ended: list[str] = []
    over = threading.Event()

    def work(request: api.Up, operation: api.Operation) -> Any:
        try:
            operation.ask(api.Prompt(id="", kind="text", text="?"), request.timeout)
        except errors.Interrupted as error:
            ended.append(error.message)
            over.set()
            raise

    daemon.backend.scripts[api.Up] = work
    with pytest.raises(errors.Interrupted):
        client(daemon, interactive=True).run(api.Up(), lambda _: None)
    over.clear()
    with stream(daemon, call("up"), interactive=True) as response:
        assert json.loads(response.readline())["event"] == "prompt"
    assert over.wait(WAIT)
    with stream(daemon, call("up", timeout=0.05), interactive=True) as response:
        assert json.loads(response.readline())["event"] == "prompt"
        assert json.loads(response.readline())["error"]["code"] == "interrupted"
    with stream(daemon, call("up"), interactive=False) as response:
        assert json.loads(response.readline())["error"]["code"] == "interrupted"
    assert len(ended) == 4


def test_what_cannot_be_sent_breaks_nothing(daemon: fakes.Served) -> None:
    def work(request: api.Up, operation: api.Operation) -> Any:
        del request
        operation.emit(api.Output(line="\udcff"))
        operation.emit(api.Output(line="next"))
        raise errors.RemoteFailed("\udcff", "mend it", path=object())

    daemon.backend.scripts[api.Up] = work
    with stream(daemon, call("up")) as response:
        assert json.loads(response.readline())["line"] == "next"
        assert json.loads(response.readline())["error"]["code"] == "remote-failed"
    daemon.backend.answers[api.Url] = {"x": object()}
    with stream(daemon, call("url")) as response:
        assert json.loads(response.readline())["error"]["code"] == "internal"


def test_a_client_that_does_not_read_is_let_go(daemon: fakes.Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jupyman.daemon.request_stream, "BACKLOG", 50)
    let_go = threading.Event()

    def work(request: api.Logs, operation: api.Operation) -> Any:
        del request
        while not operation.cancelled.is_set():
            operation.emit(api.Output(line="x" * 100_000))
        let_go.set()

    daemon.backend.scripts[api.Logs] = work
    with stream(daemon, call("logs")):
        assert let_go.wait(WAIT)


def test_many_at_once_are_answered_while_one_waits(daemon: fakes.Served) -> None:
    go_on = threading.Event()
    daemon.backend.scripts[api.Up] = lambda *_: go_on.wait(WAIT)
    with stream(daemon, call("up")) as slow:
        for _ in range(20):
            assert client(daemon).run(api.Url(), lambda _: None).name == "server1"
        go_on.set()
        assert json.loads(slow.readline()) == {"event": "done", "result": True}


def test_status_and_stop_need_no_backend(daemon: fakes.Served) -> None:
    status = client(daemon).run(api.DaemonStatus(), lambda _: None)
    assert status.version == __version__
    assert status.port == daemon.port
    assert status.memory > 1 << 20
    assert client(daemon).run(api.DaemonStop(), lambda _: None).stopped is True
    assert daemon.stopped.wait(WAIT)
    assert daemon.backend.requests == []


def test_a_daemon_is_busy_until_the_work_has_ended_although_its_client_left(daemon: fakes.Served) -> None:
    begun, cancelled, undone = threading.Event(), threading.Event(), threading.Event()

    def work(request: Any, operation: api.Operation) -> None:
        del request
        operation.on_cancel(cancelled.set)
        begun.set()
        undone.wait(WAIT)

    daemon.backend.scripts[api.Up] = work
    with stream(daemon, call("up")):
        assert begun.wait(WAIT)
    assert cancelled.wait(WAIT)
    assert client(daemon).run(api.DaemonStop(if_idle=True), lambda _: None).stopped is False
    assert not daemon.stopped.is_set()
    undone.set()
    wait_until(
        lambda: client(daemon).run(api.DaemonStop(if_idle=True), lambda _: None).stopped, WAIT, "the end of the work"
    )
    assert daemon.stopped.wait(WAIT)


@pytest.mark.parametrize(
    ("body", "busy"),
    [
        (call("up"), 1),
        (call("logs"), 1),
        (call("logs", follow=True), 0),
        (call("env-logs", name="x", follow=True), 0),
    ],
)
def test_who_only_follows_does_not_count_as_busy(daemon: fakes.Served, body: bytes, busy: int) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def work(request: Any, operation: api.Operation) -> None:
        del request, operation
        begun.set()
        go_on.wait(WAIT)

    for verb in (api.Up, api.Logs, api.EnvLogs):
        daemon.backend.scripts[verb] = work

    def now() -> int:
        said = json.loads(ask(daemon, "GET", "/v1/hello")[2])
        assert (said["version"], said["api"], said["build"]) == (__version__, API_VERSION, build.identity())
        return int(said["busy"])

    with stream(daemon, body) as response:
        assert begun.wait(WAIT)
        assert now() == busy
        go_on.set()
        response.read()
    wait_until(lambda: now() == 0, what="the end of the operation")


def test_other_version(daemon: fakes.Served, monkeypatch: pytest.MonkeyPatch) -> None:
    real = hello.ours
    monkeypatch.setattr(hello, "ours", lambda busy: msgspec.structs.replace(real(busy), version="999.0.0"))
    result = daemon.run("ps")
    assert result.status == 41
    assert "jupyman daemon restart" in result.stderr
    assert daemon.run("ps", "--json").json["error"]["code"] == "version-mismatch"
    assert daemon.run("daemon", "status", "--json").json["version"] == __version__
    assert daemon.run("daemon", "start").status == 41
