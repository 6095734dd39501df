"""The daemon's HTTP API: loopback, a bearer token, and nothing for pages of other origins."""

from __future__ import annotations

import asyncio
import hmac
import logging
import os
import re
import threading
import time
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from jupyman import __version__
from jupyman.api import Answer, AnyRequest, Backend, Call, DaemonStatus, DaemonStop, Done
from jupyman.api.results import DaemonInfo, DaemonStopped, Result
from jupyman.daemon.event_stream import EventStream, Feed
from jupyman.daemon.request_stream import Questions, StreamOperation
from jupyman.local import daemon_file, hello

log = logging.getLogger(__name__)

BODY_LIMIT = 1024 * 1024
BODY_TIMEOUT = 10.0  # seconds for a request's body to come
# An empty line this often reveals a client that has vanished without closing.
UNDO = 15.0  # seconds in which a cancelled operation undoes what it made
KEEPALIVE = 10.0
# What needs no token: a browser has none, and a client sends it only after the daemon has proven its identity.
_OPEN = frozenset({"/go", "/v1/prove"})
_NONCE = re.compile(r"[0-9a-f]{32,64}")


class Guard:
    """Refuses requests that are not of the user's own client, before they are routed.

    A page in the browser can send requests to 127.0.0.1, too (DNS rebinding gives it any name). So Host must be ours, a
    foreign Origin is refused, and every request but the one-time redirect and the daemon's own proof carries the token.
    Connections of other users are closed earlier (web_server.py).
    """

    def __init__(self, app: ASGIApp, token: str, port: Callable[[], int]) -> None:
        self._app = app
        self._token = token.encode()
        self._port = port

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, or refuse it; every response names our version."""
        if scope["type"] != "http":
            return

        async def versioned(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", []), (b"x-jupyman-version", __version__.encode())]
            await send(message)

        headers = {name.lower(): value for name, value in scope["headers"]}
        own = {f"127.0.0.1:{self._port()}".encode(), f"localhost:{self._port()}".encode()}
        if headers.get(b"host") not in own:
            await _refuse(
                403, "this is jupyman's daemon; the Host header names another server", scope, receive, versioned
            )
        elif b"origin" in headers and headers[b"origin"] not in {b"http://" + name for name in own}:
            await _refuse(403, "requests from other origins are refused", scope, receive, versioned)
        elif scope["path"] not in _OPEN and not self._is_authorized(headers.get(b"authorization", b"")):
            await _refuse(401, "the token of daemon.json is missing or wrong", scope, receive, versioned)
        else:
            await self._app(scope, receive, versioned)

    def _is_authorized(self, header: bytes) -> bool:
        scheme, _, given = header.partition(b" ")
        return scheme.lower() == b"bearer" and hmac.compare_digest(given.strip(), self._token)


async def _refuse(status: int, text: str, scope: Scope, receive: Receive, send: Send) -> None:
    await JSONResponse({"error": text}, status)(scope, receive, send)


class Service:
    """The routes.

    Args:
        backend: does the work.
        token: the bearer token.
        port: returns the port once it is bound.
        stop: ends the daemon.
        log_file: named in the error that a bug causes.
        feed: of the event stream; None: there is no such stream.
    """

    def __init__(
        self,
        backend: Backend,
        token: str,
        port: Callable[[], int],
        stop: Callable[[], None],
        log_file: Path,
        feed: Feed | None = None,
    ) -> None:
        self._backend = backend
        self._token = token
        self._stop = stop
        self._log_file = log_file
        self._port = port
        self._questions = Questions()
        self._started = time.time()
        # Operations that a client waits for, or that undo what they made; without those that only follow a log.
        self._busy: set[StreamOperation] = set()
        routes = [
            Route("/v1/prove", self._prove, methods=["GET"]),
            Route("/v1/hello", self._hello, methods=["GET"]),
            Route("/v1/run", self._run, methods=["POST"]),
            Route("/v1/answer", self._answer, methods=["POST"]),
            Route("/go", self._go, methods=["GET"]),
        ]
        if feed is not None:
            routes.append(Route("/v1/events", EventStream(feed)))
        self.app: ASGIApp = Guard(Starlette(routes=routes), token, port)

    async def _prove(self, request: Request) -> Response:
        """Prove that we are the daemon of daemon.json, before the client sends anything secret."""
        nonce = request.query_params.get("nonce", "")
        if not _NONCE.fullmatch(nonce) or request.client is None:
            return self._json({"error": "a nonce is missing: 32 to 64 hexadecimal digits"}, 400)
        said = msgspec.json.encode(hello.ours(len(self._busy)))
        shown = daemon_file.proof(self._token, nonce, request.client.port, self._port(), said)
        return Response(said, media_type="application/json", headers={"X-Jupyman-Proof": shown})

    async def _hello(self, request: Request) -> Response:
        del request
        return self._json(msgspec.to_builtins(hello.ours(len(self._busy))))

    async def _run(self, request: Request) -> Response:
        body = await self._body(request)
        if isinstance(body, Response):
            return body
        try:
            call = msgspec.json.decode(body, type=Call)
        except ValueError as error:  # no JSON, another shape, or no text at all
            return self._json({"error": f"not a request: {error}"}, 400)
        if isinstance(call.request, DaemonStatus):
            return self._one(self._status())
        if isinstance(call.request, DaemonStop):
            if call.request.if_idle and self._busy:
                return self._one(DaemonStopped(stopped=False))
            # After this response was sent.
            asyncio.get_running_loop().call_later(0.05, self._stop)
            return self._one(DaemonStopped(stopped=True, pid=os.getpid()))
        operation = StreamOperation(call.client, self._questions, asyncio.get_running_loop())
        operation.start(self._backend, call.request, self._log_file, lambda: self._busy.discard(operation))
        if not _follows(call.request):
            self._busy.add(operation)  # before the loop runs what the end of the work has posted
        return StreamingResponse(self._events(operation), media_type="application/x-ndjson")

    async def _events(self, operation: StreamOperation) -> AsyncIterator[bytes]:
        finished = False
        try:
            while not finished:
                try:
                    line = await asyncio.wait_for(operation.events.get(), KEEPALIVE)
                except TimeoutError:
                    yield b"\n"
                    continue
                if line is None:
                    finished = True
                else:
                    yield line
        finally:
            if not operation.ended:
                # The client has left. Callbacks may wait, which the event loop must not.
                threading.Thread(target=operation.cancel, name="cancel", daemon=True).start()
                # A host that hangs must not keep an old daemon alive for ever.
                asyncio.get_running_loop().call_later(UNDO, self._busy.discard, operation)

    async def _answer(self, request: Request) -> Response:
        body = await self._body(request)
        if isinstance(body, Response):
            return body
        try:
            answer = msgspec.json.decode(body, type=Answer)
        except ValueError as error:
            return self._json({"error": f"not an answer: {error}"}, 400)
        return self._json({"taken": self._questions.answer(answer)})

    async def _go(self, request: Request) -> Response:
        headers = {"Referrer-Policy": "no-referrer", "Cache-Control": "no-store"}
        if request.method != "GET":  # a HEAD would use the code up
            return Response(status_code=405, headers=headers)
        # Every user could read the address on the browser's command line; web_server.py accepts this user alone.
        loop = asyncio.get_running_loop()
        target = await loop.run_in_executor(None, self._backend.redeem, request.query_params.get("code", ""))
        if target is None:
            page = "<title>jupyman</title><p>This address works only once. Run <code>jupyman open</code>."
            return HTMLResponse(page, 404, headers=headers)
        return RedirectResponse(target, 302, headers=headers)

    async def _body(self, request: Request) -> bytes | Response:
        body = bytearray()
        announced = request.headers.get("content-length", "")
        if announced.isascii() and announced.isdigit() and int(announced) > BODY_LIMIT:
            return self._json({"error": "the request is too large"}, 413)

        async def read() -> None:
            async for chunk in request.stream():
                body.extend(chunk)
                if len(body) > BODY_LIMIT:
                    return

        try:
            await asyncio.wait_for(read(), BODY_TIMEOUT)
        except TimeoutError:
            return self._json({"error": "the request came too slowly"}, 408)
        except ClientDisconnect:
            return self._json({"error": "the client left"}, 400)
        if len(body) > BODY_LIMIT:
            return self._json({"error": "the request is too large"}, 413)
        return bytes(body)

    def _status(self) -> DaemonInfo:
        import psutil

        return DaemonInfo(
            pid=os.getpid(),
            version=__version__,
            port=self._port(),
            started=datetime.fromtimestamp(self._started, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            uptime=round(time.time() - self._started, 1),
            threads=threading.active_count(),
            memory=psutil.Process().memory_info().rss,
            log=str(self._log_file),
        )

    @staticmethod
    def _one(result: Result) -> Response:
        event = Done(result=msgspec.Raw(msgspec.json.encode(result)))
        return Response(msgspec.json.encode(event) + b"\n", media_type="application/x-ndjson")

    @staticmethod
    def _json(content: dict[str, Any], status: int = 200) -> Response:
        return JSONResponse(content, status)


def _follows(request: AnyRequest) -> bool:
    """Return whether a request has no end of its own (`logs -f`): it must not keep an old daemon alive."""
    return bool(getattr(request, "follow", False))
