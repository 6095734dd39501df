"""The client of the daemon's API: finds the daemon, starts it if necessary, and runs one request.

No secret (the token, an answer to a question) is sent on a connection before the daemon has proven on that connection
that it is the one of daemon.json. A connection is never reopened in between: the daemon may end at any moment, and
another user's program may then take its port. See docs/adr/0007-strangers.md.

Over 300 lines because a request, the proof and the replacement of an old daemon share one connection.
"""

from __future__ import annotations

import hmac
import http.client
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TypeVar, cast

import msgspec

from jupyman import errors
from jupyman.api import (
    Answer,
    AnyEvent,
    AnyRequest,
    Call,
    ClientContext,
    DaemonStop,
    Done,
    Failed,
    OpenBrowser,
    Prompt,
    R,
    Request,
    result_of,
)
from jupyman.local import daemon_file as address
from jupyman.local.hello import Hello
from jupyman.local.peer import foreign_caller, foreign_listener
from jupyman.paths import Paths

START_TIMEOUT = 15.0  # seconds for a daemon to answer; a cold disk can be slow
HELLO_TIMEOUT = 5.0  # seconds for a running daemon to answer
SILENCE = 60.0  # seconds; the daemon sends an empty line every ten seconds
_STEP = 0.02
_AGAIN = 0.3  # seconds until the next start after one that found the lock held
_LOCKED = errors.DaemonUnavailable.status

_EVENT = msgspec.json.Decoder(AnyEvent)
T = TypeVar("T")


class Client:
    """Runs requests in the daemon.

    Args:
        paths: where daemon.json is.
        context: the environment of this caller.
    """

    def __init__(self, paths: Paths, context: ClientContext) -> None:
        self._paths = paths
        self._context = context
        self.base = ""  # http://127.0.0.1:PORT of the daemon after it was reached

    def run(
        self,
        request: Request[R],
        on_event: Callable[[AnyEvent], str | None],
        *,
        start: bool = True,
        any_version: bool = False,
    ) -> R:
        """Run one request to its end.

        Args:
            request: what to do.
            on_event: called with each event; its answer to a `Prompt` is sent to the daemon (None: the user gives up).
            start: start the daemon if none is running.
            any_version: accept a daemon of another version.

        Returns:
            The result, of the type that the request names.

        Raises:
            DaemonUnavailable: there is no daemon, or it ended.
            VersionMismatch: it is of another version.
            JupymanError: the error that the daemon sent.
        """
        daemon = self._find(start=start)
        try:
            if not any_version:
                daemon.hello.check()
        except errors.VersionMismatch:
            daemon.close()
            raise
        self.base = f"http://127.0.0.1:{daemon.where.port}"
        call = Call(request=cast("AnyRequest", request), client=self._context)  # the union of all subclasses
        with daemon.post("/v1/run", msgspec.json.encode(call)) as response:
            if response.status != 200:
                raise errors.DaemonUnavailable(
                    f"the daemon refused the request (HTTP {response.status})", "jupyman daemon restart"
                )
            for event in _events(response):
                if isinstance(event, Done):
                    return _decoded(msgspec.json.Decoder(result_of(type(request))), event.result)
                if isinstance(event, Failed):
                    raise errors.from_info(event.error)
                if isinstance(event, OpenBrowser) and event.url.startswith("/"):
                    _again(daemon.where).close()  # the browser connects to whatever has the port
                answer = on_event(event)
                if isinstance(event, Prompt):
                    body = msgspec.json.encode(Answer(id=event.id, value=answer))
                    with _again(daemon.where).post("/v1/answer", body) as response_to_answer:
                        response_to_answer.read()
        raise errors.DaemonUnavailable("the daemon ended during the request", "jupyman daemon logs")

    def _find(self, *, start: bool) -> _Daemon:
        """Return the running daemon, proven."""
        found = address.read(self._paths.daemon_file)
        daemon = _reach(found) if found is not None else None
        if daemon is not None:
            if not start or daemon.hello.busy or not daemon.hello.outdated(daemon.where.stamp):
                return daemon
            # After an upgrade this version's daemon replaces the old one; servers and ports stay as they are.
            if not self._retire(daemon) and found is not None and (daemon := _reach(found)) is not None:
                return daemon  # another command came first
        if not start:
            raise errors.DaemonUnavailable(
                "no daemon is running", "jupyman daemon start; every other command starts it too"
            )
        from jupyman.local.spawn import spawn

        try:
            process = spawn(self._paths)
            lost = 0.0  # when the lock was found held: another daemon is starting, or the old one is still ending
            deadline = time.monotonic() + START_TIMEOUT
            while time.monotonic() < deadline:
                fresh = address.read(self._paths.daemon_file)
                daemon = _reach(fresh) if fresh is not None and (fresh != found or lost) else None
                if daemon is not None:
                    process.returncode = 0  # nothing waits for the end of the daemon
                    return daemon
                status = process.poll()
                if status == errors.VersionMismatch.status:
                    raise errors.VersionMismatch(
                        "the files here were written by a newer jupyman",
                        f"use that version; see {self._paths.log_file}",
                    )
                if status is not None and status != _LOCKED:
                    raise errors.DaemonUnavailable(
                        f"the daemon ended at once (status {status})",
                        f"see {self._paths.log_file}, or run jupyman daemon run",
                    )
                if status is not None and time.monotonic() > lost + _AGAIN:
                    lost = time.monotonic()
                    process = spawn(self._paths)
                time.sleep(_STEP)
        except OSError as error:
            raise errors.DaemonUnavailable(f"the daemon cannot be started: {error}") from error
        process.returncode = 0
        raise errors.DaemonUnavailable(
            f"the daemon did not answer in {START_TIMEOUT:.0f} s", "jupyman daemon restart; jupyman daemon logs"
        )

    def _retire(self, old: _Daemon) -> bool:
        """End a daemon of another version or build, unless it is busy; its lock goes with its process."""
        body = msgspec.json.encode(Call(request=DaemonStop(if_idle=True), client=self._context))
        # Another command may have ended it just now.
        with suppress(errors.DaemonUnavailable, OSError, http.client.HTTPException), old.post("/v1/run", body) as reply:
            if b'"stopped":false' in reply.read():
                return False
        deadline = time.monotonic() + START_TIMEOUT
        while address.read(self._paths.daemon_file) == old.where and time.monotonic() < deadline:
            time.sleep(_STEP)
        return True


class _Daemon:
    """A connection whose other end has proven to be the daemon of daemon.json. It carries one request.

    Args:
        where: the content of daemon.json.
        connection: open; it never reconnects.
        hello: the daemon's version, build and whether it is busy.
    """

    def __init__(self, where: address.DaemonAddress, connection: _Connection, hello: Hello) -> None:
        self.where = where
        self.hello = hello
        self._connection = connection

    @contextmanager
    def post(self, path: str, body: bytes) -> Iterator[http.client.HTTPResponse]:
        """Send a body. Closing the connection, for whatever reason, cancels the request."""
        headers = {**_bearer(self.where), "Content-Type": "application/json"}
        try:
            with _daemon_went():
                if self._connection.sock is not None:
                    self._connection.sock.settimeout(SILENCE)
                self._connection.request("POST", path, body, headers)
                response = self._connection.getresponse()
            yield response
        finally:
            self.close()

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


def _reach(where: address.DaemonAddress) -> _Daemon | None:
    """Connect to the daemon of a file; None if it has ended or another program has its port."""
    if not _lives(where.pid) or foreign_listener(where.port):
        return None  # another user's program: it need not learn that someone looks for a daemon
    connection = _Connection("127.0.0.1", where.port, timeout=HELLO_TIMEOUT)
    try:
        connection.connect()
        said = _proven(where, connection)
    except (OSError, http.client.HTTPException, msgspec.MsgspecError, UnicodeError):
        said = None
    except BaseException:
        connection.close()
        raise
    if said is None or said.pid != where.pid:
        connection.close()
        return None
    return _Daemon(where, connection, said)


def _again(where: address.DaemonAddress) -> _Daemon:
    """Connect again to the daemon that runs our request.

    Raises:
        DaemonUnavailable: it has ended; nothing was sent to a program that has its port now.
    """
    daemon = _reach(where)
    if daemon is None:
        raise errors.DaemonUnavailable("the daemon ended during the request", "jupyman daemon logs")
    return daemon


def _proven(where: address.DaemonAddress, connection: _Connection) -> Hello | None:
    """Let the other end prove that it is the daemon; None if it does not. No secret is sent before it has."""
    nonce = os.urandom(16).hex()
    connection.request("GET", f"/v1/prove?nonce={nonce}")
    here = connection.here
    response = connection.getresponse()
    said = response.read(4096)
    if not response.isclosed():  # more than a daemon sends
        return None
    # It has answered, so it has accepted the connection, and that end has an owner.
    if foreign_caller(("127.0.0.1", where.port), here):
        return None
    if response.status == 200:
        shown = response.getheader("X-Jupyman-Proof") or ""
        wanted = address.proof(where.token, nonce, here[1], where.port, said)
        if not hmac.compare_digest(shown.encode(), wanted.encode()):
            return None
    elif response.status == 401 and address.holds(where, here):
        # A daemon of 0.1.0 has no proof. According to the kernel the other end belongs to the process of daemon.json,
        # which is ours; any process of ours could also read the token in daemon.json.
        connection.request("GET", "/v1/hello", headers=_bearer(where))
        response = connection.getresponse()
        said = response.read(4096)
        if response.status != 200:
            return None
    else:
        return None
    return msgspec.json.decode(said, type=Hello)


def _bearer(where: address.DaemonAddress) -> dict[str, str]:
    return {"Authorization": f"Bearer {where.token}"}


class _Connection(http.client.HTTPConnection):
    """A connection to an address, without name resolution, which would import the tables for international names.

    It connects only on request, never by itself: another program may have the port by then.
    """

    auto_open = 0
    here = ("", 0)  # our end

    def connect(self) -> None:
        """Connect."""
        self.sock = socket.socket()
        self.sock.settimeout(self.timeout)
        self.sock.connect((self.host, self.port))
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.here = self.sock.getsockname()


def _lives(pid: int) -> bool:
    """Return whether a process of this user has that pid; psutil would cost every command 15 ms."""
    if os.name != "posix":
        return True
    try:
        os.kill(pid, 0)
    except (OSError, OverflowError):
        return False
    return True


@contextmanager
def _daemon_went() -> Iterator[None]:
    """Convert the errors of the connection, but not those of the caller's own output."""
    try:
        yield
    except (OSError, http.client.HTTPException) as error:
        raise errors.DaemonUnavailable(f"the daemon ended: {error or type(error).__name__}") from error


def _events(response: http.client.HTTPResponse) -> Iterator[AnyEvent]:
    while True:
        with _daemon_went():
            line = response.readline()
        if not line:
            return
        if not line.strip():
            continue
        yield _decoded(_EVENT, line)


def _decoded(decoder: msgspec.json.Decoder[T], text: bytes | msgspec.Raw) -> T:
    try:
        return decoder.decode(text)
    except msgspec.DecodeError as error:
        raise errors.VersionMismatch(f"this version cannot read what the daemon sent: {error}") from error
