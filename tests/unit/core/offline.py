"""The daemon's core without any host: each one is unreachable at once."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from jupyman import api, errors
from jupyman.core.links.supervisor import Supervisor
from jupyman.core.manager import Manager
from jupyman.paths import Paths

CLIENT = api.ClientContext()


class Quiet:
    """An operation that nobody watches; it keeps the steps."""

    def __init__(self, client: api.ClientContext = CLIENT) -> None:
        self.client = client
        self.cancelled = threading.Event()
        self.events: list[api.AnyEvent] = []

    def emit(self, event: api.AnyEvent) -> None:
        self.events.append(event)

    def ask(self, prompt: api.Prompt, timeout: float = 300.0) -> str:
        raise errors.Interrupted("nobody is there")

    def on_cancel(self, callback: Callable[[], None]) -> None: ...


def folders(where: Path) -> Paths:
    """Make the folders of a daemon."""
    made = Paths(where / "config", where / "state", where / "run")
    made.make()
    return made


@contextmanager
def managing(paths: Paths, login: Callable[..., Any] | None = None) -> Iterator[Callable[[], Manager]]:
    """Make managers.

    Args:
        paths: of all of them.
        login: instead of one that fails at once; as `supervisor.log_in`.
    """

    def unreachable(*_: Any) -> Any:
        raise errors.HostUnreachable("no host in this test")

    made: list[Manager] = []

    def make() -> Manager:
        made.append(Manager(paths))
        return made[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("jupyman.core.links.hosts.Supervisor", partial(Supervisor, login=login or unreachable))
        yield make
        for one in made:
            one.close()
