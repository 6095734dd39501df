"""The client of the daemon's API: finds it, starts it where needed, runs one request.

Nothing secret (the token, an answer to a question) leaves on a connection before the daemon has proven on this very
connection that it is the one of daemon.json, and no connection is ever made anew in between: a daemon may end at any
moment, and another user's program have its port in the next. docs/adr/0007-strangers.md says how, and why.
"""

from __future__ import annotations

import hmac
import http.client
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import msgspec

from jupyman import errors
from jupyman.api import Answer, AnyEvent, AnyRequest, Call, ClientContext, DaemonStop, Done, Failed, OpenBrowser, Prompt
from jupyman.local import daemon_file as address
from jupyman.local.hello import Hello
from jupyman.local.peer import foreign_caller, foreign_listener
from jupyman.paths import Paths

START_TIMEOUT = 15.0  # seconds for a daemon to answer; a cold disk can be slow
HELLO_TIMEOUT = 5.0  # seconds for one that runs
SILENCE = 60.0  # seconds; the daemon sends an empty line every ten
_STEP = 0.02
_AGAIN = 0.3  # seconds after which a daemon that found the lock held is started again
_LOCKED = errors.DaemonUnavailable.status

_EVENT = msgspec.json.Decoder(AnyEvent)


class Client:
    """Speaks with the daemon.

    Args:
        paths: where daemon.json is.
        context: what the daemon must know of this caller.
    """

    def __init__(self, paths: Paths, context: ClientContext) -> None:
        self._paths = paths
        self._context = context
        self.base = ""  # http://127.0.0.1:PORT of the daemon, once it was reached

    def run(
        self,
        request: AnyRequest,
        on_event: Callable[[AnyEvent], str | None],
        *,
        start: bool = True,
        any_version: bool = False,
    ) -> Any:
        """Run one request to its end.

        Args:
            request: what to do.
            on_event: told each event; its answer to a `Prompt` is sent to the daemon (None: the user gives up).
            start: start the daemon where none runs.
            any_version: accept a daemon of another version.

        Returns:
            The result as plain JSON values.

        Raises:
            DaemonUnavailable: no daemon, or it went away.
            VersionMismatch: it is of another version.
            JupymanError: what the daemon says.
        """
        daemon = self._find(start=start)
        try:
            if not any_version:
                daemon.hello.check()
        except errors.VersionMismatch:
            daemon.close()
            raise
        self.base = f"http://127.0.0.1:{daemon.where.port}"
        body = msgspec.json.encode(Call(request=request, client=self._context))
        with daemon.post("/v1/run", body) as response:
            if response.status != 200:
                raise errors.DaemonUnavailable(
                    f"the daemon refused the request (HTTP {response.status})", "jupyman daemon restart"
                )
            for event in _events(response):
                if isinstance(event, Done):
                    return event.result
                if isinstance(event, Failed):
                    raise errors.from_info(event.error)
                if isinstance(event, OpenBrowser) and event.url.startswith("/"):
                    _again(daemon.where).close()  # the browser will ask whoever has the port
                said = on_event(event)
                if isinstance(event, Prompt):
                    again = _again(daemon.where)
                    with again.post("/v1/answer", msgspec.json.encode(Answer(id=event.id, value=said))) as taken:
                        taken.read()
        raise errors.DaemonUnavailable("the daemon ended while it worked", "jupyman daemon logs")

    def _find(self, *, start: bool) -> _Daemon:
        """Return the running daemon, proven."""
        found = address.read(self._paths.daemon_file)
        daemon = _reach(found) if found is not None else None
        if daemon is not None:
            if not start or daemon.hello.busy or not daemon.hello.outdated(daemon.where.stamp):
                return daemon
            # After an upgrade this version's daemon replaces the old one; servers and ports stay as they are.
            self._retire(daemon)
        if not start:
            raise errors.DaemonUnavailable("no daemon runs", "jupyman daemon start; every other command starts it too")
        from jupyman.local.spawn import spawn

        try:
            process = spawn(self._paths)
            lost = 0.0  # when the lock was found held: another daemon comes up, or the one before is still going
            deadline = time.monotonic() + START_TIMEOUT
            while time.monotonic() < deadline:
                fresh = address.read(self._paths.daemon_file)
                daemon = _reach(fresh) if fresh is not None and (fresh != found or lost) else None
                if daemon is not None:
                    process.returncode = 0  # it is a daemon now: nobody waits for its end
                    return daemon
                status = process.poll()
                if status == errors.VersionMismatch.status:
                    raise errors.VersionMismatch(
                        "the files here were written by a newer jupyman",
                        f"use that one; {self._paths.log_file} says more",
                    )
                if status is not None and status != _LOCKED:
                    raise errors.DaemonUnavailable(
                        f"the daemon ended at once (status {status})",
                        f"{self._paths.log_file} says why; so does jupyman daemon run",
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

    def _retire(self, old: _Daemon) -> None:
        """End a daemon of another version or build; its lock goes with its process."""
        body = msgspec.json.encode(Call(request=DaemonStop(), client=self._context))
        # Another command may have ended it just now.
        with suppress(errors.DaemonUnavailable, OSError, http.client.HTTPException), old.post("/v1/run", body) as reply:
            reply.read()
        deadline = time.monotonic() + START_TIMEOUT
        while address.read(self._paths.daemon_file) == old.where and time.monotonic() < deadline:
            time.sleep(_STEP)


class _Daemon:
    """A connection whose other end is the daemon of daemon.json: that was proven on it. It carries one request.

    Args:
        where: what daemon.json says.
        connection: open; it never connects anew.
        hello: what it says of itself.
    """

    def __init__(self, where: address.DaemonAddress, connection: _Connection, hello: Hello) -> None:
        self.where = where
        self.hello = hello
        self._connection = connection

    @contextmanager
    def post(self, path: str, body: bytes) -> Iterator[http.client.HTTPResponse]:
        """Send a body; closing the connection, however it comes to that, cancels what it asked for."""
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
    """Connect to the daemon of a file; None where it does not live, or its port is another program's by now."""
    if not _lives(where.pid) or foreign_listener(where.port):
        return None  # he need not even hear that somebody looks for a daemon
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
    """Reach the daemon that works for us once more.

    Raises:
        DaemonUnavailable: it has ended meanwhile, and nothing was sent to whoever has its port.
    """
    daemon = _reach(where)
    if daemon is None:
        raise errors.DaemonUnavailable("the daemon ended while it worked", "jupyman daemon logs")
    return daemon


def _proven(where: address.DaemonAddress, connection: _Connection) -> Hello | None:
    """Let the other end prove that it is the daemon; None where it does not. Nothing secret is sent before it has."""
    nonce = os.urandom(16).hex()
    connection.request("GET", f"/v1/prove?nonce={nonce}")
    here = connection.here
    response = connection.getresponse()
    said = response.read(4096)
    if not response.isclosed():  # more than a daemon says
        return None
    # It has answered, so it has taken the connection, and its end has an owner.
    if foreign_caller(("127.0.0.1", where.port), here):
        return None
    if response.status == 200:
        shown = response.getheader("X-Jupyman-Proof") or ""
        wanted = address.proof(where.token, nonce, here[1], where.port, said)
        if not hmac.compare_digest(shown.encode(), wanted.encode()):
            return None
    elif response.status == 401 and address.holds(where, here):
        # A daemon of 0.1.0 knows no proof. The kernel says that the process of daemon.json, which is ours, has the
        # other end; any process of ours could read the token in daemon.json as well.
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
    """To an address, without the look-up of names: that would import the tables of international ones.

    It connects when it is told to, and never by itself: whoever has the port then may be somebody else.
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
    """Tell whether a process of this user has that pid; psutil would cost every command 15 ms."""
    if os.name != "posix":
        return True
    try:
        os.kill(pid, 0)
    except (OSError, OverflowError):
        return False
    return True


@contextmanager
def _daemon_went() -> Iterator[None]:
    """Turn what the connection raises into ours; not what the caller's own output raises."""
    try:
        yield
    except (OSError, http.client.HTTPException) as error:
        raise errors.DaemonUnavailable(f"the daemon went away: {error or type(error).__name__}") from error


def _events(response: http.client.HTTPResponse) -> Iterator[AnyEvent]:
    while True:
        with _daemon_went():
            line = response.readline()
        if not line:
            return
        if not line.strip():
            continue
        try:
            event = _EVENT.decode(line)
        except msgspec.DecodeError as error:
            raise errors.VersionMismatch(f"the daemon says what this version does not know: {error}") from error
        yield event
