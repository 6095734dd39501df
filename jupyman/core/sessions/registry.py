"""The sessions and forwards of this computer: what is wanted (on disk), what is known (in memory).

A session's state is immutable (state.py). `apply` is the one way to another state: under `lock`, one event after the
other. Whoever reads a state has a whole one, as of that moment.

Threads: requests, the monitor, the looks at hosts, supervisors and the forwarders' loop call this at any moment.
Locks: `lock` guards the states, the listeners and the dictionaries; nobody waits for the network, the disk or a
supervisor while holding it. `_saving` is held while the file is written, and taken before `lock`. Of a session,
`binding` is held while its local port is bound and `renewing` while its token is changed; both are taken before `lock`,
and nobody takes one while holding the other. A supervisor's lock may be held when `lock` is taken, never the other way
round.
Writers: `SessionRuntime.current` and `.listener` are assigned here alone, under `lock`; the dictionaries are used here
alone. A test walks the source for it.

Over 300 lines because the sessions and the forwards are saved, and counted for their host's link, together.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec

from jupyman import errors
from jupyman.core.sessions import outage_page, state, views
from jupyman.core.sessions.state import Proven, SessionEvent, SessionState, Transition
from jupyman.core.sessions.store import Store
from jupyman.model import HostForward, LinkStatus, Problem, Session, SessionSpec, TunnelSpec
from jupyman.model.endpoint import Target
from jupyman.ssh.forward.engine import BoundForward

if TYPE_CHECKING:
    from jupyman.core.links.hosts import Hosts

log = logging.getLogger(__name__)


def shut() -> bool:
    """Be the gate of a listener that is not the session's yet."""
    return False


def _pid(one: SessionState) -> int | None:
    return one.running.server.pid if one.running is not None else None


class SessionRuntime:
    """One session in the registry: its state, and the handles that are no state. Made by the registry.

    Attributes:
        current: its state as of now.
        listener: its local port, if that is bound.
        binding: held while its local port is bound.
        renewing: held while its token is changed.
    """

    def __init__(self, current: SessionState) -> None:
        self.current = current
        self.listener: BoundForward | None = None
        self.binding = threading.Lock()
        self.renewing = threading.Lock()

    @property
    def name(self) -> str:
        """The session's name."""
        return self.current.name

    def passes(self) -> bool:
        """Whether its gate is open: connections go to the server."""
        return self.current.passes


class SessionRegistry:
    """The registry.

    Args:
        store: what is on disk.

    Attributes:
        lock: see above.
        unsaved: why the file could not be written, if it could not.
        on_session: called with the name of a session that was changed, entered or removed; must not wait.
        on_forward: called with the host and the local port of a forward, likewise.
    """

    def __init__(self, store: Store) -> None:
        self.store = store
        self.lock = threading.RLock()
        self.unsaved: Problem | None = None
        self.on_session: Callable[[str], None] | None = None
        self.on_forward: Callable[[str, int], None] | None = None
        self._changed = threading.Condition(self.lock)
        self._saving = threading.Lock()
        self._links: dict[str, object] = {}  # those that are up, by host
        self._sessions = {name: SessionRuntime(state.restored(spec)) for name, spec in store.state.sessions.items()}
        self._tunnels: dict[tuple[str, int], tuple[TunnelSpec, BoundForward | None]] = {
            (spec.host, spec.local_port): (spec, None) for spec in store.state.tunnels
        }

    # --- sessions -------------------------------------------------------------------------------------------------

    def get(self, name: str) -> SessionState:
        """Return a session's state.

        Raises:
            UnknownSession: there is none of that name.
        """
        return self.runtime(name).current

    def runtime(self, name: str) -> SessionRuntime:
        """Return a session.

        Raises:
            UnknownSession: there is none of that name.
        """
        with self.lock:
            found, names = self._sessions.get(name), sorted(self._sessions)
        if found is None:
            known = ", ".join(names) or "none"
            raise errors.UnknownSession(f"no session is called {name!r}", f"sessions here: {known}; see jupyman ps")
        return found

    def find(self, name: str) -> SessionState | None:
        """Return a session's state, None if there is none of that name."""
        with self.lock:
            found = self._sessions.get(name)
        return found.current if found is not None else None

    def all(self) -> list[SessionState]:
        """Return the state of every session."""
        return [session.current for session in self.runtimes()]

    def runtimes(self, host: str | None = None) -> list[SessionRuntime]:
        """Return the sessions of a host; None: every session."""
        with self.lock:
            return [one for one in self._sessions.values() if host is None or one.current.spec.host == host]

    def enter(self, spec: SessionSpec) -> tuple[SessionRuntime, bool]:
        """Return the session of that name, and whether it was made of `spec` just now."""
        with self.lock:
            found = self._sessions.get(spec.name)
            if found is not None:
                return found, False
            made = self._sessions[spec.name] = SessionRuntime(state.entered(spec, self._links.get(spec.host)))
            self._note_session(spec.name)
            return made, True

    def only(self, name: str | None) -> SessionState:
        """Return the session of that name, or the only one if none is named.

        Raises:
            UnknownSession: no such session, or none was named and there is not just one.
        """
        if name is not None:
            return self.get(name)
        sessions = self.all()
        if len(sessions) == 1:
            return sessions[0]
        names = ", ".join(sorted(one.name for one in sessions)) or "none"
        raise errors.UnknownSession("which session?", f"sessions here: {names}")

    def on(self, host: str) -> list[SessionState]:
        """Return the states of a host's sessions."""
        return [session.current for session in self.runtimes(host)]

    def hosts(self) -> list[str]:
        """Return the hosts of all sessions and forwards; one may come several times."""
        with self.lock:
            return [*(one.spec.host for one in self.all()), *(host for host, _ in self._tunnels)]

    def busy(self) -> list[str]:
        """Return the hosts of the sessions that run."""
        return [one.spec.host for one in self.all() if one.state == "running"]

    def wanted(self, host: str) -> bool:
        """Tell whether a session or a forward wants the host's link."""
        with self.lock:
            return any(one.wants_link for one in self.on(host)) or any(key[0] == host for key in self._tunnels)

    # --- changes --------------------------------------------------------------------------------------------------

    def apply(self, session: SessionRuntime, event: SessionEvent) -> Transition:
        """Apply an event to a session; whoever waits is notified.

        Args:
            session: one that is killed meanwhile ignores it.
            event: what happened.

        Returns:
            The state as it is now, and what the caller must do, without `lock`.
        """
        with self.lock:
            before = session.current
            transition = state.step(before, event)
            if transition.state is not before:
                session.current = transition.state
                self._note_session(session.name)
            return transition

    def wait(self, condition: Callable[[], bool], timeout: float) -> bool:
        """Wait until something is so; it is asked again after each change, under `lock`.

        Args:
            condition: asked; must not wait.
            timeout: seconds.

        Returns:
            Whether it is so now.
        """
        with self._changed:
            return self._changed.wait_for(condition, max(0.0, timeout))

    def settled(self, name: str | None = None) -> bool:
        """Tell whether a session was looked up since the daemon's start, or need not be; None: all of them."""
        return all(one.settled or one.state == "starting" for one in self.all() if name is None or one.name == name)

    def link_up(self, host: str, link: object) -> None:
        """Note a host's link that came up; must be called before anything is proven over it."""
        with self.lock:
            self._links[host] = link
            for session in self.runtimes(host):
                self.apply(session, state.LinkUp(link=link))

    def link_lost(self, host: str) -> None:
        """Note that a host's link went away: its sessions must be proven anew before they carry connections."""
        with self.lock:
            self._links.pop(host, None)
            for session in self.runtimes(host):
                self.apply(session, state.LinkLost(at=time.monotonic()))

    def found(self, session: SessionRuntime, event: Proven) -> Transition:
        """Apply what a look has proven; the session's port leads to that server before its gate opens."""
        with self.lock:
            endpoint = event.running.endpoint
            current = session.current
            fresh = event.before is msgspec.UNSET or not state.overtaken(current, event.before)
            if session.listener is not None and endpoint is not None and fresh and not current.killed:
                session.listener.retarget(endpoint.target)
            return self.apply(session, event)

    def doubt(self, host: str, pid: int) -> bool:
        """Close the gate of the session whose server is about to be ended by us; tell whether there is one."""
        with self.lock:
            theirs = [one for one in self.runtimes(host) if _pid(one.current) == pid]
            for session in theirs:
                self.apply(session, state.Doubted())
        return bool(theirs)

    def taken(self, one: SessionState) -> set[int]:
        """Return the pids of the servers that the other sessions of a session's host have."""
        pids = (_pid(other) for other in self.on(one.spec.host) if other.name != one.name)
        return {pid for pid in pids if pid is not None}

    def _note_session(self, name: str) -> None:
        self._changed.notify_all()
        if self.on_session is not None:
            self.on_session(name)

    def _note_forward(self, host: str, local_port: int) -> None:
        self._changed.notify_all()
        if self.on_forward is not None:
            self.on_forward(host, local_port)

    # --- local ports ----------------------------------------------------------------------------------------------

    def bind(
        self,
        session: SessionRuntime,
        listener: BoundForward,
        *,
        instead_of: BoundForward | None,
        status: Callable[[], LinkStatus],
        suspect: Callable[[], None],
    ) -> bool:
        """Give a session its local port; connections wait until its gate is open, and browsers get our page meanwhile.

        Args:
            session: whose port it becomes.
            listener: bound, with `shut` as its gate.
            instead_of: the listener that it replaces, which stays open.
            status: of the host's link.
            suspect: called if the host refuses a connection, so that the server is looked at; must not wait.

        Returns:
            False if the session was killed, or has another listener, meanwhile.
        """

        def refused() -> None:
            self.apply(session, state.Refused())
            suspect()

        def passes() -> bool:
            return session.listener is listener and session.passes()

        listener.gate = passes
        listener.respond = outage_page.for_session(lambda: session.current, status)
        listener.on_refused = refused
        return self.replace_listener(session, instead_of, listener)

    def replace_listener(
        self, session: SessionRuntime, before: BoundForward | None, after: BoundForward | None
    ) -> bool:
        """Give a session another listener, or none; both stay as they are, open or closed.

        Args:
            session: whose port it becomes.
            before: its listener until now.
            after: leads to the session's server from now on, if that is known.

        Returns:
            False if `before` is not its listener, or it was killed.
        """
        with self.lock:
            if session.listener is not before or session.current.killed:
                return False
            endpoint = session.current.running.endpoint if session.current.running is not None else None
            if after is not None and endpoint is not None:
                after.retarget(endpoint.target)
            session.listener = after
            self.apply(session, state.Bound(port=after.local_port if after is not None else None))
            return True

    def lead(self, session: SessionRuntime, target: Target) -> None:
        """Lead a session's port to a server; if that is not where it leads now, it has to be proven first."""
        with self.lock:
            listener = session.listener
            if listener is not None and listener.target != target:
                self.apply(session, state.Doubted())
                listener.retarget(target)

    def take_down(self, session: SessionRuntime, *, release: bool) -> None:
        """Take a session down: its port stays bound and leads nowhere.

        Args:
            session: it is kept, and its server runs on.
            release: the port is given up, too.
        """
        with session.binding, self.lock:
            self.apply(session, state.Down(release=release))
            listener = session.listener
            if release:
                session.listener = None
        if listener is not None and release:
            listener.close()
        elif listener is not None:
            listener.detach()

    def remove(self, session: SessionRuntime) -> None:
        """Forget a session and close its listener."""
        with self.lock:
            if self._sessions.get(session.name) is session:
                del self._sessions[session.name]
            self.apply(session, state.Killed())
            listener, session.listener = session.listener, None
        if listener is not None:
            listener.close()
        self.save()

    # --- forwards that belong to no session -----------------------------------------------------------------------

    def forwards(self, host: str | None = None) -> list[tuple[TunnelSpec, BoundForward | None]]:
        """Return the forwards of a host that belong to no session, as of now; None: those of every host."""
        with self.lock:
            return [entry for key, entry in self._tunnels.items() if host is None or key[0] == host]

    def keep_forward(self, spec: TunnelSpec, listener: BoundForward | None) -> None:
        """Note a forward; it replaces the one that has its local port."""
        with self.lock:
            self._tunnels[spec.host, spec.local_port] = (spec, listener)
            self._note_forward(spec.host, spec.local_port)

    def bind_forward(self, spec: TunnelSpec, listener: BoundForward) -> bool:
        """Give a forward its listener; False if it was closed, or got another listener, meanwhile."""
        with self.lock:
            if self._tunnels.get((spec.host, spec.local_port)) != (spec, None):
                return False
            self.keep_forward(spec, listener)
            return True

    def share_forward(self, spec: TunnelSpec, *, share: bool) -> None:
        """Open a forward to the other users of this computer, or close it to them; nothing if it is gone meanwhile."""
        with self.lock:
            kept, listener = self._tunnels.get((spec.host, spec.local_port), (None, None))
            if kept is None:
                return
            if listener is not None:
                listener.share = share
            self.keep_forward(msgspec.structs.replace(kept, share=share), listener)

    def drop_forward(self, host: str, local_port: int) -> BoundForward | None:
        """Forget a forward; return its listener, which is still open."""
        with self.lock:
            _, listener = self._tunnels.pop((host, local_port), (None, None))
            self._note_forward(host, local_port)
        return listener

    # --- what is shown and saved ----------------------------------------------------------------------------------

    def view(self, one: SessionState, link: LinkStatus) -> Session:
        """Return a session as `ps` prints it.

        Args:
            one: its state.
            link: the status of its host's link.
        """
        with self.lock:
            found = self._sessions.get(one.name)
            listener = found.listener if found is not None else None
            current = found.current if found is not None else one
        shown = views.session(current, listener, link)
        if self.unsaved is None:
            return shown
        return msgspec.structs.replace(shown, problems=[*shown.problems, self.unsaved])

    def tunnel_views(self, hosts: Hosts, host: str | None = None) -> list[HostForward]:
        """Return the forwards that belong to no session.

        Args:
            hosts: to know which are carried.
            host: only those of this one; None: all.
        """
        found = []
        for spec, listener in self.forwards(host):
            supervisor = hosts.known(spec.host)
            found.append(views.host_forward(spec, listener, supervisor.status if supervisor is not None else None))
        return found

    def remember_environments(self, host: str, names: list[str]) -> None:
        """Keep the names of a host's environments for shell completion."""
        with self.lock:
            known = self.store.state.environments
            if known.get(host) == names:
                return
            self.store.state.environments = {**known, host: names}
        self.save()

    def save(self) -> None:
        """Write what is wanted to disk; if that fails the sessions go on, and `unsaved` says why."""
        with self._saving:
            with self.lock:
                self.store.state.sessions = {name: one.current.spec for name, one in self._sessions.items()}
                self.store.state.tunnels = [spec for spec, _ in self._tunnels.values()]
            try:
                self.store.save()
            except OSError as error:
                log.warning("the state could not be written: %s", error)
                self.unsaved = Problem(
                    code="state-unsaved",
                    severity="warning",
                    text=f"the list of sessions cannot be written to {self.store.path} ({error.strerror or error})",
                    fix="free some space on this computer; until then do not stop the daemon",
                )
            else:
                self.unsaved = None
