"""The way from this computer to a session's server: its local port, and what answers there."""

from __future__ import annotations

from collections.abc import Callable

from jupyman import errors
from jupyman.api import Operation
from jupyman.core.links.supervisor import Supervisor
from jupyman.core.runtime.progress import step
from jupyman.core.sessions import token_exposure
from jupyman.core.sessions.registry import Live
from jupyman.host.servers import http_check
from jupyman.model import Running
from jupyman.model.endpoint import Target
from jupyman.ssh.forward.engine import BoundForward
from jupyman.ssh.link import Link

DEFAULT_PORT = 8888  # Jupyter Server's own (ServerApp.port)


class SessionForward:
    """Made for one `up`.

    Attributes:
        stranger: who has the session's own port, where that is another user.

    Args:
        supervisor: of the host.
        link: to it; what was proven by it holds no longer than it.
        live: the session; its listener is kept where it has one.
        asked: the local port that the user says now.
        usual: the session's own; without it, the server's.
        share: other users of this computer may connect, too.
        had: the local port that the session had before, None for a new one.
        suspect: told later that the host refused a connection to the server; must not wait.
    """

    def __init__(
        self,
        supervisor: Supervisor,
        link: Link,
        live: Live,
        *,
        asked: int | None,
        usual: int | None,
        had: int | None = None,
        share: bool,
        suspect: Callable[[], None],
    ) -> None:
        self._supervisor = supervisor
        self._link = link
        self._live = live
        self._asked = asked
        self._usual = usual
        self._share = share
        self._had = had
        self._suspect = suspect
        self._asking: http_check.Asking | None = None
        self._asked_by: BoundForward | None = None  # whose port that is connected to
        # The listener that was bound here, on the port that was asked for, or another because it is taken; and the one
        # that it replaces, which goes when all has gone well. A session that was down is parked again where it has not.
        self._made: BoundForward | None = None
        self._before: BoundForward | None = None
        self._was_parked = live.parked
        self.stranger: str | None = None
        self._unparked = False  # here; a `down` that comes later stands

    def listening(self, target: Target) -> None:
        """Connect to a server that is still being asked for its status on the host; that it is the right one was seen.

        Args:
            target: where it listens.

        Raises:
            PortInUse: no local port is free.
            LinkLost: as `open`.
        """
        if self._asking is None:  # a host may say so more than once
            self._bind(target)
            self.open()
            if self._live.passes():
                self._connect()

    def open(self) -> None:
        """Let connections pass: the server was proven.

        Raises:
            LinkLost: the link by which it was is gone; the next one may lead to another machine.
        """
        self._live.verified = True
        if self._supervisor.link is not self._link:  # in this order: it is gone before the gate is shut for that
            self._live.verified = False
            raise errors.LinkLost(f"the link to {self._supervisor.name} was lost")

    def forward(self, running: Running, operation: Operation) -> None:
        """Lead the local port to a server, and say so.

        Raises:
            PortInUse: no local port is free.
            Interrupted: the operation was cancelled.
        """
        target = running.endpoint
        if target is None:
            raise errors.InternalError("the server has neither port nor socket")
        preferred = self._preferred(target)
        with step(operation, "forward", f"forwarding to 127.0.0.1:{preferred}") as progress:
            self._bind(target)
            listener = self._bound()
            local = listener.local_port
            progress.text = f"forwarded to 127.0.0.1:{local}"
            if self.stranger is not None:
                progress.warn(f"local port {self._had} is held by {self.stranger}: using {local}")
            elif local != preferred:
                progress.warn(f"local port {preferred} is taken{listener.holder_text}: using {local}")

    def ask(self, running: Running) -> tuple[int | None, int | None]:
        """Ask the server through the forward: see `answer.Asking.ask`.

        Args:
            running: proven.

        Raises:
            Interrupted: the session was taken down meanwhile.
        """
        if self._asking is None or self._asked_by is not self._bound():  # `down`, and bound anew
            self.close()
            self._connect()
        assert self._asking is not None  # noqa: S101 - made a moment ago
        return self._asking.ask(running.base_url, running.token)

    @property
    def refused(self) -> bool:
        """Whether the host did not take a connection to the server."""
        return self._live.refusals > 0

    def clear(self) -> None:
        """Another server comes: let go of a local port that was chosen for this one."""
        self.close()
        self._live.verified = False
        if self._made is not None and self._live.listener is self._made:
            self._made.close()
            self._live.listener, self._made, self._before = self._before, None, None

    def keep(self) -> None:
        """All has gone well: the port that the session had before is free, where it has another one now."""
        if self._before is not None:
            self._before.close()
            self._before = None

    def undo(self) -> None:
        """Leave the session's local port as it was found."""
        live = self._live
        if self._made is not None and live.listener is self._made:
            self._made.close()
            live.listener = self._before
        elif self._before is not None:  # released or killed meanwhile: nothing of it stays
            self._before.close()
        self._made = self._before = None
        live.parked = live.parked or self._unparked

    def close(self) -> None:
        """Close our own connections."""
        if self._asking is not None:
            self._asking.close()
            self._asking = None

    def _connect(self) -> None:
        self._live.refusals = 0
        self._asked_by = listener = self._bound()
        self._asking = http_check.Asking(listener.local_port)

    def _preferred(self, target: Target) -> int:
        return self._asked or self._usual or (DEFAULT_PORT if isinstance(target, str) else target[1])

    def _bind(self, target: Target) -> None:
        with self._live.binding:  # a daemon that has just started may be at it
            self._bind_alone(target)

    def _bind_alone(self, target: Target) -> None:
        live, supervisor = self._live, self._supervisor
        standing = live.listener
        if standing is not None and (standing is self._made or self._asked in {None, standing.local_port}):
            standing.retarget(target)
        else:
            preferred = self._preferred(target)
            bound = supervisor.forwarder.listen(preferred, target, gate=live.passes)
            if standing is None:
                self._look_at_own(preferred, bound)
            live.take(bound, lambda: supervisor.status, self._suspect)
            self._made, self._before = bound, standing
        if self._was_parked and not self._unparked:
            self._unparked, live.parked = True, False
        self._bound().share = self._share

    def _look_at_own(self, preferred: int, bound: BoundForward) -> None:
        """Look who has the session's own port, which nobody kept and could not be bound again."""
        own = self._had
        if own is None or bound.local_port == own:
            return
        who = token_exposure.stranger(own, taken=preferred == own)
        if who is not None:
            self.stranger = who
            self._live.overheard(own)

    def _bound(self) -> BoundForward:
        if self._live.listener is None or self._live.parked:  # `down` at the same moment
            raise errors.Interrupted(f"session {self._live.spec.name} was taken down meanwhile")
        return self._live.listener
