"""The client of the daemon's API: finds it, starts it where needed, runs one request."""

from __future__ import annotations

import http.client
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import msgspec

from jupyman import __version__, address, errors
from jupyman.api import Answer, AnyEvent, AnyRequest, Call, ClientContext, Done, Failed, Prompt
from jupyman.paths import Paths

START_TIMEOUT = 15.0  # seconds for a daemon to answer; a cold disk can be slow
_STEP = 0.02

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
        where = self._find(start=start)
        self.base = f"http://127.0.0.1:{where.port}"
        body = msgspec.json.encode(Call(request=request, client=self._context))
        with self._post(where, "/v1/run", body) as response:
            theirs = response.getheader("X-Jupyman-Version")
            if not any_version and theirs != __version__:
                raise errors.VersionMismatch(f"the daemon is jupyman {theirs or 'unknown'}, this is {__version__}")
            if response.status != 200:
                raise errors.DaemonUnavailable(
                    f"the daemon refused the request (HTTP {response.status})", "jupyman daemon restart"
                )
            for event in _events(response):
                if isinstance(event, Done):
                    return event.result
                if isinstance(event, Failed):
                    raise errors.from_info(event.error)
                said = on_event(event)
                if isinstance(event, Prompt):
                    self._answer(where, Answer(id=event.id, value=said))
        raise errors.DaemonUnavailable("the daemon ended while it worked", "jupyman daemon logs")

    def _find(self, *, start: bool) -> address.Address:
        """Return the running daemon's address."""
        found = address.read(self._paths.daemon_file)
        if found is not None and self._answers(found):
            return found
        if not start:
            raise errors.DaemonUnavailable("no daemon runs", "jupyman daemon start; every other command starts it too")
        from jupyman.spawn import spawn

        try:
            process = spawn(self._paths)
        except OSError as error:
            raise errors.DaemonUnavailable(f"the daemon cannot be started: {error}") from error
        deadline = time.monotonic() + START_TIMEOUT
        while time.monotonic() < deadline:
            fresh = address.read(self._paths.daemon_file)
            if fresh is not None and fresh != found and self._answers(fresh):
                return fresh
            # A loser of two that start at once ends with 40 while the other comes up.
            status = process.poll()
            if status is not None and status not in {0, 40}:
                raise errors.DaemonUnavailable(f"the daemon ended at once (status {status})")
            time.sleep(_STEP)
        raise errors.DaemonUnavailable(f"the daemon did not answer in {START_TIMEOUT:.0f} s")

    @staticmethod
    def _answers(where: address.Address) -> bool:
        """Tell whether the daemon of a file lives and answers: its port may be another program's by now."""
        if not _lives(where.pid):
            return False  # and the token is not shown to whoever has the port now
        connection = http.client.HTTPConnection("127.0.0.1", where.port, timeout=5)
        try:
            connection.request("GET", "/v1/hello", headers={"Authorization": f"Bearer {where.token}"})
            response = connection.getresponse()
            pid = msgspec.json.decode(response.read(4096)).get("pid")
        except (OSError, http.client.HTTPException, msgspec.DecodeError, AttributeError):
            return False
        else:
            return response.status == 200 and pid == where.pid
        finally:
            connection.close()

    @contextmanager
    def _post(self, where: address.Address, path: str, body: bytes) -> Iterator[http.client.HTTPResponse]:
        connection = http.client.HTTPConnection("127.0.0.1", where.port, timeout=60)
        try:
            connection.request(
                "POST",
                path,
                body,
                {"Authorization": f"Bearer {where.token}", "Content-Type": "application/json"},
            )
            yield connection.getresponse()
        except (OSError, http.client.HTTPException) as error:
            raise errors.DaemonUnavailable(f"the daemon went away: {error or type(error).__name__}") from error
        finally:
            connection.close()

    def _answer(self, where: address.Address, answer: Answer) -> None:
        with self._post(where, "/v1/answer", msgspec.json.encode(answer)) as response:
            response.read()


def _lives(pid: int) -> bool:
    """Tell whether a process of this user has that pid; psutil would cost every command 15 ms."""
    if os.name != "posix":
        return True
    try:
        os.kill(pid, 0)
    except OSError:
        return False
    return True


def _events(response: http.client.HTTPResponse) -> Iterator[AnyEvent]:
    while line := response.readline():
        if line.strip():
            yield _EVENT.decode(line)
