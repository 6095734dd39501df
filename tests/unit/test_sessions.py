"""What `ps` says of a session while its link is away: a blip is none of the user's business."""

from __future__ import annotations

import pytest

from jupyman.core.restore import link_gone
from jupyman.core.sessions import Live, Sessions
from jupyman.core.store import Store
from jupyman.model import LinkStatus, Running, SessionSpec
from tests.fakes import SESSION

UP = LinkStatus(state="up", since="2026-01-02T03:04:05Z")
AWAY = LinkStatus(state="reconnecting", since="2026-01-02T03:04:05Z", last_error="no answer in 3 s")


@pytest.fixture
def known(tmp_path_factory: pytest.TempPathFactory) -> tuple[Sessions, Live]:
    server = SESSION.server
    assert server is not None
    running = Running(
        name="server1", server=server, token="t", directory="/d", base_url="/", boot_id="b", start_ticks=1
    )
    live = Live(spec=SessionSpec(name="server1", host="server1"), state="running")
    live.proven(running, [])
    registry = Sessions(Store(tmp_path_factory.mktemp("state") / "state.json"))
    registry.live["server1"] = live
    return registry, live


def test_a_session_is_lost_after_five_seconds_and_not_before(
    known: tuple[Sessions, Live], monkeypatch: pytest.MonkeyPatch
) -> None:
    registry, live = known
    clock = [1000.0]
    monkeypatch.setattr("jupyman.core.sessions.time.monotonic", lambda: clock[0])
    assert live.view(UP).state == "running"
    link_gone(registry, "server1")
    assert not live.verified, "nothing is carried to whatever comes next before it was looked at"
    seen = {}
    for away in (0.0, 2.0, 4.9, 5.1, 3600.0):
        clock[0] = 1000.0 + away
        shown = live.view(AWAY)
        seen[away] = shown.state
        assert shown.problems == []
        assert shown.server is not None
    assert seen == {0.0: "running", 2.0: "running", 4.9: "running", 5.1: "lost", 3600.0: "lost"}
    link_gone(registry, "server1")  # lost once more before it was proven: it was away all the time
    assert live.view(AWAY).state == "lost"
    assert live.running is not None
    live.proven(live.running, [])
    assert live.view(UP).state == "running"


def test_a_session_that_nobody_wants_shows_no_trouble(known: tuple[Sessions, Live]) -> None:
    _, live = known
    live.spec = SessionSpec(name="server1", host="server1", wanted=False)
    shown = live.view(LinkStatus(state="needs-auth", reconnects=3, last_error="it asks for a code"))
    assert (shown.link.state, shown.link.last_error, shown.link.reconnects) == ("idle", None, 3)
