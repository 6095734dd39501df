"""Finds the sessions again after their link or the daemon was lost, and keeps their states true.

Threads: `start` runs in one of its own; `_tour` in the scheduler's; the looks in those of the pool, one for each host.
A look reports what it saw as an event that says what it began with, so an `up` that began meanwhile is not disturbed.

Over 300 lines because restoring and looking work on the same sessions, for the same client.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Collection
from datetime import UTC, datetime
from functools import partial

from jupyman import errors
from jupyman.api import ClientContext
from jupyman.core.links.hosts import Hosts
from jupyman.core.links.supervisor import Supervisor
from jupyman.core.runtime.per_host_pool import PerHostPool
from jupyman.core.runtime.scheduler import Scheduler
from jupyman.core.sessions import outage_page, token_exposure
from jupyman.core.sessions.registry import SessionRegistry, SessionRuntime, shut
from jupyman.core.sessions.state import (
    Absent,
    NotUsable,
    PortExposed,
    PortProblems,
    Proven,
    SessionState,
    Settled,
    overtaken,
)
from jupyman.host.servers.base import Found, Launcher, Liveness, Record, UnmanagedServer
from jupyman.host.servers.listing import exposed_kernels
from jupyman.host.servers.liveness import judge
from jupyman.model import Problem, Running, SessionSpec, TunnelSpec
from jupyman.model.endpoint import Endpoint
from jupyman.ssh.link import Link

log = logging.getLogger(__name__)

# How often the servers of a host are looked at while its link is up, seconds.
LOOK = 10.0
# What could not be restored is tried again after so many seconds, then after twice as many, at most LOOK.
AGAIN = 1.0
# Hosts that are looked at at the same time. A look ends after 30 s, whatever hangs on the host.
AT_ONCE = 16


def now() -> str:
    """Return the time as RFC 3339 UTC."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class SessionMonitor:
    """Looks at the servers: after a link came up, periodically, and when one is suspected.

    Args:
        hosts: their links.
        sessions: the registry.
        restart: starts a session's server again, in a thread of its own; gets the reason.
        scheduler: calls the periodic looks.
    """

    def __init__(
        self,
        hosts: Hosts,
        sessions: SessionRegistry,
        restart: Callable[[SessionRuntime, str], None],
        scheduler: Scheduler,
    ) -> None:
        self._hosts = hosts
        self._sessions = sessions
        self._restart = restart
        self._suspected = False
        self._client = ClientContext()
        self._pool = PerHostPool(self._look_at, AT_ONCE)
        self._ended = threading.Event()
        self._soon = scheduler.every(LOOK, self._tour)

    def start(self, client: ClientContext) -> None:
        """Bind the listeners of all sessions and forwards, and want their links.

        Requests are served meanwhile, and may change what is wanted. A session or host that cannot be restored
        (config.toml is being edited, no file or thread is left) delays no other, and is tried again.

        Args:
            client: how to log in.

        Returns:
            When everything was restored, or on `close`.
        """
        self._client = client
        wait = AGAIN
        while not self._restore() and not self._ended.wait(wait):
            wait = min(2 * wait, LOOK)

    def _restore(self) -> bool:
        """Restore what is wanted and not there yet; False if something is left to be tried again."""
        done = True
        hosts: dict[str, None] = {}
        for session in self._sessions.runtimes():
            # Also of those that are down: no other user may get the port that their open tabs talk to.
            done &= _tried(f"session {session.name}", partial(self._bind, session))
            if session.current.spec.wanted:
                hosts[session.current.spec.host] = None
            else:
                self._sessions.apply(session, Settled())
        for spec, listener in self._sessions.forwards():
            hosts[spec.host] = None
            if listener is None:
                done &= _tried(f"forward {spec.local_port} of {spec.host}", partial(self._bind_forward, spec))
        for host in hosts:
            done &= _tried(f"the link to {host}", partial(self._want, host))
        return done

    def fresh_client(self, client: ClientContext) -> None:
        """Use the newest way to log in; if it differs, waiting hosts try again at once."""
        key = (client.ssh_auth_sock, client.ssh_config)
        if key in {(None, None), (self._client.ssh_auth_sock, self._client.ssh_config)}:
            return
        self._client = client
        for host, supervisor in self._hosts.all().items():
            if supervisor.status.state == "reconnecting":
                found = self._hosts.supervisor(host, client)
                found.nudge(found.client)  # completed from config.toml

    def on_up(self, supervisor: Supervisor) -> None:
        """Request a look at each session of a host; its link came up. Never waits."""
        self._pool.ask(supervisor.name)

    def look(self) -> None:
        """Look at the servers now instead of later; never waits."""
        self._suspected = True
        self._soon()

    def close(self) -> None:
        """Begin no further look."""
        self._ended.set()
        self._pool.close()

    def _bind(self, session: SessionRuntime) -> None:
        """Bind the session's local port before its link is there; connections wait."""
        with session.binding:
            spec = session.current.spec
            released = spec.released and not spec.wanted
            if spec.local_port is not None and session.listener is None and not released:
                self._bind_port(session, spec.local_port)

    def _bind_port(self, session: SessionRuntime, port: int) -> None:
        spec = session.current.spec
        supervisor = self._hosts.supervisor(spec.host, self._client)
        try:
            # The target is corrected when the server is found.
            listener = supervisor.forwarder.listen(
                port, Endpoint(None, spec.port or port).target, strict=True, gate=shut
            )
        except errors.JupymanError as error:
            log.warning("session %s: %s", spec.name, error.message)
            problem = Problem(
                code="local-port",
                severity="warning",
                text=error.message,
                fix=f"free the port, then jupyman up {spec.name}",
            )
            user = token_exposure.other_user(port, taken=True) if isinstance(error, errors.PortInUse) else None
            if user is not None:
                self._sessions.apply(session, PortExposed(port=port))
                self._sessions.save()  # it stays true when that user has left, and for the daemon after this one
                problem = token_exposure.taken(spec.name, port, user)
            self._sessions.apply(session, PortProblems(problems=(problem,)))
            return
        listener.share = self._hosts.share(spec.host)
        bound = self._sessions.bind(
            session, listener, instead_of=None, status=lambda: supervisor.status, suspect=self.look
        )
        if not bound:  # killed meanwhile
            listener.close()

    def _bind_forward(self, spec: TunnelSpec) -> None:
        supervisor = self._hosts.supervisor(spec.host, self._client)
        try:
            bound = supervisor.forwarder.listen(spec.local_port, (spec.address, spec.port), strict=True)
        except errors.PortInUse as error:
            log.warning("forward %s of %s: %s", spec.local_port, spec.host, error.message)
            return
        bound.respond = outage_page.for_forward(spec, lambda: supervisor.status)
        bound.share = spec.share
        if not self._sessions.bind_forward(spec, bound):  # closed meanwhile, or opened by a request
            bound.close()

    def _want(self, host: str) -> None:
        self._hosts.supervisor(host, self._client).want(wanted=self._sessions.wanted(host))

    def _tour(self) -> None:
        self._hosts.refresh()
        suspected = self._suspected
        if suspected:  # cleared first: a suspicion that comes now leads to another look
            self._suspected = False
        for supervisor in self._hosts.all().values():
            if supervisor.link is not None and not supervisor.silent and self._sessions.on(supervisor.name):
                self._pool.ask(supervisor.name, again=suspected)

    def _look_at(self, host: str) -> None:
        supervisor = self._hosts.known(host)
        link = supervisor.link if supervisor is not None else None
        if supervisor is None or link is None or supervisor.silent:
            return
        for session in self._sessions.runtimes(host):
            if session.current.state in {"starting", "exited"}:
                continue  # an `up` is under way, or only an `up` makes it run again
            try:
                self._look_at_session(supervisor, link, session)
            except errors.JupymanError as error:
                log.info("session %s could not be looked at: %s", session.name, error.message)
            except Exception:
                log.exception("session %s could not be looked at", session.name)

    def _look_at_session(self, supervisor: Supervisor, link: Link, session: SessionRuntime) -> None:
        launcher = self._hosts.launcher(supervisor.name)(link)
        before = running = session.current.running
        if running is None:
            found = _find(launcher, session.current)
            if isinstance(found, Liveness):
                self._absent(supervisor, session, found, running=None, before=before)
                return
            running = found
        liveness = launcher.verify(running)
        if overtaken(session.current, before):
            return
        if not liveness.ok:
            self._absent(supervisor, session, liveness, running=running, before=before)
            return
        running = liveness.now(running)
        if session.current.token_exposed:
            running = self._renew_token(launcher, session, running)
            before = session.current.running
            if before is not None and before.server.pid != running.server.pid:
                return
        exposed = exposed_kernels(running.server.pid, seen=liveness.kernels_exposed)
        event = Proven(running=running, over=link, at=now(), exposed=tuple(exposed), before=before)
        if "wake" in self._sessions.found(session, event).effects:
            supervisor.forwarder.wake()

    def _renew_token(self, launcher: Launcher, session: SessionRuntime, running: Running) -> Running:
        """Have the token changed, which another user may know; return the server with the one that it has now."""
        try:
            running, secret = token_exposure.renew(launcher, self._sessions, session, running)
        except errors.JupymanError as error:
            problem = token_exposure.unchanged(session.name, error)
            self._sessions.apply(session, PortProblems(problems=(problem,)))
            self._sessions.apply(session, Settled())
            raise
        current = session.current
        if current.state != "starting":
            problems = [problem for problem in current.port_problems if problem.code != "token-seen"]
            if not secret:
                problems.append(token_exposure.unchangeable(session.name))
            problems = problems or [token_exposure.changed(None, None)]
            self._sessions.apply(session, PortProblems(problems=tuple(problems)))
        return running

    def _absent(
        self,
        supervisor: Supervisor,
        session: SessionRuntime,
        seen: Liveness,
        *,
        running: Running | None,
        before: Running | None,
    ) -> None:
        """Note that the session has no server that may be used; start another if the user asked for it."""
        event: Absent | NotUsable
        problem = trouble(session.current, seen)
        if seen.dead:
            restartable = seen.stopped_by is None
            event = Absent(
                problem=problem, running=running, at=time.monotonic(), restartable=restartable, before=before
            )
        else:
            event = NotUsable(problem=problem, running=running, before=before)
        effects = self._sessions.apply(session, event).effects
        if effects:
            log.info("session %s: %s", session.name, seen.text)
        if "restart" in effects:
            self._restart(session, seen.text)
        elif "release" in effects:
            supervisor.want(wanted=self._sessions.wanted(supervisor.name))


def trouble(state: SessionState, seen: Liveness) -> Problem:
    """Return the problem of a server that cannot be used.

    Args:
        state: of its session.
        seen: of the server.
    """
    name, host = state.name, state.spec.host
    fix = f"jupyman up {name} starts it again; jupyman logs {name} shows its end"
    if seen.state == "elsewhere":
        fix = f"name that machine in ~/.ssh/config and use it instead of {host}"
    elif not seen.dead:
        fix = f"jupyman check {host} shows the port; jupyman kill {name} ends it"
    return Problem(code=seen.code, severity="error", text=seen.text, fix=fix)


def own_server(found: Found, spec: SessionSpec, taken: Collection[int] = ()) -> Record | UnmanagedServer | None:
    """Return a session's server, dead or alive: the one of its name, or the one that it had adopted.

    Args:
        found: on its host.
        spec: of the session.
        taken: the pids of servers that other sessions have.
    """
    alive = [one for one in found.records if one.alive]
    candidates: list[Record | UnmanagedServer] = [
        *(one for one in alive if one.name == spec.name),
        *(one for one in alive if one.pid == spec.pid),
        *(one for one in found.servers if one.pid == spec.pid),
        *(one for one in found.records if one.name == spec.name),  # the record of a dead one shows how it ended
    ]
    return next((one for one in candidates if one.pid not in taken), None)


def _find(launcher: Launcher, state: SessionState) -> Running | Liveness:
    """Find a session's server on its host: dead or alive, or what is known of its absence."""
    spec = state.spec
    found = launcher.find()
    if (server := own_server(found, spec)) is not None:
        return state.recognised(launcher.adopt(server, record=False))
    if (node := found.other_node(spec.name, spec.node)) is not None:
        return judge("elsewhere", pid=spec.pid or 0, log=[], nodes=(node, found.node))
    return Liveness("exited", "no server of this session runs on the host any more")


def _tried(what: str, work: Callable[[], None]) -> bool:
    """Restore one part; False if that failed, which is logged."""
    try:
        work()
    except errors.JupymanError as error:
        log.warning("%s is not restored yet: %s", what, error.message)
        return False
    except Exception:  # no thread or file is left, perhaps: the rest is restored anyway
        log.exception("%s is not restored yet", what)
        return False
    return True
