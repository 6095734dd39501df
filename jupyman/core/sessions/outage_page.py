"""PURE: the responses that a browser gets from us while the link to its server is away.

A page load gets our own small page, which reloads itself; everything else (API calls, websockets) gets 503 with
Retry-After. A connection that is not HTTP gets nothing and may wait for the link.

While the connection stands and the host is only silent, everything but a page load waits for it, as behind `ssh -L`,
and nothing is lost.

Two exceptions for requests that a page of JupyterLab makes, read in its source (4.6, services/kernel/default.ts and
services/*/manager.ts) and seen in a browser. After 503 or a closed connection for its lists of what runs, it covers the
page with a dialog that stays: they get 504. After 503 for the model of one kernel, which it requests when the websocket
has closed, it tries again in 10 to 30 s; any other error it takes for a dead kernel. That request waits, as do
websockets.
"""

from __future__ import annotations

import html
import json
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from jupyman.core.sessions.state import SessionState
from jupyman.model import LinkStatus, TunnelSpec
from jupyman.ssh.streams.origin import Respond

RETRY = 2  # seconds
PATIENCE = 15.0  # seconds that requests about one kernel wait; connections are held for 20 at most
# RFC 9112, section 3: method, target, version. Only the methods that browsers and Jupyter clients use.
_REQUEST = re.compile(rb"^(GET|HEAD|POST|PUT|PATCH|DELETE|OPTIONS) ([^ \r\n]+) HTTP/1\.[01]\r\n")
_HEAD_LIMIT = 16384  # bytes; a longer head is judged by its beginning
_LIST = re.compile(r"/api/(kernels|sessions|terminals)$")
_ONE = re.compile(r"/api/kernels/[^/]+(/channels)?$|/terminals/websocket/[^/]+$")
_LOCAL = re.compile(r"^(127\.0\.0\.1|localhost|\[::1\])(:[0-9]+)?$")


@dataclass(frozen=True)
class OutageFacts:
    """What is known of the far end.

    Attributes:
        title: the session or forward, as the user calls it.
        host: its host.
        state: one sentence without a full stop: what is wrong.
        since: local time at which it began, None if not known.
        seen: local time at which the server was last seen running.
        next_attempt: local time of the next login, None if none is due.
        command: what the user can run, None if only waiting helps.
        silent: the connection stands, and the host may answer again over it.
    """

    title: str
    host: str
    state: str
    since: str | None = None
    seen: str | None = None
    next_attempt: str | None = None
    command: str | None = None
    silent: bool = False


def link_away(title: str, host: str, link: LinkStatus, *, again: str, seen: str | None = None) -> OutageFacts:
    """Describe a link that is not up.

    Args:
        title: the session or forward.
        host: its host.
        link: its status.
        again: the command by which a person logs in again.
        seen: when the server was last seen running, RFC 3339.
    """
    if link.silent_since is not None:
        text = "the host does not answer; its connection is kept for a while"
        return OutageFacts(title, host, text, since=clock(link.silent_since), seen=clock(seen), silent=True)
    words = {
        "up": "looking whether the server still runs",
        "needs-auth": "the host asks for a login",
        "failed": "the host's key is not the known one",
    }
    return OutageFacts(
        title,
        host,
        words.get(link.state, "the link is lost, reconnecting"),
        since=clock(link.since) if link.state != "up" else None,
        seen=clock(seen),
        next_attempt=clock(link.next_attempt),
        command=again if link.state in {"needs-auth", "failed"} else None,
    )


def for_forward(spec: TunnelSpec, status: Callable[[], LinkStatus]) -> Respond:
    """Return what answers a browser that uses a forward of no session while its link is away.

    Args:
        spec: the forward.
        status: of the host's link.
    """
    title, again = f"port {spec.local_port}", f"jupyman tunnel {spec.local_port} --host {spec.host}"

    def respond(head: bytes, waited: float | None) -> bytes | None:
        return answer(head, link_away(title, spec.host, status(), again=again), waited)

    return respond


def for_session(current: Callable[[], SessionState], status: Callable[[], LinkStatus]) -> Respond:
    """Return what answers a browser while a session's gate is closed.

    Args:
        current: the session's state.
        status: of the host's link.
    """

    def respond(head: bytes, waited: float | None) -> bytes | None:
        return answer(head, session_away(current(), status()), waited)

    return respond


def session_away(state: SessionState, link: LinkStatus) -> OutageFacts:
    """Describe a session whose gate is closed.

    Args:
        state: of the session.
        link: status of its host's link.
    """
    again = f"jupyman up {state.name}"
    reasons = [(state.down, "the session is down"), (state.state == "exited", "the server has ended")]
    given = ", and ".join(text for holds, text in reasons if holds)
    if given:
        return OutageFacts(state.name, state.spec.host, given, command=again, seen=clock(state.seen))
    return link_away(state.name, state.spec.host, link, again=again, seen=state.seen)


def clock(moment: str | None) -> str | None:
    """Return a time as this computer's clock shows it."""
    return datetime.fromisoformat(moment).astimezone().strftime("%H:%M:%S") if moment else None


def answer(head: bytes, facts: OutageFacts, waited: float | None = math.inf) -> bytes | None:
    """Answer a request for a server that is away.

    Args:
        head: the first bytes that the program sent since it was last answered.
        facts: what is known.
        waited: seconds for which its connection has waited for the host; None: the link was lost in the middle.

    Returns:
        A whole HTTP response after which the connection is to be closed, b"" if it is to be closed without one; None to
        let it wait: the request's head is not complete, or it is not HTTP, or it can be sent to the host later.
    """
    request = _REQUEST.match(head)
    if request is None or (b"\r\n\r\n" not in head and len(head) < _HEAD_LIMIT):
        return b"" if waited is None else None
    fields = _fields(head)
    # Any other Host may be a DNS rebinding attack: the response tells it nothing.
    local = _LOCAL.match(fields.get("host", "")) is not None
    navigation = request[1] == b"GET" and "text/html" in fields.get("accept", "") and "upgrade" not in fields
    if not local:
        return _response("application/json", json.dumps({"message": "the server is away"}))
    if navigation:
        return _response("text/html; charset=utf-8", _page(facts))
    if facts.silent:
        return None
    status = "503 Service Unavailable"
    if request[1] == b"GET" and ("sec-fetch-mode" in fields or "sec-websocket-key" in fields):
        path = request[2].decode("latin-1").partition("?")[0]
        if _ONE.search(path) and (waited is None or waited < PATIENCE):
            return None
        if _LIST.search(path):
            status = "504 Gateway Timeout"
    body = json.dumps({"message": f"{facts.title}: {facts.state}", "reason": "link"})
    return _response("application/json", body, status)


def _fields(head: bytes) -> dict[str, str]:
    found: dict[str, str] = {}
    for line in head.split(b"\r\n\r\n", 1)[0].decode("latin-1").split("\r\n")[1:]:
        name, colon, value = line.partition(":")
        if colon:
            found.setdefault(name.strip().lower(), value.strip().lower())
    return found


def _response(kind: str, body: str, status: str = "503 Service Unavailable") -> bytes:
    content = body.encode()
    lines = [
        f"HTTP/1.1 {status}",
        f"Content-Type: {kind}",
        f"Content-Length: {len(content)}",
        f"Retry-After: {RETRY}",
        "Cache-Control: no-store",
        "Connection: close",
        "Content-Security-Policy: default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'self'",
        "X-Content-Type-Options: nosniff",
        "Referrer-Policy: no-referrer",
    ]
    return "\r\n".join([*lines, "", ""]).encode() + content


def _page(facts: OutageFacts) -> str:
    rows = [("Host", facts.host), ("Since", facts.since), ("Server last seen alive", facts.seen)]
    rows.append(("Next attempt", facts.next_attempt))
    listed = "".join(f"<dt>{name}</dt><dd>{html.escape(value)}</dd>" for name, value in rows if value)
    advice = "This page reloads by itself. A lost link does not end kernels: there is no need to restart them."
    if facts.command is not None:
        advice = f"In a terminal: <code>{html.escape(facts.command)}</code>. This page reloads by itself."
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta http-equiv="refresh" content="{RETRY}">
<title>{html.escape(facts.title)}: waiting</title>
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 38em; margin: 15vh auto; padding: 0 1em }}
body {{ color: #222; background: #fff }}
dt {{ float: left; clear: left; width: 12em; color: #666 }} dd {{ margin-left: 12em }}
@media (prefers-color-scheme: dark) {{ body {{ color: #ddd; background: #1c1c1c }} dt {{ color: #999 }} }}
</style></head>
<body><h1>{html.escape(facts.title)}: {html.escape(facts.state)}</h1><dl>{listed}</dl><p>{advice}</p></body></html>
"""
