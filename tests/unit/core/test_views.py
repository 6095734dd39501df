"""What `ps` shows of a session: a short loss of its link is not shown."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from jupyman.core.sessions import outage_page, token_exposure, views
from jupyman.core.sessions.registry import SessionRegistry, SessionRuntime
from jupyman.core.sessions.state import Absent, Proven
from jupyman.model import LinkStatus
from jupyman.ssh.forward.forwarder import Forwarder
from tests.unit.core import known
from tests.unit.core.known import AT, ENDED, UP, server

AWAY = LinkStatus(state="reconnecting", since=AT, last_error="no answer in 3 s")
LINK = object()


@pytest.fixture
def sessions(tmp_path: Path) -> SessionRegistry:
    return known.registry(tmp_path)


@pytest.fixture
def session(sessions: SessionRegistry) -> SessionRuntime:
    return known.put(sessions, running=server(), state="running", link=LINK)


@pytest.fixture
def forwarder() -> Iterator[Forwarder]:
    made = Forwarder("test")
    yield made
    made.close()


def test_a_session_is_lost_after_five_seconds_and_not_before(
    sessions: SessionRegistry, session: SessionRuntime, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [1000.0]
    monkeypatch.setattr("jupyman.core.sessions.views.time.monotonic", lambda: clock[0])
    assert sessions.view(session.current, UP).state == "running"
    sessions.link_lost("server1")
    assert not session.passes(), "nothing is carried to whatever comes next before it was looked at"
    seen = {}
    for away in (0.0, 2.0, 4.9, 5.1, 3600.0):
        clock[0] = 1000.0 + away
        shown = sessions.view(session.current, AWAY)
        seen[away] = shown.state
        assert shown.problems == []
        assert shown.server is not None
    assert seen == {0.0: "running", 2.0: "running", 4.9: "running", 5.1: "lost", 3600.0: "lost"}
    sessions.link_up("server1", LINK)
    sessions.link_lost("server1")  # lost once more before it was proven: it was away all the time
    assert sessions.view(session.current, AWAY).state == "lost"
    sessions.link_up("server1", LINK)
    sessions.apply(session, Proven(running=server(), over=LINK, at=AT))
    assert sessions.view(session.current, UP).state == "running"


def test_a_session_that_is_not_wanted_shows_no_trouble(sessions: SessionRegistry, session: SessionRuntime) -> None:
    sessions.take_down(session, release=False)
    link = LinkStatus(state="needs-auth", reconnects=3, last_error="it asks for a code")
    shown = sessions.view(session.current, link)
    assert (shown.link.state, shown.link.last_error, shown.link.reconnects) == ("idle", None, 3)


def test_a_session_that_is_down_keeps_its_listener_and_shows_no_address(
    sessions: SessionRegistry, session: SessionRuntime, forwarder: Forwarder
) -> None:
    listener = forwarder.listen(0, ("127.0.0.1", 8888), gate=session.passes)
    assert sessions.bind(session, listener, instead_of=None, status=lambda: UP, suspect=lambda: None)
    here = f"127.0.0.1:{listener.local_port}"
    shown = sessions.view(session.current, UP)
    assert ([one.local for one in shown.forwards], shown.held) == ([here], None)
    assert shown.url is not None
    sessions.take_down(session, release=False)
    shown = sessions.view(session.current, UP)
    assert (shown.forwards, shown.url, shown.held, shown.link.state) == ([], None, here, "idle")
    assert outage_page.session_away(session.current, UP).state == "the session is down"
    sessions.apply(session, Absent(problem=ENDED, at=0.0, restartable=True))
    away = outage_page.session_away(session.current, UP)
    assert away.state == "the session is down, and the server has ended"


def test_a_port_that_is_given_up_is_free(
    sessions: SessionRegistry, session: SessionRuntime, forwarder: Forwarder
) -> None:
    listener = forwarder.listen(0, ("127.0.0.1", 8888), gate=session.passes)
    assert sessions.bind(session, listener, instead_of=None, status=lambda: UP, suspect=lambda: None)
    sessions.take_down(session, release=True)
    assert (session.listener, session.current.bound_port) == (None, None)
    forwarder.listen(listener.local_port, ("127.0.0.1", 8888), strict=True)


def test_a_killed_session_takes_no_listener(
    sessions: SessionRegistry, session: SessionRuntime, forwarder: Forwarder
) -> None:
    sessions.remove(session)
    listener = forwarder.listen(0, ("127.0.0.1", 8888))
    assert not sessions.bind(session, listener, instead_of=None, status=lambda: UP, suspect=lambda: None)
    assert views.session(session.current, session.listener, UP).forwards == []


@pytest.mark.parametrize(
    ("uid", "taken", "who"),
    [
        (1000, True, None),  # a program of our own
        (1000, False, None),
        (None, False, None),  # no program, as far as is seen
        (None, True, "another program, perhaps another user's"),  # it has just left, or the system does not show it
        (0, True, "a program of user root (uid 0)"),
        (987654, False, "a program of uid 987654"),
    ],
)
def test_who_is_another_user(monkeypatch: pytest.MonkeyPatch, uid: int | None, taken: bool, who: str | None) -> None:
    monkeypatch.setattr(token_exposure, "own_uid", lambda: 1000)
    monkeypatch.setattr(token_exposure, "listener_uid", lambda port: uid)
    assert token_exposure.other_user(8888, taken=taken) == who
