"""`open` and `url`: the address of a session; a browser gets it by a one-time code, never with the token on an argv."""

from __future__ import annotations

from jupyman import api, errors
from jupyman.api.results import Opened, SessionUrl
from jupyman.core.runtime.one_time_codes import OneTimeCodes
from jupyman.core.sessions.state import SessionState
from jupyman.core.verbs.host_call import VerbCall

# Seconds for which a wanted session is waited for that has not been looked up since the daemon's start.
SETTLE = 5.0


def url(request: api.Url, call: VerbCall) -> SessionUrl:
    """Return the session's address with its token.

    Raises:
        UnknownSession: no such session, or none was named and there is not exactly one.
        LinkLost: it is not forwarded now.
    """
    session = _forwarded(request.session, call)
    assert session.url is not None  # noqa: S101 - `_forwarded` saw it
    return SessionUrl(name=session.spec.name, url=session.url)


def open_(request: api.OpenCode, call: VerbCall, codes: OneTimeCodes) -> Opened:
    """Have the client open a browser on the session.

    Raises:
        UnknownSession, LinkLost: as for `url`.
    """
    session = _forwarded(request.session, call)
    send_browser(session.spec.name, call, codes)
    return Opened(name=session.spec.name)


def send_browser(session: str, call: VerbCall, codes: OneTimeCodes) -> None:
    """Have the client open an address that is good once, for a short time, and leads to the session."""
    call.operation.emit(api.OpenBrowser(url=f"/go?code={codes.issue(session)}"))


def _forwarded(name: str | None, call: VerbCall) -> SessionState:
    session = call.sessions.only(name)
    if session.spec.wanted:
        name = session.name
        call.sessions.wait(lambda: call.sessions.settled(name), SETTLE)
        session = call.sessions.get(name)
    if session.url is None:
        name = session.spec.name
        raise errors.LinkLost(f"session {name} is not forwarded now (state {session.state})", f"jupyman up {name}")
    return session
