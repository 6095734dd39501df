"""What `ps` says of a session while its link is away: a blip is none of the user's business."""

from __future__ import annotations

import pytest

from jupyman.core.sessions import token_exposure
from jupyman.core.sessions.monitor import link_gone
from jupyman.core.sessions.registry import Live, SessionRegistry
from jupyman.core.sessions.store import Store
from jupyman.model import LinkStatus, Running, SessionSpec
from jupyman.ssh.forward.forwarder import Forwarder
from tests.fakes import SESSION

UP = LinkStatus(state="up", since="2026-01-02T03:04:05Z")
AWAY = LinkStatus(state="reconnecting", since="2026-01-02T03:04:05Z", last_error="no answer in 3 s")


@pytest.fixture
def known(tmp_path_factory: pytest.TempPathFactory) -> tuple[SessionRegistry, Live]:
    server = SESSION.server
    assert server is not None
    running = Running(
        name="server1", server=server, token="t", directory="/d", base_url="/", boot_id="b", start_ticks=1
    )
    live = Live(spec=SessionSpec(name="server1", host="server1"), state="running")
    live.proven(running, [])
    registry = SessionRegistry(Store(tmp_path_factory.mktemp("state") / "state.json"))
    registry.live["server1"] = live
    return registry, live


def test_a_session_is_lost_after_five_seconds_and_not_before(
    known: tuple[SessionRegistry, Live], monkeypatch: pytest.MonkeyPatch
) -> None:
    registry, live = known
    clock = [1000.0]
    monkeypatch.setattr("jupyman.core.sessions.registry.time.monotonic", lambda: clock[0])
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


def test_a_session_that_nobody_wants_shows_no_trouble(known: tuple[SessionRegistry, Live]) -> None:
    _, live = known
    live.spec = SessionSpec(name="server1", host="server1", wanted=False)
    shown = live.view(LinkStatus(state="needs-auth", reconnects=3, last_error="it asks for a code"))
    assert (shown.link.state, shown.link.last_error, shown.link.reconnects) == ("idle", None, 3)


# --- down, and a token that another user may know ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("verified", "parked", "sealed", "passes"),
    [
        (True, False, False, True),
        (False, False, False, False),
        (True, True, False, False),
        (True, False, True, False),
        (True, True, True, False),
    ],
)
def test_who_gets_through_to_the_server(
    known: tuple[SessionRegistry, Live], verified: bool, parked: bool, sealed: bool, passes: bool
) -> None:
    _, live = known
    live.verified, live.parked, live.sealed = verified, parked, sealed
    assert live.passes() is passes


def test_a_session_that_is_down_keeps_its_listener_and_shows_no_address(known: tuple[SessionRegistry, Live]) -> None:
    _, live = known
    forwarder = Forwarder("test")
    try:
        live.take(forwarder.listen(0, ("127.0.0.1", 8888)), lambda: UP, lambda: None)
        assert live.listener is not None
        here = f"127.0.0.1:{live.listener.local_port}"
        shown = live.view(UP)
        assert ([one.local for one in shown.forwards], shown.held) == ([here], None)
        assert shown.url is not None
        live.park()
        shown = live.view(UP)
        assert (shown.forwards, shown.url, shown.held, shown.link.state) == ([], None, here, "idle")
        assert live._away(UP).state == "the session is down"
        live.state = "exited"
        assert live._away(UP).state == "the session is down, and the server has ended"
    finally:
        forwarder.close()


def test_what_the_disk_says_holds_from_the_first_moment() -> None:
    down = Live(spec=SessionSpec(name="s", host="h", wanted=False, heard=True))
    assert (down.parked, down.sealed) == (True, True)
    wanted = Live(spec=SessionSpec(name="s", host="h"))
    assert (wanted.parked, wanted.sealed) == (False, False)


def test_a_port_is_overheard_once(known: tuple[SessionRegistry, Live]) -> None:
    _, live = known
    live.overheard(8888)
    assert (live.sealed, live.spec.heard) == (True, True)
    live.spec, live.sealed = SessionSpec(name="server1", host="server1"), False  # mended
    live.overheard(8888)
    assert not live.sealed, "nobody has told him the new token"
    live.overheard(8889)
    assert live.sealed


@pytest.mark.parametrize(
    ("uid", "taken", "who"),
    [
        (1000, True, None),  # a program of our own
        (1000, False, None),
        (None, False, None),  # nobody, as far as is seen, and nothing says otherwise
        (None, True, "another program, perhaps another user's"),  # he has just left, or the system does not tell
        (0, True, "a program of user root (uid 0)"),
        (987654, False, "a program of uid 987654"),
    ],
)
def test_who_is_a_stranger(monkeypatch: pytest.MonkeyPatch, uid: int | None, taken: bool, who: str | None) -> None:
    monkeypatch.setattr(token_exposure, "own_uid", lambda: 1000)
    monkeypatch.setattr(token_exposure, "listener_uid", lambda port: uid)
    assert token_exposure.stranger(8888, taken=taken) == who
