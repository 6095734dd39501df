"""The operation for the daemon's own work, for which no client waits."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from jupyman import errors
from jupyman.api import AnyEvent, ClientContext, Prompt, Step

log = logging.getLogger(__name__)


class Background:
    """Logs the steps, answers no question.

    Args:
        client: how to log in; its terminal is not used.
    """

    def __init__(self, client: ClientContext) -> None:
        self.client = ClientContext(ssh_auth_sock=client.ssh_auth_sock, ssh_config=client.ssh_config)
        self.cancelled = threading.Event()

    def emit(self, event: AnyEvent) -> None:
        """Log finished steps."""
        if isinstance(event, Step) and event.state != "run":
            log.info("%s", event.text)

    def ask(self, prompt: Prompt, timeout: float = 300.0) -> str:
        """Refuse to ask.

        Raises:
            Interrupted: always.
        """
        del timeout
        raise errors.Interrupted(f"there is no terminal to answer: {prompt.text}")

    def on_cancel(self, callback: Callable[[], None]) -> None:
        """Do nothing: this operation cannot be cancelled."""
