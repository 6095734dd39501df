"""``GET /v1/events``: what `ps` shows, and every change of it, as lines of JSON (model/event.py).

A client names what it has: ``?since=INDEX&epoch=EPOCH``; without them it gets a snapshot first. Nothing is queued for a
client: while it does not read, the changes stay in the feed, and it gets the newest when it reads again.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from typing import Protocol

import msgspec
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from jupyman.model.event import Heartbeat

MOST = 20  # clients at once
HEARTBEAT = 10.0  # seconds without a change after which a line shows that the daemon is there


class Batch(Protocol):
    """Lines for a client, and where it continues from."""

    @property
    def lines(self) -> bytes:
        """Whole lines, or none."""

    @property
    def epoch(self) -> str:
        """Of the daemon."""

    @property
    def index(self) -> int:
        """Of the last change that the client has then."""


class Feed(Protocol):
    """Where the lines come from: `core.event_feed.EventFeed`."""

    def follow(self, changed: Callable[[], None]) -> Callable[[], None]:
        """Have `changed` called after changes; return what ends it. Neither waits."""

    def read(self, epoch: str | None, since: int) -> Batch:
        """Return what has changed since an index of an epoch, or a snapshot."""


class EventStream:
    """The route, as an ASGI application.

    Args:
        feed: where the lines come from.
    """

    def __init__(self, feed: Feed) -> None:
        self._feed = feed
        self._clients = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one client until it leaves."""
        response = self._response(Request(scope))
        if not isinstance(response, StreamingResponse):
            await response(scope, receive, send)
            return
        self._clients += 1
        try:
            await response(scope, receive, send)
        finally:
            self._clients -= 1

    def _response(self, request: Request) -> Response:
        if request.method != "GET":
            return JSONResponse({"error": "only GET is known here"}, 405, headers={"Allow": "GET"})
        since, epoch = request.query_params.get("since", "0"), request.query_params.get("epoch")
        if not (since.isascii() and since.isdigit() and len(since) <= 18):
            return JSONResponse({"error": "since is not an index"}, 400)
        if self._clients >= MOST:
            text = f"{MOST} clients follow the events already"
            return JSONResponse({"error": text}, 503, headers={"Retry-After": str(round(HEARTBEAT))})
        return StreamingResponse(self._lines(epoch, int(since)), media_type="application/x-ndjson")

    async def _lines(self, epoch: str | None, since: int) -> AsyncIterator[bytes]:
        loop = asyncio.get_running_loop()
        changed = asyncio.Event()

        def notify() -> None:
            with suppress(RuntimeError):  # the server has ended
                loop.call_soon_threadsafe(changed.set)

        leave = self._feed.follow(notify)
        try:
            while True:
                changed.clear()
                # In a thread: the locks that it takes are held for moments, but this loop serves all requests.
                batch = await loop.run_in_executor(None, self._feed.read, epoch, since)
                epoch, since = batch.epoch, batch.index
                if batch.lines:
                    yield batch.lines
                while not changed.is_set():
                    try:
                        await asyncio.wait_for(changed.wait(), HEARTBEAT)
                    except TimeoutError:
                        yield msgspec.json.encode(Heartbeat(index=since)) + b"\n"
        finally:
            leave()
