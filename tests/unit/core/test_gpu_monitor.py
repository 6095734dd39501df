"""The look at the GPUs sends a token only to a server that is proven at that moment."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from jupyman.core.runtime.scheduler import Scheduler
from jupyman.core.sessions.gpu_monitor import GpuMonitor
from jupyman.core.sessions.registry import SessionRegistry, SessionRuntime
from jupyman.core.sessions.state import Doubted, Proven
from jupyman.host.shell.script import Facts
from jupyman.model import Gpu
from jupyman.model.gpu import GpuProcess
from tests.unit.core import known
from tests.unit.core.known import AT, server

LINK, OTHER_LINK = object(), object()
KERNEL = GpuProcess(pid=5, name="python", memory=1, ours=True, kernel="k", server=4121)
GPU = Gpu(index=0, uuid=None, name="A", memory_total=2, memory_used=1, utilization=0, processes=[KERNEL])


def nothing(sessions: SessionRegistry, session: SessionRuntime) -> None: ...


def found_again(sessions: SessionRegistry, session: SessionRuntime) -> None:
    sessions.apply(session, Proven(running=server(gpus=[0]), over=LINK, at=AT))


def doubted(sessions: SessionRegistry, session: SessionRuntime) -> None:
    sessions.apply(session, Doubted())


def replaced(sessions: SessionRegistry, session: SessionRuntime) -> None:
    sessions.apply(session, Proven(running=server(99, gpus=[0]), over=LINK, at=AT))


def proven_elsewhere(sessions: SessionRegistry, session: SessionRuntime) -> None:
    sessions.link_up("server1", OTHER_LINK)
    sessions.apply(session, Proven(running=server(gpus=[0]), over=OTHER_LINK, at=AT))


@pytest.mark.parametrize(
    ("change", "asked"),
    [(nothing, True), (found_again, True), (doubted, False), (replaced, False), (proven_elsewhere, False)],
)
def test_notebooks_are_asked_for_only_over_the_link_that_proves_the_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: Callable[..., None], asked: bool
) -> None:
    sessions = known.registry(tmp_path)
    session = known.put(sessions, running=server(gpus=[0]), state="running", link=LINK)
    sent: list[Any] = []

    def attribute(*_: Any) -> list[Gpu]:
        change(sessions, session)
        return [GPU]

    def paths(link: Any, running: Any) -> dict[str, str]:
        sent.append(link)
        return {}

    monkeypatch.setattr("jupyman.core.sessions.gpu_monitor.script.run", lambda *_, **__: Facts())
    monkeypatch.setattr("jupyman.core.sessions.gpu_monitor.gpu_facts.attribute", attribute)
    monkeypatch.setattr("jupyman.core.sessions.gpu_monitor.paths", paths)
    hosts: Any = None
    link: Any = LINK
    GpuMonitor(hosts, sessions, Scheduler())._look("server1", link, [session])
    assert sent == ([LINK] if asked else [])
