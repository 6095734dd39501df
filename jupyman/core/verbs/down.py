"""`down`: stop forwarding sessions; their servers keep running, and their local ports stay bound."""

from __future__ import annotations

import msgspec

from jupyman import api, errors
from jupyman.api.results import Downed
from jupyman.core.sessions.registry import SessionRuntime
from jupyman.core.verbs.host_call import VerbCall


def down(request: api.Down, call: VerbCall) -> Downed:
    """Take each session down; all are tried.

    Returns:
        The sessions, and the first failure.

    Raises:
        UnknownSession: none of the sessions exists.
    """
    found: list[SessionRuntime] = []
    first: errors.JupymanError | None = None
    for name in request.sessions:
        try:
            found.append(call.sessions.runtime(name))
        except errors.UnknownSession as error:
            if len(request.sessions) > 1:  # a single one is what the error is about
                call.report(f"down {name}", error.message, "warn")
            first = first or error
    if first is not None and not found:
        raise first
    for session in found:
        call.sessions.take_down(session, release=request.release)
    call.sessions.save()
    for host in dict.fromkeys(session.current.spec.host for session in found):
        call.release_link(host)
    failed = first.info() if first is not None else msgspec.UNSET
    return Downed(sessions=[call.view(session.current) for session in found], error=failed)
