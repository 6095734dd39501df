"""One per host: owns the link, does what policy.py asks, and reports to it what happened.

Threads: the supervisor's own (`_run`) sends heartbeats, watches a silent host and makes background logins; a command's
thread makes foreground logins (`acquire`); a thread of paramiko's reports the end of a connection (`_lost`).
Locks: `_login` is held during a login, by one thread at a time; `_mutex` (also the condition `_wake`) guards all other
fields, and no thread waits for the network while holding it. Order: `_login`, then `_mutex`, then those of the core.
States: those of policy.py, changed by `_feed` alone. `_link` is set in "up" and "silent" only, except between the end
of a connection and its notice; `_silence` is set exactly in "silent". `on_up` and `on_down` are called under `_mutex`,
so that whoever keeps the link's state elsewhere sees every change in order.

Over 300 lines because logins, heartbeats and waiting act on the same state under the same two locks.
"""

from __future__ import annotations

import logging
import random
import threading
from collections.abc import Callable
from typing import Literal

from jupyman import errors
from jupyman.api import ClientContext, Operation, Prompt, Step
from jupyman.core.links import backoff, policy, silence, stale_connection
from jupyman.core.links.login import Ask, LogIn, log_in, named
from jupyman.core.links.silence import Silence
from jupyman.core.runtime.clock import Clock
from jupyman.model import LinkStatus
from jupyman.ssh.forward import engine
from jupyman.ssh.link import Link, NoAnswer
from jupyman.ssh.login.auth import Keyring

log = logging.getLogger(__name__)

LISTEN = 0.25  # seconds between two checks for a sign of life of a silent host
# A turn that failed, or that another login delays, comes again after this, seconds.
AGAIN = 1.0
# An idle link that nothing wants is kept for the next command for this long, seconds.
LINGER = 300.0
LOOKS = 5.0  # seconds; a command that runs for longer is a user's, and not a periodic look


class Supervisor:
    """The one owner of a host's link and forwards.

    Args:
        name: the host as jupyman knows it.
        destination: what `ssh` would be given for it.
        keyring: decrypted keys and kept passwords, in memory only.
        on_up: called whenever the link came up, or its silent host has answered; must not wait. The link is not used
            by anybody before this returns.
        on_down: called whenever it went away; must not wait.
        on_change: called whenever `status` may have changed; must not wait.
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
        on_change: Callable[[Supervisor], None] | None = None,
    ) -> None:
        self.name = name
        self.destination = destination
        self.client = client
        self.sockets = engine_name == "native"  # UNIX sockets of the host can be reached, as far as known
        self.forwarder = engine.make(name, engine_name)
        self._keyring = keyring
        self._log_in = named(login, name)
        self._clock = clock or Clock()
        self._on_up = on_up
        self._on_down = on_down
        self._on_change = on_change
        self._policy = policy.LinkSnapshot()
        self._link: Link | None = None
        self._since = self._clock.stamp()
        self._error: str | None = None
        self._away_since: float | None = None  # monotonic
        self._began = 0.0  # when the last attempt did, monotonic
        self._reached = True  # the host answered it
        self._peer: str | None = None
        self._process: stale_connection.ServerProcess | None = None  # carries, or carried, the last link on the host
        self._identified: Link | None = None  # the link whose process was looked up
        self._silence: Silence | None = None  # while the policy's state is "silent"
        self._silent_since: str | None = None  # likewise
        self._doubted = False  # the link is not expected to have survived, and has not answered since
        self._due: float | None = None
        self._due_at: str | None = None
        self._used = self._beat = self._clock.monotonic()
        self._closed = False
        self._mutex = threading.RLock()
        self._wake = threading.Condition(self._mutex)
        self._login = threading.Lock()
        self._thread = threading.Thread(target=self._run, name=f"host {name}", daemon=True)
        self._thread.start()

    # --- what others call -----------------------------------------------------------------------------------------

    @property
    def status(self) -> LinkStatus:
        """The link's state as `ps` shows it."""
        with self._mutex:
            state = self._policy.state
            return LinkStatus(
                state="reconnecting" if state == "silent" else state,
                since=self._since,
                reconnects=self._policy.reconnects,
                last_error=self._error,
                next_attempt=self._due_at if state == "reconnecting" else None,
                silent_since=self._silent_since,
            )

    @property
    def link(self) -> Link | None:
        """The link, None while it is not up; one whose host is silent may answer again."""
        with self._mutex:
            return self._link if self._policy.state in {"up", "silent"} else None

    @property
    def silent(self) -> bool:
        """Whether the link stands and its host gives no sign of life: it should not be used now."""
        with self._mutex:
            return self._policy.state == "silent"

    def want(self, wanted: bool) -> None:
        """Set whether a session or a forward wants this host; a wanted link is kept and restored."""
        with self._mutex:
            if wanted != self._policy.wanted:
                self._used = self._clock.monotonic()
                self._feed("want" if wanted else "release")
            self._wake.notify_all()

    def acquire(self, operation: Operation, *, renew: bool = False) -> Link:
        """Return the link, logging in first if it is not up; prompts go to the operation's client.

        Args:
            operation: its cancellation ends the login.
            renew: if the host is silent, log in again; else wait until it answers or is given up. The silent connection
                stays until the new one is logged in, and is kept instead of that if the host has answered by then.

        Returns:
            A link that was alive a moment ago.

        Raises:
            JupymanError: as `Link.open`.
        """
        while (link := self._acquired(operation, renew=renew)) is None:
            pass  # the host fell silent in between
        return link

    def _acquired(self, operation: Operation, *, renew: bool) -> Link | None:
        self._enter(operation, renew=renew)
        try:
            with self._mutex:
                self._used = self._clock.monotonic()
                standing = self._link
                if standing is not None and not standing.alive:  # it has just ended; the notice is under way
                    self._lost(standing, "the connection ended")
                    standing = None
                if standing is not None and self._policy.state == "up":
                    return standing
                if standing is not None and not renew:
                    return None
                if standing is None:
                    self._feed("begin")

            def ask(kind: str, text: str) -> str:
                return operation.ask(Prompt(id="", kind=_KINDS.get(kind, "text"), text=text))

            return self._open(ask if operation.client.interactive else None, operation.cancelled, instead_of=standing)
        finally:
            self._login.release()

    def _enter(self, operation: Operation, *, renew: bool) -> None:
        """Take `_login`; without `renew`, wait first until a silent host has answered or was given up.

        Raises:
            Interrupted: the operation was cancelled.
        """
        while True:
            if self._closed:
                raise errors.Interrupted("the daemon is stopping")
            if not renew and self.silent:
                self._wait_for_life(operation)
            if self._login.acquire(timeout=0.1):
                if renew or not self.silent:
                    return
                self._login.release()
            elif operation.cancelled.is_set():
                raise errors.Interrupted("interrupted while waiting for a login that is under way")

    def _wait_for_life(self, operation: Operation) -> None:
        text = f"{self.name} does not answer: waiting for it (jupyman up logs in again)"
        operation.emit(Step(key="connect", text=text, state="run"))
        with self._wake:
            while self._policy.state == "silent" and not self._closed:
                if operation.cancelled.is_set():
                    raise errors.Interrupted(f"interrupted while waiting for an answer from {self.name}")
                self._wake.wait(LISTEN)

    def nudge(self, client: ClientContext) -> None:
        """Log in now instead of later: a client with fresh credentials has connected."""
        with self._mutex:
            self.client = client
            self._feed("nudge")

    @property
    def awaited(self) -> bool:
        """Whether the link is up, or to come back."""
        with self._mutex:
            return self._policy.state in {"up", "silent", "reconnecting"}

    @property
    def peer(self) -> str | None:
        """The address of the host's last link."""
        return self._peer

    @property
    def source(self) -> str | None:
        """The address of this computer to which the link is bound; None without a link, or if it is not known."""
        with self._mutex:
            return self._link.source if self._link is not None else None

    def disturbed(self, *, doubtful: bool) -> None:
        """Check the link, or log in, now: this computer slept, or its network changed.

        Args:
            doubtful: a connection is unlikely to survive that. If it does not answer within `silence.DEADLINE`, it is
                given up, and not only after `silence.PATIENCE`.
        """
        with self._mutex:
            if doubtful and self._policy.state in {"up", "silent"}:
                self._doubted = True
                if self._silence is not None:
                    self._silence = self._silence.doubted(self._clock.monotonic())
            if self.awaited:
                self._feed("nudge")

    def cut_off(self) -> None:
        """Give the link up: this computer has had no route to the host for a while."""
        with self._mutex:
            link = self._link if self._policy.state in {"up", "silent"} else None
        if link is not None:
            self._lost(link, "this computer has no route to it")

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

    def _open(self, ask: Ask | None, cancelled: threading.Event | None, *, instead_of: Link | None = None) -> Link:
        """Log in; the caller holds `_login`.

        Args:
            ask: the user's terminal, if there is one.
            cancelled: ends the attempt.
            instead_of: a link whose host is silent. The policy gets this login's events only once it has succeeded.
        """
        if instead_of is not None:
            link = self._log_in(self.destination, self.client, self._keyring, ask, cancelled)
            with self._mutex:
                if self._link is instead_of and instead_of.alive and self._policy.state == "up":
                    kept: Link | None = instead_of  # it has answered meanwhile, and has lost nothing
                else:
                    kept = None
                    if self._link is instead_of:
                        self._lost(instead_of, "a new login took its place")
                    self._feed("begin")
            if kept is not None:
                link.close()
                return kept
            return self._opened(link)
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
            # Also a name that does not resolve and a configuration that cannot be read: without a network no name
            # resolves, and a file that is being edited is complete again soon.
            self._reached = not isinstance(error, errors.HostSilent | errors.UnknownHost)
            self._feed("unreachable", error.message)
            raise
        except BaseException:
            self._feed("abandoned")
            raise
        return self._opened(link)

    def _opened(self, link: Link) -> Link:
        """Take a link into use; the caller holds `_login`."""
        with self._mutex:
            if not self._closed:
                self._link = link
                self._peer = link.peer
                self._doubted = False
                self._beat = self._used = self._clock.monotonic()
                self._feed("connected")
            unwanted = self._closed or self._policy.state != "up"
            if unwanted:
                self._link = None
        if unwanted:
            link.close()
            raise errors.Interrupted("the link is not wanted any more")
        link.on_lost(lambda reason: self._lost(link, reason))
        return link

    def _lost(self, link: Link, reason: str) -> None:
        with self._mutex:
            if self._link is not link or self._closed:
                return
            self._link = None
            self._feed("lost", reason)
        # Its jump hosts and ProxyCommand are still connected.
        threading.Thread(target=link.close, name=f"close {self.name}", daemon=True).start()

    def _feed(self, event: policy.EventName, reason: str | None = None) -> tuple[policy.Action, ...]:
        """Apply an event; return its actions. All are done by now, except a login, which is the caller's to do."""
        with self._mutex:
            before = self._policy
            self._policy, actions = policy.step(before, event)
            if self._policy.state != "silent":
                self._silence = self._silent_since = None
            if self._policy.state != "reconnecting":
                self._away_since = None
            elif event == "nudge" or self._away_since is None:
                self._away_since = self._clock.monotonic()
            if self._policy.state != before.state:
                if {self._policy.state, before.state} != {"silent", "reconnecting"}:  # both are shown as the latter
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
            if self._on_change is not None:
                self._on_change(self)
            return actions

    def _do(self, action: policy.Action) -> None:
        if action == "attach" and self._link is not None:
            self._due = self._due_at = None
            self._on_up(self)
            self.forwarder.attach(self._link)
        elif action == "detach":
            self._on_down(self)
            self.forwarder.detach()
            self._identified = None
        elif action == "disconnect":
            link, self._link = self._link, None
            if link is not None:
                threading.Thread(target=link.close, name=f"close {self.name}", daemon=True).start()
        elif action == "hold":
            self.forwarder.hold()
        elif action == "resume":
            self._on_up(self)
            self.forwarder.resume()
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
        # An attempt that was not answered has waited already.
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
                # Perhaps no thread could be started, or no file opened. If this thread ended, nothing would watch the
                # link.
                log.exception("%s: a turn failed", self.name)
                with self._wake:
                    self._clock.wait(self._wake, AGAIN)

    def _turn(self) -> None:
        self._heartbeat_if_due()
        self._listen()
        self._login_if_due()
        with self._mutex:
            if self._link is not None and self._link.busy > LOOKS:
                self._used = self._clock.monotonic()
            idle = self._clock.monotonic() - self._used
            if self._policy.state == "up" and not self._policy.wanted and idle > LINGER:
                self._feed("expired")

    def _pause(self) -> float:
        if self._policy.state == "up":
            due = self._beat + silence.INTERVAL
        elif self._policy.state == "silent":
            return LISTEN
        elif self._due is not None:
            due = self._due
        else:
            return AGAIN  # another thread is about to decide what comes next
        return max(0.0, due - self._clock.monotonic())

    def _heartbeat_if_due(self) -> None:
        with self._mutex:
            link = self._link if self._policy.state == "up" else None
            if link is None or self._clock.monotonic() < self._beat + silence.INTERVAL:
                return
        heard = link.heard
        try:
            link.heartbeat(silence.DEADLINE)
        except NoAnswer as error:
            self._fell_silent(link, heard, error.message)
            return
        except errors.JupymanError as error:
            self._lost(link, error.message)
            return
        if link is not self._identified:  # not as soon as it is up: users' commands go first
            self._identified = link
            threading.Thread(target=self._identify, args=(link,), name=f"identify {self.name}", daemon=True).start()
        with self._mutex:
            self._beat = self._clock.monotonic()
            self._doubted = False

    def _fell_silent(self, link: Link, heard: float, reason: str) -> None:
        """Note that the host has not answered in time: its connection stands, and may deliver everything later.

        Args:
            link: to it.
            heard: its last sign of life before the heartbeat; a later one, which may come now, ends the silence.
            reason: for `ps`.
        """
        with self._mutex:
            if self._link is not link or self._policy.state != "up":
                return
            if not self._doubted:
                instant = self._clock.monotonic()
                self._silence = Silence(heard=heard, since=instant - silence.DEADLINE)
                self._silent_since = self._clock.stamp(heard - instant)
                self._feed("silent", reason)
                return
        self._lost(link, reason)

    def _listen(self) -> None:
        """Check whether a silent host has given a sign of life, or is to be given up."""
        with self._mutex:
            link, quiet = self._link, self._silence
            if self._policy.state != "silent" or link is None or quiet is None:
                return
            instant, acknowledged = self._clock.monotonic(), link.acknowledged
            verdict = quiet.judge(heard=link.heard, acknowledged=acknowledged, instant=instant)
            if verdict == "life":
                self._beat, self._doubted = instant, False
                self._feed("life")
        if verdict == "over":
            self._lost(link, f"{self.name}: no sign of life for {quiet.lasts(acknowledged, instant):.0f} s")

    def _identify(self, link: Link) -> None:
        try:
            self._process = stale_connection.take_over(link, self._process)
            if self._process is not None:
                log.info("%s: process %d there carries the link", self.name, self._process.pid)
        except errors.JupymanError as error:
            log.debug("%s: the process of the last link was not looked up: %s", self.name, error.message)

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
                actions = self._feed("due")
            if "login" in actions:
                self._open(None, None)
        except errors.JupymanError as error:
            # Once, not for each of many attempts.
            log.log(logging.INFO if error.message != before else logging.DEBUG, "%s: %s", self.name, error.message)
        except Exception:
            log.exception("%s: background login failed", self.name)
        finally:
            with self._mutex:
                if self._policy.state == "reconnecting" and self._due is None:  # it ended without a result
                    self._feed("abandoned")
            self._login.release()


_KINDS: dict[str, Literal["secret", "text", "confirm"]] = {"secret": "secret", "confirm": "confirm"}
