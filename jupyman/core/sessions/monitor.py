"""After a lost link, or the daemon's own loss: find the sessions again and say the truth about them."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from functools import partial

from jupyman import errors
from jupyman.api import ClientContext
from jupyman.core.links.hosts import Hosts
from jupyman.core.links.supervisor import Supervisor
from jupyman.core.runtime.per_host_pool import PerHostPool
from jupyman.core.runtime.scheduler import Scheduler
from jupyman.core.sessions import outage_page, restart_limit, token_exposure
from jupyman.core.sessions.registry import Live, SessionRegistry
from jupyman.host.servers import nohup
from jupyman.host.servers.listing import exposed_kernels
from jupyman.host.servers.liveness import judge
from jupyman.model import Problem, Running, TunnelSpec
from jupyman.ssh.link import Link

log = logging.getLogger(__name__)

# How often the servers of a host are looked at while its link is up, seconds: a server that died is noticed.
LOOK = 10.0
# What could not be restored is tried again after so many seconds, then after twice as many, at most LOOK.
AGAIN = 1.0
# Hosts that are looked at at the same time. A look ends after 30 s, whatever hangs on the host.
AT_ONCE = 16


class SessionMonitor:
    """Keeps what is known of the sessions true.

    Args:
        hosts: their links.
        sessions: the registry.
        restart: starts a session's server again, in a thread of its own; told why.
        ticker: has the servers looked at now and then.
    """

    def __init__(
        self, hosts: Hosts, sessions: SessionRegistry, restart: Callable[[Live, str], None], ticker: Scheduler
    ) -> None:
        self._hosts = hosts
        self._sessions = sessions
        self._restart = restart
        self._suspected = False
        self._client = ClientContext()
        self._patrol = PerHostPool(self._visit, AT_ONCE)
        self._ended = threading.Event()
        self._soon = ticker.every(LOOK, self._tour)

    def start(self, client: ClientContext) -> None:
        """Bind the listeners of all wanted sessions and forwards, and ask for their links.

        Requests are served meanwhile, and may change what is wanted. One session or host that cannot be had (its
        config.toml is being edited, no file or thread is left) holds up no other, and is tried again.

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
        """Restore what is wanted and not there yet; False where something is left to be tried again."""
        done = True
        hosts: dict[str, None] = {}
        for live in self._sessions.all():
            # Also of those that are down: nobody else may hear their open tabs.
            done &= _tried(f"session {live.spec.name}", partial(self._bind, live))
            if live.spec.wanted:
                hosts[live.spec.host] = None
            else:
                live.settled.set()
        for spec, listener in self._sessions.forwards():
            hosts[spec.host] = None
            if listener is None:
                done &= _tried(f"forward {spec.local_port} of {spec.host}", partial(self._bind_forward, spec))
        for host in hosts:
            done &= _tried(f"the link to {host}", partial(self._want, host))
        return done

    def fresh_client(self, client: ClientContext) -> None:
        """Use the newest way to log in; where it differs, waiting hosts try again at once."""
        key = (client.ssh_auth_sock, client.ssh_config)
        if key in {(None, None), (self._client.ssh_auth_sock, self._client.ssh_config)}:
            return
        self._client = client
        for host, supervisor in self._hosts.all().items():
            if supervisor.status.state == "reconnecting":
                found = self._hosts.supervisor(host, client)
                found.nudge(found.client)  # which config.toml has completed

    def on_up(self, supervisor: Supervisor) -> None:
        """A link came up: have each of its sessions looked at."""
        self._patrol.ask(supervisor.name)

    def look(self) -> None:
        """Look at the servers now instead of later; never waits."""
        self._suspected = True
        self._soon()

    def close(self) -> None:
        """End the watching."""
        self._ended.set()
        self._patrol.close()

    def _bind(self, live: Live) -> None:
        """Bind the session's local port before its link is there; connections wait."""
        with live.binding:
            self._bind_alone(live)

    def _bind_alone(self, live: Live) -> None:
        spec = live.spec
        released = spec.released and not spec.wanted
        if spec.local_port is None or live.listener is not None or released:
            return
        supervisor = self._hosts.supervisor(spec.host, self._client)
        try:
            # The target is corrected when the server is found.
            listener = supervisor.forwarder.listen(
                spec.local_port, ("127.0.0.1", spec.port or spec.local_port), strict=True, gate=live.passes
            )
        except errors.JupymanError as error:
            log.warning("session %s: %s", spec.name, error.message)
            problem = Problem(
                code="local-port",
                severity="warning",
                text=error.message,
                fix=f"free the port, then jupyman up {spec.name}",
            )
            who = token_exposure.stranger(spec.local_port, taken=True) if isinstance(error, errors.PortInUse) else None
            if who is not None:
                live.overheard(spec.local_port)
                self._sessions.save()  # it stays true when he has left, and for the daemon after this one
                problem = token_exposure.taken(spec.name, spec.local_port, who)
            live.port_problems = [problem]
            return
        live.take(listener, lambda: supervisor.status, self.look)
        listener.share = self._hosts.share(spec.host)

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
        if suspected:  # whoever suspects something in this moment is served by this very look
            self._suspected = False
        for supervisor in self._hosts.all().values():
            if supervisor.link is not None and not supervisor.silent and self._sessions.on(supervisor.name):
                self._patrol.ask(supervisor.name, again=suspected)

    def _visit(self, host: str) -> None:
        supervisor = self._hosts.known(host)
        link = supervisor.link if supervisor is not None else None
        if supervisor is None or link is None or supervisor.silent:
            return
        for live in self._sessions.on(supervisor.name):
            if live.state in {"starting", "exited"}:
                continue  # an `up` is under way, or only an `up` makes it run again
            try:
                self._session(supervisor, link, live)
            except errors.JupymanError as error:
                log.info("session %s could not be looked up: %s", live.spec.name, error.message)
            except Exception:
                log.exception("session %s could not be looked up", live.spec.name)

    def _session(self, supervisor: Supervisor, link: Link, live: Live) -> None:
        before = running = live.running
        if running is None:
            found = nohup.find(link)
            record = next((one for one in found.records if one.name == live.spec.name and one.alive), None)
            if record is None and live.spec.pid is not None:
                record = next((one for one in found.records if one.pid == live.spec.pid and one.alive), None)
            server = record or next((one for one in found.servers if one.pid == live.spec.pid), None)
            if server is None:
                # The record of the dead one says how it ended.
                server = next((one for one in found.records if one.name == live.spec.name), None)
            if server is None:
                gone = nohup.Liveness("exited", "no server of this session runs on the host any more")
                if (node := found.other_node(live.spec.name, live.spec.node)) is not None:
                    gone = judge("elsewhere", pid=live.spec.pid or 0, log=[], nodes=(node, found.node))
                if not overtaken(live, before):
                    self._absent(supervisor, live, gone)
                return
            running = live.known(nohup.adopt(link, server, record=False))
        liveness = nohup.verify(link, running)
        if overtaken(live, before):
            return
        if not liveness.ok:
            live.running = running
            self._absent(supervisor, live, liveness)
            return
        running = liveness.now(running)
        if live.sealed:
            try:
                running, alone = token_exposure.renew(link, self._sessions, live, running)
            except errors.JupymanError as error:
                live.port_problems = [token_exposure.unchanged(live.spec.name, error)]
                live.settled.set()
                raise
            now = live.running
            if live.state == "starting" or (now is not None and now.server.pid != running.server.pid):
                return
            held = [problem for problem in live.port_problems if problem.code != "token-seen"]
            if not alone:
                held.append(token_exposure.seen_for_good(live.spec.name))
            live.port_problems = held or [token_exposure.changed(None, None)]
        with self._sessions.lock:
            if live.listener is not None and running.endpoint is not None:
                live.listener.retarget(running.endpoint)
            live.proven(running, exposed_kernels(running.server.pid, seen=liveness.kernels_exposed))
            live.state = "running"
            live.note(running)
        if supervisor.link is not link:  # not inside: supervisors take their own lock first
            live.verified = False  # what was proven may be another machine by now: the next link is looked at anew
            return
        supervisor.forwarder.wake()
        live.settled.set()

    def _absent(self, supervisor: Supervisor, live: Live, seen: nohup.Liveness) -> None:
        """Note that the session has no server that may be used, and why; start another where the user asked for it."""
        log.info("session %s: %s", live.spec.name, seen.text)
        name = live.spec.name
        fix = f"jupyman up {name} starts it again; jupyman logs {name} shows its end"
        if seen.state == "elsewhere":
            fix = f"name that machine in ~/.ssh/config and use it instead of {live.spec.host}"
        elif not seen.dead:
            fix = f"jupyman check {live.spec.host} shows the port; jupyman kill {name} ends it"
        again = live.spec.restart == "always" and seen.dead and seen.stopped_by is None and live.spec.wanted
        limited = again and not restart_limit.allowed(live.restarts, time.monotonic())
        with self._sessions.lock:
            # Only proof of its end is an end: a process that runs is not to be replaced.
            live.state = "exited" if seen.dead else "lost"
            live.verified = False
            live.problems = [Problem(code=seen.code, severity="error", text=seen.text, fix=fix)]
            if limited:
                text = f"not restarted: it ended {restart_limit.LIMIT} times in {restart_limit.SPAN / 60:.0f} minutes"
                live.problems.append(Problem(code="restart-limit", severity="error", text=text, fix=fix))
        live.settled.set()
        if again and not limited:
            live.restarts.append(time.monotonic())
            self._restart(live, seen.text)
        else:
            supervisor.want(wanted=self._sessions.wanted(live.spec.host))


def _tried(what: str, work: Callable[[], None]) -> bool:
    """Do a part of the restoring; False where it broke, which the log tells."""
    try:
        work()
    except errors.JupymanError as error:
        log.warning("%s is not restored yet: %s", what, error.message)
        return False
    except Exception:  # no thread or file is left, perhaps: the rest is restored all the same
        log.exception("%s is not restored yet", what)
        return False
    return True


def overtaken(live: Live, before: Running | None) -> bool:
    """Whether an `up` began, or found another server, since we looked: what we saw is old then."""
    return live.state == "starting" or live.running is not before


def link_gone(sessions: SessionRegistry, host: str) -> None:
    """Note that a host's link went away: its sessions must be verified again before they carry connections."""
    for live in sessions.on(host):
        live.verified = False
        if live.down_since is None:
            live.down_since = time.monotonic()
