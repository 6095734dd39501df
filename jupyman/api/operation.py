"""The protocols between the daemon's HTTP server and the core."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Protocol

from jupyman.api.events import AnyEvent, Prompt
from jupyman.api.requests import AnyRequest, ClientContext
from jupyman.api.results import Result


class Operation(Protocol):
    """One request in progress: how the core talks to the client that waits for it."""

    client: ClientContext
    cancelled: threading.Event

    def emit(self, event: AnyEvent) -> None:
        """Send an event. Never blocks, and never raises after the client has disconnected."""

    def ask(self, prompt: Prompt, timeout: float = 300.0) -> str:
        """Ask the caller's terminal and wait.

        Args:
            prompt: the question; its id is assigned here.
            timeout: seconds.

        Returns:
            The answer.

        Raises:
            Interrupted: the client disconnected or gave up, or `timeout` passed.
        """

    def on_cancel(self, callback: Callable[[], None]) -> None:
        """Call `callback` once when the operation is cancelled; at once if it already is."""


class Backend(Protocol):
    """What the daemon serves: implemented by core/manager.py and by fakes in tests."""

    def handle(self, request: AnyRequest, operation: Operation) -> Result:
        """Handle one request, in a thread of its own.

        Returns:
            The result, of the type that the request names.

        Raises:
            JupymanError: an error for the user.
        """

    def redeem(self, code: str) -> str | None:
        """Exchange a one-time code for the URL with the token; None if it is unknown or was used."""

    def close(self) -> None:
        """Release links and listeners. Servers on hosts keep running."""
