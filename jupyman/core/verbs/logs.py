"""`logs`: lines of a session's server log."""

from __future__ import annotations

from jupyman import api
from jupyman.api.results import SessionName
from jupyman.core.verbs.host_call import VerbCall


def logs(request: api.Logs, call: VerbCall) -> SessionName:
    """Send the server's log as `Output` events.

    Raises:
        UnknownSession: no such session, or none was named and there is not exactly one.
        RemoteFailed: there is no log.
        LinkLost: the connection ended.
    """
    session = call.sessions.only(request.session)
    call.on(session.spec.host).launcher.logs(
        session.spec.name,
        session.running.directory if session.running is not None else None,
        lines=request.lines,
        follow=request.follow,
        on_line=call.output,
        cancelled=call.cancelled,
    )
    return SessionName(name=session.spec.name)
