"""Replacing a token that another user of this computer may know because they had the port that an open tab uses.

A tab sends its token, or a cookie that is as good, to whatever listens on its port. That is the daemon while it runs,
and can be any user's program while it does not. The next daemon, or the next `up`, that finds the session's port in the
hands of another user has the server take a new token before any connection is carried to it.
"""

from __future__ import annotations

import logging
import sys

import msgspec

from jupyman import errors
from jupyman.api import Operation
from jupyman.core.runtime.progress import step
from jupyman.core.sessions.registry import SessionRegistry, SessionRuntime
from jupyman.core.sessions.state import TokenRenewed
from jupyman.host.servers.base import Launcher
from jupyman.local.peer import listener_uid
from jupyman.model import Problem, Running
from jupyman.paths import own_uid

log = logging.getLogger(__name__)


def other_user(port: int, *, taken: bool) -> str | None:
    """Describe the other user's program that has a local port of ours.

    Args:
        port: that an open tab may talk to.
        taken: it could not be bound a moment ago, so some program has or had it.

    Returns:
        A text for people; None if it is a program of this user, or none has the port. If its owner cannot be found (not
        Linux, or it has just left), it counts as another user's: a new token costs little.
    """
    uid = listener_uid(port)
    if uid is None:
        return "another program, perhaps another user's" if taken else None
    if uid == own_uid():
        return None
    return f"a program of {_user(uid)}"


def _user(uid: int) -> str:
    if sys.platform != "win32":
        import pwd

        try:
            return f"user {pwd.getpwuid(uid).pw_name} (uid {uid})"
        except KeyError:
            pass
    return f"uid {uid}"


def taken(name: str, port: int, who: str) -> Problem:
    """Return the problem of a session that is not forwarded because another user has its local port."""
    return Problem(
        code="local-port",
        severity="warning",
        text=f"local port {port} is held by {who}; an open tab may have sent this session's token there",
        fix=f"close tabs of 127.0.0.1:{port}; jupyman up {name} moves the session to another port, with a new token",
    )


def changed(port: int | None, who: str | None) -> Problem:
    """Return the problem that says that the token was changed, and why.

    Args:
        port: that the session had before; None: it still has it.
        who: holds that port now.
    """
    why = f"local port {port} is held by {who}" if port is not None else "another user had its local port"
    where = f"close tabs of 127.0.0.1:{port}" if port is not None else "open the URL of jupyman url in each open tab"
    return Problem(
        code="local-port",
        severity="info",
        text=f"{why}, so this session's token was changed: the old one is worthless",
        fix=where,
    )


def unchangeable(name: str) -> Problem:
    """Return the problem of a token that another user may know and the server cannot change."""
    return Problem(
        code="token-seen",
        severity="error",
        text="another user of this computer may know the token, and this server cannot change it while it runs "
        "(it was started by hand or by an older jupyman)",
        fix=f"save your work, jupyman kill {name}, then jupyman up again",
    )


def unchanged(name: str, error: errors.JupymanError) -> Problem:
    """Return the problem of a token that another user may know and that could not be changed; it is tried again."""
    return Problem(
        code="token-seen",
        severity="error",
        text=f"another user of this computer may know the token, and it could not be changed: {error.message}",
        fix=f"{error.hint}; it is tried again every few seconds, or jupyman kill {name}, then jupyman up again",
    )


def renew(
    launcher: Launcher, sessions: SessionRegistry, session: SessionRuntime, running: Running
) -> tuple[Running, bool]:
    """Replace the token of the session's server if another user may know it.

    Args:
        launcher: of the session.
        sessions: that are saved.
        session: its gate opens when this is done.
        running: its server.

    Returns:
        The server with the token that it has now, and whether no other user knows it. If the server cannot change it,
        the user must be told: `unchangeable`.

    Raises:
        ServerExited: it is gone.
        LinkLost, RemoteFailed, NotOurs: as `Launcher.renew`; the gate stays shut.
    """
    with session.renewing:
        current = session.current
        if not current.token_exposed:  # done in another thread a moment ago
            now = current.running
            known = now is not None and now.server.pid == running.server.pid and now.start_ticks == running.start_ticks
            return (now if known and now is not None else running), not current.spec.heard
        seen, token = launcher.renew(running)
        if not seen.ok:
            raise errors.ServerExited(f"the server is gone: {seen.text}")
        sessions.apply(session, TokenRenewed(running=running, token=token))
        if token is not None:
            log.info("session %s: another user may know its token, so it was changed", session.name)
            running = msgspec.structs.replace(running, token=token)
        else:
            log.warning("session %s: another user may know its token, and its server cannot change it", session.name)
    sessions.save()
    return running, token is not None


def renew_in_up(
    launcher: Launcher,
    sessions: SessionRegistry,
    session: SessionRuntime,
    running: Running,
    operation: Operation,
    *,
    port: int | None,
    user: str | None,
) -> tuple[Running, list[Problem]]:
    """Replace the token as a step of `up`; see `renew`.

    Args:
        launcher: as for `renew`.
        sessions: as for `renew`.
        session: as for `renew`.
        running: as for `renew`.
        operation: shows the step.
        port: that the session had before.
        user: who has that port now; None: no other user.

    Returns:
        The server with the token that it has now, and the problems of the port.

    Raises:
        As `renew`.
    """
    with step(operation, "token", "changing the token, which another user may know") as progress:
        running, secret = renew(launcher, sessions, session, running)
        if secret:
            problem = changed(port if user is not None else None, user)
            progress.warn("the token was changed: another user of this computer may know the one before")
        else:
            problem = unchangeable(session.name)
            progress.warn(problem.text)
    return running, [problem]
