"""One per host: owns the link, does what lifecycle.py asks, feeds back what happened."""

from __future__ import annotations

import logging
import random
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Literal

from jupyman import errors
from jupyman.api import ClientContext, Operation, Prompt
from jupyman.core import backoff, lifecycle, visit
from jupyman.core.clock import Clock
from jupyman.core.login import Ask, LogIn, log_in, named
from jupyman.model import LinkStatus
from jupyman.ssh import engine
from jupyman.ssh.auth import Keyring
from jupyman.ssh.link import Link

log = logging.getLogger(__name__)

# Detection of a black hole takes at most INTERVAL + DEADLINE = 5.5 s, and shall take less than 6 on a busy computer.
HEARTBEAT_INTERVAL = 2.5
HEARTBEAT_DEADLINE = 3.0
# A turn that broke, or that somebody else's login holds up, comes again after this, seconds.
AGAIN = 1.0
# An idle link that nothing wants is kept for the next command for this long, seconds.
LINGER = 300.0
LOOKS = 5.0  # seconds; a command that runs for longer is somebody's, and no look of ours


class Supervisor:
    """The one owner of a host's link and forwards.

    Args:
        name: the host as jupyman knows it.
        destination: what `ssh` would be given for it.
        keyring: decrypted keys and kept passwords, in memory only.
        on_up: called in a thread of its own whenever the link came up.
        on_down: called at once whenever it went away; must not wait.
        client: how to log in (agent socket, ssh_config); replaced by each request.
        engine_name: what carries the forwards.
        login: opens a link.
        clock: this computer's.
    """

    def __init__(
        self,
        name: str,
        destination: str,
        keyring: Keyring,
        on_up: Callable[[Supervisor], None],
        on_down: Callable[[Supervisor], None],
        client: ClientContext,
        engine_name: engine.EngineName = "native",
        login: LogIn = log_in,
        clock: Clock | None = None,
    ) -> None:
        self.name = name
        self.destination = destination
        self.client = client
        self.sockets = engine_name == "native"  # UNIX sockets of the host can be reached, as far as is known
        self.forwarder = engine.make(name, engine_name)
        self._keyring = keyring
        self._log_in = named(login, name)
        self._clock = clock or Clock()
        self._on_up = on_up
        self._on_down = on_down
        self._policy = lifecycle.Link()
        self._link: Link | None = None
        self._since = self._clock.stamp()
        self._error: str | None = None
        self._away_since: float | None = None  # monotonic
        self._began = 0.0  # when the last attempt did, monotonic
        self._reached = True  # the host said something to it
        self._peer: str | None = None
        self._visit: visit.Visit | None = None  # what the last link is, or was, on the host
        self._visitor: Link | None = None  # the link that has asked
        self._due: float | None = None
        self._due_at: str | None = None
        self._used = self._beat = self._clock.monotonic()
        self._closed = False
        self._mutex = threading.RLock()
        self._wake = threading.Condition(self._mutex)
        self._login = threading.Lock()
        self._thread = threading.Thread(target=self._run, name=f"host {name}", daemon=True)
        self._thread.start()

    # --- what others ask ------------------------------------------------------------------------------------------

    @property
    def status(self) -> LinkStatus:
        """The link's state as `ps` shows it."""
        with self._mutex:
            return LinkStatus(
                state=self._policy.state,
                since=self._since,
                reconnects=self._policy.reconnects,
                last_error=self._error,
                next_attempt=self._due_at if self._policy.state == "reconnecting" else None,
            )

    @property
    def link(self) -> Link | None:
        """The link, None while it is not up."""
        with self._mutex:
            return self._link if self._policy.state == "up" else None

    def want(self, wanted: bool) -> None:
        """Say whether a session or a forward wants this host; a wanted link is kept and restored."""
        with self._mutex:
            if wanted != self._policy.wanted:
                if wanted:
                    self._feed("want")
                else:
                    # Not "release": the link stays warm for the next command, for LINGER seconds.
                    self._policy = replace(self._policy, wanted=False)
                    self._used = self._clock.monotonic()
                    if self._policy.state != "up":
                        self._feed("release")
            self._wake.notify_all()

    def acquire(self, operation: Operation) -> Link:
        """Return the link, logging in first where it is not up; prompts go to the operation's client.

        Args:
            operation: who asks; its cancellation ends the login.

        Returns:
            A link that was alive a moment ago.

        Raises:
            JupymanError: as `Link.open`.
        """
        while not self._login.acquire(timeout=0.1):
            if operation.cancelled.is_set():
                raise errors.Interrupted("interrupted while waiting for a login that is under way")
        try:
            with self._mutex:
                self._used = self._clock.monotonic()
                if self._policy.state == "up" and self._link is not None and self._link.alive:
                    return self._link
                if self._link is not None:  # it ended a moment ago and its notice is still under way
                    self._lost(self._link, "the connection ended")
                self._feed("begin")

            def ask(kind: str, text: str) -> str:
                return operation.ask(Prompt(id="", kind=_KINDS.get(kind, "text"), text=text))

            return self._open(ask if operation.client.interactive else None, operation.cancelled)
        finally:
            self._login.release()

    def nudge(self, client: ClientContext) -> None:
        """Try now instead of later: a client with fresh credentials is here."""
        with self._mutex:
            self.client = client
            self._feed("nudge")

    @property
    def awaited(self) -> bool:
        """Whether the link is up, or to come back."""
        with self._mutex:
            return self._policy.state in {"up", "reconnecting"}

    @property
    def peer(self) -> str | None:
        """The address of the host's last link."""
        return self._peer

    def disturbed(self) -> None:
        """This computer slept, or its network changed: look at the link, or for it, now."""
        with self._mutex:
            if self.awaited:
                self._feed("nudge")

    def close(self) -> None:
        """End the link and the listeners; servers on the host run on."""
        with self._mutex:
            self._closed = True
            link, self._link = self._link, None
            self._wake.notify_all()
        self.forwarder.close()
        if link is not None:
            link.close()

    # --- the machine ----------------------------------------------------------------------------------------------

    def _open(self, ask: Ask | None, cancelled: threading.Event | None) -> Link:
        """Log in; the caller holds `_login`."""
        self._began, self._reached = self._clock.monotonic(), True
        try:
            link = self._log_in(self.destination, self.client, self._keyring, ask, cancelled)
        except errors.AuthenticationFailed as error:
            self._feed("auth", error.message)
            raise
        except errors.HostKeyFault as error:
            self._feed("hostkey", error.message)
            raise
        except errors.Interrupted:
            self._feed("abandoned")
            raise
        except errors.JupymanError as error:
            # Also a name that nobody knows and a configuration that cannot be read: without a network no name resolves,
            # and a file that is being edited is whole again soon.
            self._reached = not (error.details.get("unreached") or isinstance(error, errors.UnknownHost))
            self._feed("unreachable", error.message)
            raise
        except BaseException:
            self._feed("abandoned")
            raise
        with self._mutex:
            self._link = link
            self._peer = link.peer
            self._beat = self._used = self._clock.monotonic()
            self._feed("connected")
            unwanted = self._closed or self._policy.state != "up"
            if unwanted:
                self._link = None
        if unwanted:
            link.close()
            raise errors.Interrupted("nobody wants the link any more")
        link.on_lost(lambda reason: self._lost(link, reason))
        return link

    def _lost(self, link: Link, reason: str) -> None:
        with self._mutex:
            if self._link is not link or self._closed:
                return
            self._link = None
            self._feed("lost", reason)
        # Whoever else is on the way to it, jump hosts and a ProxyCommand, still is.
        threading.Thread(target=link.close, name=f"close {self.name}", daemon=True).start()

    def _feed(self, event: lifecycle.EventName, reason: str | None = None) -> None:
        """Apply an event; its actions are done before this returns, except logins, which the thread does."""
        with self._mutex:
            before = self._policy
            self._policy, actions = lifecycle.step(before, event)
            if self._policy.state != "reconnecting":
                self._away_since = None
            elif event == "nudge" or self._away_since is None:
                self._away_since = self._clock.monotonic()
            if self._policy.state != before.state:
                self._since = self._clock.stamp()
                log.info(
                    "%s: %s -> %s (%s%s)",
                    self.name,
                    before.state,
                    self._policy.state,
                    event,
                    f": {reason}" if reason else "",
                )
            if reason is not None:
                self._error = reason
            for action in actions:
                self._do(action)
            self._wake.notify_all()

    def _do(self, action: lifecycle.Action) -> None:
        if action == "attach" and self._link is not None:
            self._due = self._due_at = None
            self.forwarder.attach(self._link)
            threading.Thread(target=self._on_up, args=(self,), name=f"up {self.name}", daemon=True).start()
        elif action == "detach":
            self._on_down(self)
            self.forwarder.detach()
            self._visitor = None
        elif action == "disconnect":
            link, self._link = self._link, None
            if link is not None:
                threading.Thread(target=link.close, name=f"close {self.name}", daemon=True).start()
        elif action == "heartbeat":
            self._beat = 0.0
        elif action in {"schedule", "schedule-now"}:
            wait = 0.0 if action == "schedule-now" else self._backoff()
            self._due = self._clock.monotonic() + wait
            self._due_at = self._clock.stamp(wait)

    def _backoff(self) -> float:
        instant = self._clock.monotonic()
        away = instant - (self._away_since if self._away_since is not None else instant)
        # Jitter, not secrecy.
        wait = backoff.delay(self._policy.attempt, random.random(), away=away, reached=self._reached)  # noqa: S311
        # An attempt that nobody answered has waited already.
        return wait if self._reached else max(0.0, wait - (instant - self._began))

    def _run(self) -> None:
        while True:
            with self._wake:
                if not self._closed:
                    self._clock.wait(self._wake, self._pause() if self.awaited else None)
                if self._closed:
                    return
            try:
                self._turn()
            except Exception:
                # No thread could be started, or no file opened, perhaps; without this one the host would be forgotten.
                log.exception("%s: a turn broke", self.name)
                with self._wake:
                    self._clock.wait(self._wake, AGAIN)

    def _turn(self) -> None:
        self._heartbeat_if_due()
        self._login_if_due()
        with self._mutex:
            if self._link is not None and self._link.busy > LOOKS:
                self._used = self._clock.monotonic()
            idle = self._clock.monotonic() - self._used
            if self._policy.state == "up" and not self._policy.wanted and idle > LINGER:
                self._feed("release")

    def _pause(self) -> float:
        if self._policy.state == "up":
            due = self._beat + HEARTBEAT_INTERVAL
        elif self._due is not None:
            due = self._due
        else:
            return AGAIN  # what is to come is being decided elsewhere
        return max(0.0, due - self._clock.monotonic())

    def _heartbeat_if_due(self) -> None:
        with self._mutex:
            link = self._link if self._policy.state == "up" else None
            if link is None or self._clock.monotonic() < self._beat + HEARTBEAT_INTERVAL:
                return
        try:
            link.heartbeat(HEARTBEAT_DEADLINE)
        except errors.JupymanError as error:
            self._lost(link, error.message)
        else:
            if link is not self._visitor:  # not as soon as it is up: others wait for their commands
                self._visitor = link
                threading.Thread(target=self._arrive, args=(link,), name=f"visit {self.name}", daemon=True).start()
        with self._mutex:
            self._beat = self._clock.monotonic()

    def _arrive(self, link: Link) -> None:
        try:
            self._visit = visit.arrive(link, self._visit)
            if self._visit is not None:
                log.info("%s: process %d there carries the link", self.name, self._visit.pid)
        except errors.JupymanError as error:
            log.debug("%s: what is left of the last link is not known: %s", self.name, error.message)

    def _login_if_due(self) -> None:
        with self._mutex:
            if self._policy.state != "reconnecting" or self._due is None or self._clock.monotonic() < self._due:
                return
        if not self._login.acquire(blocking=False):
            with self._mutex:
                # A foreground login is under way; should it not decide, this one is still due.
                self._due = self._clock.monotonic() + AGAIN
            return
        try:
            with self._mutex:
                before, self._due, self._due_at = self._error, None, None
                self._policy, actions = lifecycle.step(self._policy, "due")
            if "login" in actions:
                self._open(None, None)
        except errors.JupymanError as error:
            # Once, not for every attempt of a long night.
            log.log(logging.INFO if error.message != before else logging.DEBUG, "%s: %s", self.name, error.message)
        except Exception:
            log.exception("%s: background login broke", self.name)
        finally:
            with self._mutex:
                if self._policy.state == "reconnecting" and self._due is None:  # it ended without any result
                    self._feed("abandoned")
            self._login.release()


_KINDS: dict[str, Literal["secret", "text", "confirm"]] = {"secret": "secret", "confirm": "confirm"}
