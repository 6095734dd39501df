"""Where another user of this computer may know a session's token, because he had the port that an open tab talks to.

A tab sends its token, or a cookie that is as good, to whoever listens on its port. That is the daemon while it lives,
and can be any user while it does not. The next daemon, or the next `up`, that finds the session's port in the hands of
another user has the server take a new token before anybody gets through to it.
"""

from __future__ import annotations

import logging
import sys

import msgspec

from jupyman import errors
from jupyman.api import Operation
from jupyman.core.runtime.progress import step
from jupyman.core.sessions.registry import Live, SessionRegistry
from jupyman.host.servers import token_renewal
from jupyman.host.shell.script import Shell
from jupyman.local.peer import listener_uid
from jupyman.model import Problem, Running
from jupyman.paths import own_uid

log = logging.getLogger(__name__)


def stranger(port: int, *, taken: bool) -> str | None:
    """Say who has a local port of ours, where that is another user.

    Args:
        port: that an open tab may talk to.
        taken: it could not be bound a moment ago, so somebody has or had it.

    Returns:
        For people; None where it is a program of this user, or nobody has the port. Where nobody can say who took it
        (not Linux, or he has just left), it counts as another user's: a new token costs little.
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
    """Say that a session is not forwarded, because its local port is another user's."""
    return Problem(
        code="local-port",
        severity="warning",
        text=f"local port {port} is held by {who}, which an open tab may have told this session's token",
        fix=f"close tabs of 127.0.0.1:{port}; jupyman up {name} moves the session to another port, with a new token",
    )


def changed(port: int | None, who: str | None) -> Problem:
    """Say that the token was changed, and why.

    Args:
        port: that the session had before; None: it has it.
        who: holds that port now.
    """
    why = f"local port {port} is held by {who}" if port is not None else "another user had its local port"
    where = f"close tabs of 127.0.0.1:{port}" if port is not None else "load open tabs anew, from jupyman url"
    return Problem(
        code="local-port",
        severity="info",
        text=f"{why}, so this session's token was changed: what was heard there opens nothing",
        fix=where,
    )


def seen_for_good(name: str) -> Problem:
    """Say that the token may be known, and cannot be changed."""
    return Problem(
        code="token-seen",
        severity="error",
        text="another user of this computer may know the token, and this server cannot change it while it runs "
        "(it was started by hand or by an older jupyman)",
        fix=f"save your work, jupyman kill {name}, then jupyman up again",
    )


def unchanged(name: str, error: errors.JupymanError) -> Problem:
    """Say that the token may be known, and could not be changed this time; it is tried again."""
    return Problem(
        code="token-seen",
        severity="error",
        text=f"another user of this computer may know the token, and it could not be changed: {error.message}",
        fix=f"{error.hint}; it is tried again every few seconds, or jupyman kill {name}, then jupyman up again",
    )


def renew(shell: Shell, sessions: SessionRegistry, live: Live, running: Running) -> tuple[Running, bool]:
    """Have the session's server take a new token, where another user may know the one that it has.

    Args:
        shell: its host.
        sessions: that are saved.
        live: the session; its gate opens when this is done.
        running: its server.

    Returns:
        The server with the token that it has now; and whether nobody else knows it. When the server cannot change it,
        the user must be told: `seen_for_good`.

    Raises:
        ServerExited: it is gone.
        LinkLost, RemoteFailed, NotOurs: as `renewal.renew`; the gate stays shut.
    """
    with live.renewing:
        if not live.sealed:  # done in another thread a moment ago
            now = live.running
            known = now is not None and now.server.pid == running.server.pid and now.start_ticks == running.start_ticks
            return (now if known and now is not None else running), not live.spec.heard
        seen, token = token_renewal.renew(shell, running)
        if not seen.ok:
            raise errors.ServerExited(f"the server is gone: {seen.text}")
        if token is not None:
            log.info("session %s: another user may know its token, so it was changed", live.spec.name)
            running = msgspec.structs.replace(running, token=token)
            with sessions.lock:
                live.spec = msgspec.structs.replace(live.spec, heard=False)
                if live.running is not None and live.running.server.pid == running.server.pid:
                    live.running = msgspec.structs.replace(live.running, token=token)
        else:
            log.warning("session %s: another user may know its token, and its server cannot change it", live.spec.name)
        live.sealed = False
    sessions.save()
    return running, token is not None


def mend(
    shell: Shell,
    sessions: SessionRegistry,
    live: Live,
    running: Running,
    operation: Operation,
    *,
    port: int | None,
    stranger: str | None,
) -> tuple[Running, list[Problem]]:
    """Do so in an `up`, as one of its steps.

    Args:
        shell: as for `renew`.
        sessions: as for `renew`.
        live: as for `renew`.
        running: as for `renew`.
        operation: whom to show it.
        port: that the session had before.
        stranger: who has that port now; None: nobody, or the session has it again.

    Returns:
        The server with the token that it has now, and what is to be said.

    Raises:
        As `renew`.
    """
    with step(operation, "token", "changing the token, which another user may know") as progress:
        running, alone = renew(shell, sessions, live, running)
        if alone:
            problem = changed(port if stranger is not None else None, stranger)
            progress.warn("the token was changed: another user of this computer may know the one before")
        else:
            problem = seen_for_good(live.spec.name)
            progress.warn(problem.text)
    return running, [problem]
