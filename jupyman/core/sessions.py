"""The sessions of this computer: what is wanted (on disk), what is known (in memory), and how it is shown."""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from jupyman import errors
from jupyman.core.store import Store
from jupyman.model import Forward, HostForward, LinkStatus, Problem, Running, ServerState, Session, SessionSpec, TunnelSpec
from jupyman.ssh.forward import Listener

if TYPE_CHECKING:
    from jupyman.core.hosts import Hosts
    from jupyman.core.shared import Shared

log = logging.getLogger(__name__)

# A session whose link has been away for this long is `lost`: nobody knows any more whether its server lives.
LOST_AFTER = 5.0


@dataclass
class Live:
    """One session: the wish, and what is known of its server."""

    spec: SessionSpec
    running: Running | None = None
    state: ServerState = "lost"
    listener: Listener | None = None
    verified: bool = False  # the server's identity was proven since the link last came up
    down_since: float | None = None  # monotonic, while the link is away
    problems: list[Problem] = field(default_factory=list)
    settled: threading.Event = field(default_factory=threading.Event)  # its state was looked up since the start
    work: Shared | None = None  # the `up` under way

    def view(self, link: LinkStatus) -> Session:
        """Return the session as `ps` prints it.

        Args:
            link: the state of its host's link.
        """
        state = self.state
        if state == "running" and self.down_since is not None and time.monotonic() - self.down_since > LOST_AFTER:
            state = "lost"
        running = self.running
        forwards = [] if self.listener is None else [forward(self.listener, up=self.verified and link.state == "up")]
        return Session(
            name=self.spec.name,
            host=self.spec.host,
            state=state,
            link=link if self.spec.wanted else LinkStatus(state="idle", since=link.since, reconnects=link.reconnects),
            server=running.server if running is not None else None,
            url=self.url,
            forwards=forwards,
            problems=[*(running.problems if running is not None else []), *self.problems],
        )

    @property
    def url(self) -> str | None:
        """The address with the token, None while nothing is forwarded."""
        if self.running is None or self.listener is None or self.state == "exited":
            return None
        page = {"lab": "lab", "notebook": "tree", "server": ""}[self.running.server.app]
        base = self.running.base_url.rstrip("/")
        query = f"?token={self.running.token}" if self.running.token else ""
        return f"http://127.0.0.1:{self.listener.local_port}{base}/{page}{query}"


def forward(listener: Listener, *, up: bool) -> Forward:
    """Return a listener as it is printed.

    Args:
        listener: of the forwarder.
        up: whether connections are carried now.
    """
    count, bytes_in, bytes_out = listener.stats()
    return Forward(
        local=f"127.0.0.1:{listener.local_port}",
        remote=endpoint(listener.target),
        state="up" if up else "waiting",
        open=count,
        bytes_in=bytes_in,
        bytes_out=bytes_out,
    )


def endpoint(target: tuple[str, int] | str) -> str:
    """Return a remote endpoint as text: ``ADDR:PORT``, ``[IPV6]:PORT`` or ``unix:PATH``."""
    if isinstance(target, str):
        return f"unix:{target}"
    address, port = target
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


class Sessions:
    """The registry. Its lock guards the dictionaries, never a network wait.

    Args:
        store: what is on disk.
    """

    def __init__(self, store: Store) -> None:
        self.store = store
        self.lock = threading.RLock()
        self.live: dict[str, Live] = {name: Live(spec=spec) for name, spec in store.state.sessions.items()}
        self.tunnels: dict[tuple[str, int], tuple[TunnelSpec, Listener | None]] = {
            (spec.host, spec.local_port): (spec, None) for spec in store.state.tunnels
        }

    def get(self, name: str) -> Live:
        """Return a session.

        Raises:
            UnknownSession: there is none of that name.
        """
        with self.lock:
            found = self.live.get(name)
        if found is None:
            names = ", ".join(sorted(self.live)) or "none"
            raise errors.UnknownSession(f"no session is called {name!r}", f"sessions here: {names}; see jupyman ps")
        return found

    def only(self, name: str | None) -> Live:
        """Return the session of that name, or the only one where none was named.

        Raises:
            UnknownSession: no such session, or none was named and there is not just one.
        """
        if name is not None:
            return self.get(name)
        with self.lock:
            sessions = list(self.live.values())
        if len(sessions) == 1:
            return sessions[0]
        names = ", ".join(sorted(live.spec.name for live in sessions)) or "none"
        raise errors.UnknownSession("which session?", f"sessions here: {names}")

    def on(self, host: str) -> list[Live]:
        """Return the sessions of a host."""
        with self.lock:
            return [live for live in self.live.values() if live.spec.host == host]

    def wanted(self, host: str) -> bool:
        """Tell whether a session or a forward wants the host's link."""
        with self.lock:
            return any(live.spec.wanted and live.state != "exited" for live in self.on(host)) or any(
                key[0] == host for key in self.tunnels
            )

    def save(self) -> None:
        """Write what is wanted to disk.

        Raises:
            RemoteFailed: never; a full local disk is logged and the session goes on.
        """
        with self.lock:
            self.store.state.sessions = {name: live.spec for name, live in self.live.items()}
            self.store.state.tunnels = [spec for spec, _ in self.tunnels.values()]
            try:
                self.store.save()
            except OSError:
                log.exception("the state could not be written")

    def remove(self, name: str) -> None:
        """Forget a session and close its listener."""
        with self.lock:
            live = self.live.pop(name, None)
        if live is not None and live.listener is not None:
            live.listener.close()
        self.save()

    def tunnel_views(self, hosts: Hosts) -> list[HostForward]:
        """Return the forwards that belong to no session."""
        views = []
        with self.lock:
            entries = list(self.tunnels.values())
        for spec, listener in entries:
            supervisor = hosts.known(spec.host)
            up = supervisor is not None and supervisor.link is not None
            if listener is not None:
                shown = forward(listener, up=up)
                views.append(
                    HostForward(
                        host=spec.host,
                        local=shown.local,
                        remote=shown.remote,
                        state=shown.state,
                        open=shown.open,
                        bytes_in=shown.bytes_in,
                        bytes_out=shown.bytes_out,
                    )
                )
            else:
                local = f"127.0.0.1:{spec.local_port}"
                views.append(
                    HostForward(host=spec.host, local=local, remote=endpoint((spec.address, spec.port)), state="waiting")
                )
        return views
