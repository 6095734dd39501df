"""An operation that several clients may wait for: two equal `up` at once start one server.

Threads: the work runs in a thread of its own, and each client waits in the thread of its request. `_changed` guards
`_events`, `_waiters`, `_callbacks`, `_at_end` and `_thread`; it is held while events are replayed to a client that
joins, so that none is lost or sent twice, and never while anything waits. `_result` and `_error` are written by the
work's thread before `_ended` is set, and read after it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from jupyman import errors
from jupyman.api import AnyEvent, ClientContext, OpenBrowser, Operation, Prompt, Step


class SharedOperation:
    """Runs `work` once; each `join` waits for its end and gets all its events.

    When the last client leaves, the work is cancelled, as Ctrl-C should do; while another one waits it goes on. This
    object is also the `Operation` that the work gets.

    Args:
        work: takes this object as its operation, returns the result.
        client: of the first client: how to log in.
    """

    def __init__(self, work: Callable[[Operation], Any], client: ClientContext) -> None:
        self.client = client
        self.cancelled = threading.Event()
        self._work = work
        self._events: list[AnyEvent] = []
        self._waiters: list[Operation] = []
        self._callbacks: list[Callable[[], None]] = []
        self._at_end: list[Callable[[], None]] = []
        self._result: Any = None
        self._error: BaseException | None = None
        self._ended = threading.Event()
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None

    @property
    def ended(self) -> bool:
        """Whether the work is over."""
        return self._ended.is_set()

    def join(self, operation: Operation) -> Any:
        """Wait for the work's end; the first client starts it.

        Args:
            operation: the client's; gets all events, also those sent before it joined.

        Returns:
            The work's result.

        Raises:
            Interrupted: this client was cancelled.
            JupymanError: what the work raised.
        """
        with self._changed:
            for event in self._events:
                operation.emit(event)
            self._waiters.append(operation)
            if self._thread is None:
                thread = threading.Thread(target=self._run, name="shared operation", daemon=True)
                try:
                    thread.start()
                except BaseException:  # no thread is left: the next client makes another operation
                    self._ended.set()
                    raise
                self._thread = thread
            self._changed.notify_all()
        left = threading.Event()
        self._wait_for_end_or_leave(operation, left)
        if left.is_set() and not self._ended.is_set():
            with self._changed:
                self._waiters.remove(operation)
                last = not self._waiters
                self._changed.notify_all()
            if not last:
                raise errors.Interrupted("interrupted", "another jupyman up waits for this session, which goes on")
            self.cancel()
            self._ended.wait()  # nothing half-made is left when the client gets its answer
            raise errors.Interrupted("interrupted")
        if self._error is not None:
            raise self._error
        return self._result

    def cancel(self) -> None:
        """Ask the work to end and to undo what it made."""
        self.cancelled.set()
        with self._changed:
            callbacks, self._callbacks = self._callbacks, []
            self._changed.notify_all()
        for callback in callbacks:
            callback()

    def wait(self) -> None:
        """Wait for the work's end."""
        self._ended.wait()

    # --- Operation, for the work ------------------------------------------------------------------------------------

    def emit(self, event: AnyEvent) -> None:
        """Send an event to every client."""
        with self._changed:
            if not isinstance(event, OpenBrowser):
                # Progress replaces the progress before it: a host that reports progress for ever fills no memory.
                if self._events and _is_progress(event) and _is_progress(self._events[-1]):
                    self._events.pop()
                self._events.append(event)
            waiters = list(self._waiters)
        for waiter in waiters:
            waiter.emit(event)

    def ask(self, prompt: Prompt, timeout: float = 300.0) -> str:
        """Ask a client that has a terminal."""
        with self._changed:
            terminal = next((waiter for waiter in self._waiters if waiter.client.interactive), None)
        if terminal is None:
            raise errors.Interrupted(
                "a question must be answered, and there is no terminal", "run the command again on a terminal"
            )
        return terminal.ask(prompt, timeout)

    def on_cancel(self, callback: Callable[[], None]) -> None:
        """Call `callback` when the last client has left."""
        with self._changed:
            if not self.cancelled.is_set():
                self._callbacks.append(callback)
                return
        callback()

    def _wait_for_end_or_leave(self, operation: Operation, left: threading.Event) -> None:
        """Wait until the work ends, or until the client leaves, which sets `left`."""
        either = threading.Event()

        def leave() -> None:
            left.set()
            either.set()

        operation.on_cancel(leave)
        with self._changed:
            self._at_end.append(either.set)
            if self._ended.is_set():
                either.set()
        either.wait()

    def _run(self) -> None:
        try:
            self._result = self._work(self)
        except BaseException as error:
            self._error = error
        with self._changed:
            self._ended.set()
            callbacks = list(self._at_end)
        for callback in callbacks:
            callback()


def _is_progress(event: AnyEvent) -> bool:
    return isinstance(event, Step) and event.state == "run"
