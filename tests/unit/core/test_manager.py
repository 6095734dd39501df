"""Every request that a client can make has a verb, and a code opens a session once."""

from __future__ import annotations

import typing
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from jupyman import api, errors
from jupyman.core import manager as routing
from jupyman.core.manager import Manager
from jupyman.core.runtime import one_time_codes
from jupyman.core.verbs import env
from jupyman.model import SessionSpec
from tests.unit.core import offline
from tests.unit.core.offline import Quiet


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    with offline.managing(offline.folders(tmp_path)) as make:
        yield make()


def test_each_request_has_a_verb(manager: Manager) -> None:
    of_the_daemon_itself = {api.DaemonStatus, api.DaemonStop}
    assert set(manager._verbs) == set(typing.get_args(api.AnyRequest)) - of_the_daemon_itself
    assert set(routing.ENVIRONMENT_REQUESTS) == set(env.VERBS)


def test_a_verb_gets_the_host_that_is_meant(manager: Manager) -> None:
    manager.sessions.enter(SessionSpec(name="mine", host="lab1"))
    operation = Quiet()
    with pytest.raises(errors.HostUnreachable):
        manager.handle(api.KernelLs(), operation)
    steps = [event for event in operation.events if isinstance(event, api.Step)]
    assert [step.text for step in steps] == ["connecting to lab1", "connecting to lab1: failed"]


@pytest.mark.parametrize(
    "request_",
    [api.Tunnel(specs=["70000"], host="lab1"), api.Tunnel(specs=["x"]), api.EnvMirror(action="use", name="nobody")],
)
def test_what_cannot_be_meant_is_refused_before_a_login(manager: Manager, request_: api.AnyRequest) -> None:
    operation = Quiet()
    with pytest.raises(errors.UsageFault):
        manager.handle(request_, operation)
    assert operation.events == []
    assert manager.hosts.all() == {}


def test_down_takes_all_that_exist_and_returns_the_first_failure(manager: Manager) -> None:
    manager.sessions.enter(SessionSpec(name="mine", host="lab1"))
    operation = Quiet()
    result = manager.handle(api.Down(sessions=["nobody", "mine"]), operation)
    assert [session.name for session in result.sessions] == ["mine"]
    assert result.error.code == "unknown-session"
    assert [event.key for event in operation.events if isinstance(event, api.Step)] == ["down nobody"]
    with pytest.raises(errors.UnknownSession):
        manager.handle(api.Down(sessions=["nobody"]), operation)


def test_a_session_that_is_not_forwarded_has_no_address(manager: Manager) -> None:
    manager.sessions.enter(SessionSpec(name="mine", host="lab1", wanted=False))
    for request in (api.Url(), api.OpenCode()):
        operation = Quiet()
        with pytest.raises(errors.LinkLost, match="not forwarded"):
            manager.handle(request, operation)
        assert operation.events == []


def test_a_code_is_good_once_and_for_a_short_time(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    clock: Callable[[], float] = lambda: now[0]  # noqa: E731 - shorter than a function
    monkeypatch.setattr("jupyman.core.runtime.one_time_codes.time.monotonic", clock)
    codes = one_time_codes.OneTimeCodes()
    first, second, late = codes.issue("mine"), codes.issue("mine"), codes.issue("other")
    assert len({first, second, late}) == 3
    assert codes.redeem(first) == "mine"
    assert codes.redeem(first) is None
    assert codes.redeem("guessed") is None
    now[0] += one_time_codes.LIFE
    assert codes.redeem(second) == "mine"
    now[0] += 0.1
    assert codes.redeem(late) is None
    codes.issue("mine")
    assert len(codes._codes) == 1
