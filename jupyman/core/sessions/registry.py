"""The sessions of this computer: what is wanted (on disk), what is known (in memory), and how it is shown."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import msgspec

from jupyman import errors
from jupyman.core.sessions import outage_page
from jupyman.core.sessions.forward_view import crowded, forward, host_forward, strangers
from jupyman.core.sessions.store import Store
from jupyman.host.servers.liveness import ENDS
from jupyman.model import (
    GpuUse,
    HostForward,
    LinkStatus,
    Problem,
    Running,
    ServerState,
    Session,
    SessionSpec,
    TunnelSpec,
)
from jupyman.ssh.forward.engine import BoundForward

if TYPE_CHECKING:
    from jupyman.core.links.hosts import Hosts

log = logging.getLogger(__name__)

# A session whose link has been away for this long is `lost`: nobody knows any more whether its server lives.
LOST_AFTER = 5.0
# The same for a host that is silent, counted from its last sign of life, which is some seconds before that is noticed.
SILENT_AFTER = 10.0


@dataclass
class Live:
    """One session: the wish, and what is known of its server.

    Connections through its listener go to the server only while it is `verified`, and neither of these holds:
    - `parked`: the session is down. Set by `down`, and at the daemon's start where the session is down; cleared by `up`
      when it takes the listener, and set again where that `up` fails. The listener stays bound all the time, so that
      nobody else can hear an open tab.
    - `sealed`: another user may know the token (`spec.heard`, which is on disk). Set when that is found out, and by
      each `up` until it is mended; cleared under `renewing` when the token was changed, or cannot be.
    """

    spec: SessionSpec
    running: Running | None = None
    state: ServerState = "lost"
    listener: BoundForward | None = None
    refusals: int = 0  # connections through its listener that the host did not take
    verified: bool = False  # the server's identity was proven since the link last came up
    down_since: float | None = None  # monotonic, while the link is away
    seen: str | None = None  # when the server was last proven to run
    problems: list[Problem] = field(default_factory=list)
    settled: threading.Event = field(default_factory=threading.Event)  # its state was looked up since the start
    restarts: list[float] = field(default_factory=list)  # monotonic
    gpu_use: list[GpuUse] = field(default_factory=list)  # what its processes hold, as of the last look
    gpu_problems: list[Problem] = field(default_factory=list)  # likewise
    parked: bool = False
    sealed: bool = False
    renewing: threading.Lock = field(default_factory=threading.Lock)  # held while the token is changed
    binding: threading.Lock = field(default_factory=threading.Lock)  # held while its local port is bound
    port_problems: list[Problem] = field(default_factory=list)  # of its local port, and who heard the token there
    strange_port: int | None = None  # another user has it, and that was seen to

    def __post_init__(self) -> None:
        """What the disk says holds from the beginning."""
        self.parked, self.sealed = not self.spec.wanted, self.spec.heard

    def take(self, listener: BoundForward, status: Callable[[], LinkStatus], suspect: Callable[[], None]) -> None:
        """Forward by this listener: connections wait until the server is proven, and browsers are told why.

        Args:
            listener: bound, with `passes` as its gate.
            status: of the host's link.
            suspect: told that the host refused a connection, so that somebody looks at the server; must not wait.
        """

        def refused() -> None:
            # Whoever gets the port next is not the server that was proven.
            self.verified = False
            self.refusals += 1
            suspect()

        listener.respond = lambda head, waited: outage_page.answer(head, self._away(status()), waited)
        listener.on_refused = refused
        self.listener = listener

    def passes(self) -> bool:
        """Whether connections may go to the server: it is proven, wanted, and nobody else knows its token."""
        return self.verified and not self.parked and not self.sealed

    def park(self) -> BoundForward | None:
        """Take the session down: its listener stays, and leads nowhere. Return that listener."""
        self.spec = msgspec.structs.replace(self.spec, wanted=False)
        self.parked, self.verified = True, False
        self.settled.set()
        return self.listener

    def overheard(self, port: int) -> None:
        """Another user has this local port, and so may know the token: nobody gets through before it was changed."""
        if self.strange_port != port:  # else it was changed since, and no tab has told him the new one
            self.strange_port = port
            self.spec = msgspec.structs.replace(self.spec, heard=True)
            self.sealed = True

    def known(self, running: Running) -> Running:
        """Return a server that was found again as this session had it: launched by it, or taken over."""
        if running.server.pid != self.spec.pid:
            return running
        server = msgspec.structs.replace(running.server, adopted=self.spec.adopted)
        return msgspec.structs.replace(running, server=server)

    def note(self, running: Running) -> None:
        """Remember which server it is: for a daemon that comes after this one."""
        server = running.server
        self.spec = msgspec.structs.replace(self.spec, pid=server.pid, node=server.node, adopted=server.adopted)

    def proven(self, running: Running, exposed: list[Problem]) -> None:
        """Note that the server is the one we know: its listener's gate opens.

        Args:
            running: the server.
            exposed: what is to be said of its kernels.
        """
        if self.running is None or self.running.server.pid != running.server.pid:
            self.gpu_use, self.gpu_problems = [], []
        self.running = running
        # What was said while it could not be found is over.
        self.problems = [one for one in self.problems if one.code not in {*ENDS, "kernels-exposed"}] + exposed
        self.verified = True
        self.down_since = None
        self.seen = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

    def _away(self, link: LinkStatus) -> outage_page.OutageFacts:
        if self.state == "exited" or self.parked:
            ends = [(self.parked, "the session is down"), (self.state == "exited", "the server has ended")]
            return outage_page.OutageFacts(
                self.spec.name,
                self.spec.host,
                ", and ".join(text for seen, text in ends if seen),
                command=f"jupyman up {self.spec.name}",
                seen=outage_page.clock(self.seen),
            )
        return outage_page.link_away(
            self.spec.name, self.spec.host, link, again=f"jupyman up {self.spec.name}", seen=self.seen
        )

    def view(self, link: LinkStatus) -> Session:
        """Return the session as `ps` prints it.

        Args:
            link: the state of its host's link.
        """
        state = self.state
        if state == "running" and self._unknown(link):
            state = "lost"
        running = self.running
        listener = self.listener
        forwards = []
        if listener is not None and not self.parked:
            forwards = [forward(listener, up=self.passes() and link.state == "up")]
        return Session(
            name=self.spec.name,
            host=self.spec.host,
            state=state,
            link=link if self.spec.wanted else LinkStatus(state="idle", since=link.since, reconnects=link.reconnects),
            server=running.server if running is not None else None,
            url=self.url,
            forwards=forwards,
            held=f"127.0.0.1:{listener.local_port}" if listener is not None and self.parked else None,
            problems=self._all_problems(gpus=state == "running"),
            gpu_use=self.gpu_use if state == "running" else [],
        )

    def _unknown(self, link: LinkStatus) -> bool:
        """Whether nothing has been heard of the host for so long that nobody knows whether the server lives."""
        if link.silent_since is not None:
            silent = (datetime.now(UTC) - datetime.fromisoformat(link.silent_since)).total_seconds()
            return silent > SILENT_AFTER
        return self.down_since is not None and time.monotonic() - self.down_since > LOST_AFTER

    def _all_problems(self, *, gpus: bool) -> list[Problem]:
        """Join what the server's record says and what this computer saw; one of each kind."""
        told = self.running.problems if self.running is not None else []
        codes = {problem.code for problem in told}
        seen = [problem for problem in [*self.problems, *self.port_problems] if problem.code not in codes]
        if self.listener is not None:
            seen += strangers(self.listener, "share = true in config.toml")
        codes |= {problem.code for problem in seen}
        on_gpus = [problem for problem in self.gpu_problems if problem.code not in codes] if gpus else []
        return [*told, *seen, *on_gpus, *(crowded(self.listener) if self.listener is not None else [])]

    @property
    def url(self) -> str | None:
        """The address with the token, None while nothing is forwarded, and while another user may know that token."""
        if self.running is None or self.listener is None or self.state == "exited" or self.parked or self.sealed:
            return None
        page = {"lab": "lab", "notebook": "tree", "server": ""}[self.running.server.app]
        base = self.running.base_url.rstrip("/")
        query = f"?token={self.running.token}" if self.running.token else ""
        return f"http://127.0.0.1:{self.listener.local_port}{base}/{page}{query}"


class SessionRegistry:
    """The registry. Its lock guards the dictionaries, never a network wait.

    Requests, the restorer and the looks at hosts run in threads of their own and add and remove entries at any moment.
    `live` and `tunnels` are therefore read and changed in this class only; everybody else gets copies, or names one
    change that is made under the lock. A test walks the source for it.

    Args:
        store: what is on disk.
    """

    def __init__(self, store: Store) -> None:
        self.store = store
        self.lock = threading.RLock()
        self.unsaved: Problem | None = None
        self.live: dict[str, Live] = {name: Live(spec=spec) for name, spec in store.state.sessions.items()}
        self.tunnels: dict[tuple[str, int], tuple[TunnelSpec, BoundForward | None]] = {
            (spec.host, spec.local_port): (spec, None) for spec in store.state.tunnels
        }

    def get(self, name: str) -> Live:
        """Return a session.

        Raises:
            UnknownSession: there is none of that name.
        """
        with self.lock:
            found, names = self.live.get(name), sorted(self.live)
        if found is None:
            known = ", ".join(names) or "none"
            raise errors.UnknownSession(f"no session is called {name!r}", f"sessions here: {known}; see jupyman ps")
        return found

    def find(self, name: str) -> Live | None:
        """Return a session, None where there is none of that name."""
        with self.lock:
            return self.live.get(name)

    def all(self) -> list[Live]:
        """Return every session, as of now."""
        with self.lock:
            return list(self.live.values())

    def enter(self, spec: SessionSpec) -> tuple[Live, bool]:
        """Return the session of that name, and whether it was made of `spec` just now."""
        with self.lock:
            found = self.live.get(spec.name)
            if found is not None:
                return found, False
            made = self.live[spec.name] = Live(spec=spec, state="starting")
            return made, True

    def only(self, name: str | None) -> Live:
        """Return the session of that name, or the only one where none was named.

        Raises:
            UnknownSession: no such session, or none was named and there is not just one.
        """
        if name is not None:
            return self.get(name)
        sessions = self.all()
        if len(sessions) == 1:
            return sessions[0]
        names = ", ".join(sorted(live.spec.name for live in sessions)) or "none"
        raise errors.UnknownSession("which session?", f"sessions here: {names}")

    def on(self, host: str) -> list[Live]:
        """Return the sessions of a host."""
        with self.lock:
            return [live for live in self.live.values() if live.spec.host == host]

    def hosts(self) -> list[str]:
        """Return the hosts of all sessions and forwards; one may come several times."""
        with self.lock:
            return [*(live.spec.host for live in self.live.values()), *(host for host, _ in self.tunnels)]

    def busy(self) -> list[str]:
        """Return the hosts of the sessions that run."""
        return [live.spec.host for live in self.all() if live.state == "running"]

    def forwards(self, host: str | None = None) -> list[tuple[TunnelSpec, BoundForward | None]]:
        """Return the forwards of a host that belong to no session, as of now; None: those of every host."""
        with self.lock:
            return [entry for key, entry in self.tunnels.items() if host is None or key[0] == host]

    def keep_forward(self, spec: TunnelSpec, listener: BoundForward | None) -> None:
        """Note a forward; it replaces the one that has its local port."""
        with self.lock:
            self.tunnels[spec.host, spec.local_port] = (spec, listener)

    def bind_forward(self, spec: TunnelSpec, listener: BoundForward) -> bool:
        """Give a forward its listener; False where it was closed, or got another listener, meanwhile."""
        with self.lock:
            if self.tunnels.get((spec.host, spec.local_port)) != (spec, None):
                return False
            self.tunnels[spec.host, spec.local_port] = (spec, listener)
            return True

    def share_forward(self, spec: TunnelSpec, *, share: bool) -> None:
        """Open a forward to the other users of this computer, or close it to them; nothing if it is gone meanwhile."""
        with self.lock:
            kept, listener = self.tunnels.get((spec.host, spec.local_port), (None, None))
            if kept is None:
                return
            if listener is not None:
                listener.share = share
            self.tunnels[spec.host, spec.local_port] = (msgspec.structs.replace(kept, share=share), listener)

    def drop_forward(self, host: str, local_port: int) -> BoundForward | None:
        """Forget a forward; return its listener, which is still open."""
        with self.lock:
            _, listener = self.tunnels.pop((host, local_port), (None, None))
        return listener

    def wanted(self, host: str) -> bool:
        """Tell whether a session or a forward wants the host's link."""
        with self.lock:
            return any(live.spec.wanted and live.state != "exited" for live in self.on(host)) or any(
                key[0] == host for key in self.tunnels
            )

    def view(self, live: Live, link: LinkStatus) -> Session:
        """Return a session as `ps` prints it; arguments as `Live.view`."""
        session = live.view(link)
        if self.unsaved is None:
            return session
        return msgspec.structs.replace(session, problems=[*session.problems, self.unsaved])

    def save(self) -> None:
        """Write what is wanted to disk; where that fails the sessions go on, and `unsaved` says why."""
        with self.lock:
            self.store.state.sessions = {name: live.spec for name, live in self.live.items()}
            self.store.state.tunnels = [spec for spec, _ in self.tunnels.values()]
            try:
                self.store.save()
            except OSError as error:
                log.warning("the state could not be written: %s", error)
                self.unsaved = Problem(
                    code="state-unsaved",
                    severity="warning",
                    text=f"what you want cannot be written to {self.store.path} ({error.strerror or error})",
                    fix="free some space on this computer; until then the daemon must not end",
                )
            else:
                self.unsaved = None

    def remove(self, name: str) -> None:
        """Forget a session and close its listener."""
        with self.lock:
            live = self.live.pop(name, None)
            listener = live.listener if live is not None else None
            if live is not None:
                live.listener = None
        if listener is not None:
            listener.close()
        self.save()

    def tunnel_views(self, hosts: Hosts, host: str | None = None) -> list[HostForward]:
        """Return the forwards that belong to no session.

        Args:
            hosts: to know which are carried.
            host: only those of this one; None: all.
        """
        views = []
        for spec, listener in self.forwards(host):
            supervisor = hosts.known(spec.host)
            views.append(host_forward(spec, listener, supervisor.status if supervisor is not None else None))
        return views
