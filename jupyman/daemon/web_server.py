"""The HTTP server under the API: a small uvicorn, for this user only, that closes connections without a request."""

from __future__ import annotations

import asyncio

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from jupyman.local.peer_guard import PeerGuard

# Seconds for a request's head to arrive: uvicorn itself waits for ever, and any local process can connect.
HEAD_TIMEOUT = 10.0
KEEP_ALIVE = 30  # seconds between two requests on one connection


class Protocol(H11Protocol):
    """Closes a connection of another user, and one whose request head does not arrive."""

    peer_guard = PeerGuard("the daemon's own port")  # there is one daemon in a process
    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's own
        """Check its owner before anything is read from it; start to wait for the first request."""
        super().connection_made(transport)
        far, near = transport.get_extra_info("peername"), transport.get_extra_info("sockname")
        if far and near and self.peer_guard.refuse(far[:2], near[:2]):
            transport.abort()
        else:
            self._wait_for_head()

    def data_received(self, data: bytes) -> None:
        """Continue to wait for the rest of a head; a request under way has its own limits."""
        super().data_received(data)
        self._wait_for_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop waiting."""
        self._stop_waiting()
        super().connection_lost(exc)

    def _wait_for_head(self) -> None:
        if self.cycle is not None and not self.cycle.response_complete:
            self._stop_waiting()
        elif self._timer is None:  # never restarted: a head that arrives byte by byte is late, too
            self._timer = self.loop.call_later(HEAD_TIMEOUT, self._close_idle)

    def _stop_waiting(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _close_idle(self) -> None:
        self._timer = None
        if self.cycle is None or self.cycle.response_complete:
            self.transport.close()


def server(app: ASGIApp) -> uvicorn.Server:
    """Build the server; its `run(sockets=[…])` serves until `should_exit`.

    Args:
        app: the API.
    """
    return uvicorn.Server(
        uvicorn.Config(
            app,
            http=Protocol,
            loop="asyncio",
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            timeout_keep_alive=KEEP_ALIVE,
            timeout_graceful_shutdown=1,
            server_header=False,
            date_header=False,
        )
    )
