"""The forward of a session while an `up` makes it: its local port, and what answers there."""

from __future__ import annotations

from collections.abc import Callable

from jupyman import errors
from jupyman.api import Operation
from jupyman.core.links.supervisor import Supervisor
from jupyman.core.runtime.progress import step
from jupyman.core.sessions import token_exposure
from jupyman.core.sessions.registry import SessionRegistry, SessionRuntime, shut
from jupyman.core.sessions.state import LaunchUndone, Listening, PortExposed, Proven, Reopened
from jupyman.host.servers import http_check
from jupyman.model import Problem, Running
from jupyman.model.endpoint import Endpoint, Target
from jupyman.ssh.forward.engine import BoundForward
from jupyman.ssh.link import Link

DEFAULT_PORT = 8888  # Jupyter Server's own (ServerApp.port)


class SessionForward:
    """Made for one `up`.

    Attributes:
        other_user: who has the session's own port, if that is another user.

    Args:
        sessions: the registry.
        supervisor: of the host.
        link: to it; what was proven over it does not outlive it.
        session: its listener is kept if it has one.
        asked: the local port that this `up` names.
        usual: the session's own; without it, the server's.
        share: other users of this computer may connect, too.
        had: the local port that the session had before, None for a new one.
        downs: what the session's `downs` was when the `up` was requested.
        suspect: called later if the host refuses a connection to the server; must not wait.
    """

    def __init__(
        self,
        sessions: SessionRegistry,
        supervisor: Supervisor,
        link: Link,
        session: SessionRuntime,
        *,
        asked: int | None,
        usual: int | None,
        had: int | None = None,
        downs: int,
        share: bool,
        suspect: Callable[[], None],
    ) -> None:
        self._sessions = sessions
        self._supervisor = supervisor
        self._link = link
        self._session = session
        self._asked = asked
        self._usual = usual
        self._share = share
        self._had = had
        self._downs = downs
        self._suspect = suspect
        self.other_user: str | None = None
        self._check: http_check.Asking | None = None
        self._check_at: BoundForward | None = None  # the listener that it is connected to
        self._refusals = 0  # of the session, when it was connected
        # The listener that was bound here, on the port that was asked for or on another because that is taken; and the
        # one that it replaces, which is closed when the `up` has succeeded.
        self._made: BoundForward | None = None
        self._before: BoundForward | None = None

    def listening(self, endpoint: Endpoint) -> None:
        """Connect to a server while the launch still waits for its status; that it is the right one was seen.

        Args:
            endpoint: where it listens.

        Raises:
            PortInUse: no local port is free.
            LinkLost: the link is gone; the next one may lead to another machine.
        """
        if self._check is not None:  # a host may report it more than once
            return
        self._bind(endpoint.target)
        self._sessions.apply(self._session, Listening(over=self._link))
        self._require_proof()
        if self._session.passes():
            self._connect()

    def proven(self, running: Running, *, at: str, exposed: tuple[Problem, ...]) -> None:
        """Let connections pass: the server was proven.

        Args:
            running: the server.
            at: when, RFC 3339.
            exposed: problems of its kernels.

        Raises:
            LinkLost: as `listening`.
        """
        event = Proven(running=running, over=self._link, at=at, exposed=exposed)
        transition = self._sessions.apply(self._session, event)
        self._require_proof()
        if "wake" in transition.effects:
            self._supervisor.forwarder.wake()

    def forward(self, running: Running, operation: Operation) -> None:
        """Lead the local port to a server, as a step.

        Raises:
            PortInUse: no local port is free.
            Interrupted: the operation was cancelled, or the session was taken down or killed.
        """
        endpoint = running.endpoint
        if endpoint is None:
            raise errors.InternalError("the server has neither port nor socket")
        target = endpoint.target
        preferred = self._preferred(target)
        with step(operation, "forward", f"forwarding to 127.0.0.1:{preferred}") as progress:
            self._bind(target)
            listener = self._bound()
            local = listener.local_port
            progress.text = f"forwarded to 127.0.0.1:{local}"
            if self.other_user is not None:
                progress.warn(f"local port {self._had} is held by {self.other_user}: using {local}")
            elif local != preferred:
                progress.warn(f"local port {preferred} is taken{listener.holder_text}: using {local}")

    def ask(self, running: Running) -> tuple[int | None, int | None]:
        """Ask the server through the forward: see `http_check.Asking.ask`.

        Args:
            running: proven.

        Raises:
            Interrupted: the session was taken down meanwhile.
        """
        if self._check is None or self._check_at is not self._bound():  # `down`, and bound anew
            self.close()
            self._connect()
        assert self._check is not None  # noqa: S101 - made a moment ago
        return self._check.ask(running.base_url, running.token)

    @property
    def refused(self) -> bool:
        """Whether the host refused a connection to the server."""
        return self._session.current.refusals > self._refusals

    def clear(self) -> None:
        """Prepare for another server: let go of a local port that was chosen for this one."""
        self.close()
        self._sessions.apply(self._session, LaunchUndone())
        if self._made is not None and self._sessions.replace_listener(self._session, self._made, self._before):
            self._made.close()
            self._made = self._before = None

    def keep(self) -> None:
        """Close the port that the session had before, if it has another one now."""
        if self._before is not None:
            self._before.close()
            self._before = None

    def undo(self) -> None:
        """Leave the session's local port as it was found."""
        if self._made is not None and self._sessions.replace_listener(self._session, self._made, self._before):
            self._made.close()
        elif self._before is not None:  # released or killed meanwhile
            self._before.close()
        self._made = self._before = None

    def close(self) -> None:
        """Close our own connections."""
        if self._check is not None:
            self._check.close()
            self._check = None

    def _require_proof(self) -> None:
        current = self._session.current
        current.require_kept(self._downs)
        if current.proven_over is not self._link:
            raise errors.LinkLost(f"the link to {self._supervisor.name} was lost")

    def _connect(self) -> None:
        self._refusals = self._session.current.refusals
        self._check_at = listener = self._bound()
        self._check = http_check.Asking(listener.local_port)

    def _preferred(self, target: Target) -> int:
        return self._asked or self._usual or (DEFAULT_PORT if isinstance(target, str) else target[1])

    def _bind(self, target: Target) -> None:
        with self._session.binding:  # a daemon that has just started may be binding it
            self._bind_alone(target)

    def _bind_alone(self, target: Target) -> None:
        session, supervisor = self._session, self._supervisor
        session.current.require_kept(self._downs)
        standing = session.listener
        if standing is None or (standing is not self._made and self._asked not in {None, standing.local_port}):
            preferred = self._preferred(target)
            bound = supervisor.forwarder.listen(preferred, target, gate=shut)
            if standing is None:
                self._look_at_own_port(preferred, bound)
            if not self._sessions.bind(
                session,
                bound,
                instead_of=standing,
                status=lambda: supervisor.status,
                suspect=self._suspect,
            ):
                bound.close()
                session.current.require_kept(self._downs)
                raise errors.InternalError(f"session {session.name} got another listener meanwhile")
            self._made, self._before = bound, standing
        self._sessions.lead(session, target)
        self._sessions.apply(session, Reopened())
        self._bound().share = self._share

    def _look_at_own_port(self, preferred: int, bound: BoundForward) -> None:
        """Find out who has the session's own port, which was not kept bound and could not be bound again."""
        own = self._had
        if own is None or bound.local_port == own:
            return
        self.other_user = token_exposure.other_user(own, taken=preferred == own)
        if self.other_user is not None:
            self._sessions.apply(self._session, PortExposed(port=own))

    def _bound(self) -> BoundForward:
        listener = self._session.listener
        self._session.current.require_kept(self._downs)
        assert listener is not None  # noqa: S101 - `down` and `kill` alone take it away
        return listener
