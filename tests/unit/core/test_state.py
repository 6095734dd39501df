"""A session's state: as a table, and under any order of events.

Over 400 lines because each rule of the machine has its example beside the invariants.
"""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import jupyman
from jupyman import errors
from jupyman.core.sessions import state as machine
from jupyman.core.sessions.state import (
    EVENTS,
    STATES,
    TABLE,
    Absent,
    Answered,
    Bound,
    Doubted,
    Down,
    GpusSeen,
    Killed,
    Launching,
    LaunchUndone,
    LinkLost,
    LinkUp,
    Listening,
    NotUsable,
    PortExposed,
    PortProblems,
    ProblemSeen,
    Proven,
    Refused,
    Reopened,
    SessionEvent,
    SessionState,
    Settled,
    TokenRenewed,
    UpFailed,
    UpStarted,
    Wanted,
    entered,
    may_restart,
    restored,
    step,
)
from jupyman.model import GpuUse, Problem, SessionSpec
from tests.unit.core.known import AT, ENDED, server

ROOT = Path(__file__).parents[3]
SPEC = SessionSpec(name="server1", host="server1", restart="always")
LINK, OTHER_LINK = object(), object()
SERVER, OTHER_SERVER = server(1), server(2)
MUTE = Problem(code="server-mute", severity="error", text="it does not listen", fix="f")


def after(*events: SessionEvent, start: SessionState | None = None) -> SessionState:
    """Return the state after some events; a session read from disk is at their beginning."""
    reached = restored(SPEC) if start is None else start
    for event in events:
        reached = step(reached, event).state
    return reached


def proven(over: object = LINK, **more: Any) -> Proven:
    return Proven(running=SERVER, over=over, at=AT, **more)


def gone(at: float = 0.0, *, restartable: bool = True, **more: Any) -> Absent:
    return Absent(problem=ENDED, at=at, restartable=restartable, **more)


OPEN = after(LinkUp(link=LINK), Bound(port=8888), proven())

# --- the server's state -------------------------------------------------------------------------------------------


def test_every_pair_has_a_row_and_every_event_a_change() -> None:
    assert set(TABLE) == {(state, event) for state in STATES for event in EVENTS}
    assert set(machine._CHANGES) == set(EVENTS)


def test_exited_is_entered_by_proof_alone() -> None:
    assert {event for (state, event), following in TABLE.items() if following == "exited" != state} == {Absent}


def test_a_new_session_runs_when_it_has_answered() -> None:
    new = after(UpStarted(downs=0), Launching(), start=entered(SPEC, LINK))
    listening = after(Listening(over=LINK), Bound(port=8888), start=new)
    assert (new.state, new.passes, listening.state, listening.passes) == ("starting", False, "starting", True)
    seen = after(proven(), start=listening)
    assert (seen.state, seen.passes) == ("starting", True)
    answered = after(Answered(), Wanted(spec=SPEC), start=seen)
    assert (answered.state, answered.spec.pid, answered.spec.local_port) == ("running", 1, 8888)


@pytest.mark.parametrize("before", ["lost", "exited", "running"])
def test_a_launch_that_fails_leaves_the_state_as_it_was(before: str) -> None:
    ways: dict[str, SessionState] = {
        "lost": after(LinkUp(link=LINK)),
        "exited": after(LinkUp(link=LINK), gone(restartable=False)),
        "running": OPEN,
    }
    failed = after(UpStarted(downs=0), Launching(), Listening(over=LINK), UpFailed(undone=True), start=ways[before])
    assert (failed.state, failed.passes, failed.running) == (before, False, None)


def test_a_server_that_may_run_is_not_exited() -> None:
    assert after(NotUsable(problem=MUTE), start=OPEN).state == "lost"
    assert after(gone(), start=OPEN).state == "exited"


def test_what_a_look_saw_counts_only_if_nothing_came_in_between() -> None:
    for event in (proven(before=SERVER), gone(before=SERVER), NotUsable(problem=MUTE, before=SERVER)):
        assert after(event, start=OPEN) is not OPEN
        launching = after(Launching(), start=OPEN)
        assert after(event, start=launching) is launching
        replaced = after(Proven(running=OTHER_SERVER, over=LINK, at=AT), start=OPEN)
        assert after(event, start=replaced) is replaced


# --- the gate -----------------------------------------------------------------------------------------------------


def test_the_gate_needs_a_proof_over_the_link_that_is_up() -> None:
    assert OPEN.passes
    assert not after(proven()).passes, "there is no link"
    for event in (LinkLost(at=1.0), LinkUp(link=OTHER_LINK), Refused(), Doubted(), NotUsable(problem=MUTE)):
        assert not after(event, start=OPEN).passes, event
    back = after(LinkLost(at=1.0), LinkUp(link=OTHER_LINK), start=OPEN)
    assert after(proven(LINK), start=back) is back, "by the old link"
    assert after(Listening(over=LINK), start=back) is back
    assert after(proven(OTHER_LINK), start=back).passes


def test_a_gate_that_opens_wakes_the_connections_that_wait() -> None:
    closed = after(LinkUp(link=LINK), Bound(port=8888))
    assert step(closed, proven()).effects == ("wake",)
    assert step(OPEN, proven()).effects == ()
    assert step(after(Down(), start=OPEN), proven()).effects == ()


def test_down_and_up() -> None:
    down = after(Down(), start=OPEN)
    assert (down.passes, down.url, down.spec.wanted, down.bound_port) == (False, None, False, 8888)
    again = after(proven(before=SERVER), start=down)
    assert (again.down, again.passes) == (True, False)
    reopened = after(UpStarted(downs=1), Reopened(), start=again)
    assert (reopened.down, reopened.passes) == (False, True)
    assert after(UpFailed(undone=False), start=reopened).down
    assert after(Wanted(spec=SPEC), UpFailed(undone=False), start=reopened).down is False
    stands = after(Down(), Reopened(), Wanted(spec=SPEC), start=reopened)
    assert (stands.down, stands.spec.wanted) == (True, False)


def test_a_down_after_the_request_for_an_up_stands() -> None:
    requested = OPEN.downs
    down = after(Down(), UpStarted(downs=requested), Reopened(), Wanted(spec=SPEC), start=OPEN)
    assert (down.down, down.spec.wanted, down.passes) == (True, False, False)
    with pytest.raises(errors.Interrupted, match="taken down"):
        down.require_kept(requested)
    twice = after(Down(), Down(), start=OPEN)
    assert after(UpStarted(downs=1), Reopened(), start=twice).down, "requested before the second one"
    assert not after(UpStarted(downs=2), Reopened(), start=twice).down
    with pytest.raises(errors.Interrupted, match="killed"):
        after(Killed(), start=OPEN).require_kept(requested)
    OPEN.require_kept(requested)


def test_down_may_give_up_the_port() -> None:
    released = after(PortProblems(problems=(MUTE,)), Down(release=True), start=OPEN)
    assert (released.spec.released, released.bound_port, released.port_problems) == (True, None, ())


def test_a_token_that_another_user_may_know() -> None:
    exposed = after(PortExposed(port=8888), start=OPEN)
    assert (exposed.passes, exposed.url, exposed.spec.heard) == (False, None, True)
    assert not after(proven(), UpStarted(downs=0), start=exposed).passes
    changed = after(TokenRenewed(running=SERVER, token="new"), start=exposed)
    assert (changed.passes, changed.spec.heard, changed.url) == (True, False, "http://127.0.0.1:8888/lab?token=new")
    assert after(PortExposed(port=8888), start=changed) is changed, "no tab has sent the new one there"
    assert not after(PortExposed(port=8889), start=changed).passes
    kept = after(TokenRenewed(running=SERVER, token=None), start=exposed)
    assert (kept.passes, kept.spec.heard) == (True, True)
    assert not after(UpStarted(downs=0), start=kept).passes, "it may be another server now"
    other = after(TokenRenewed(running=OTHER_SERVER, token="new"), start=exposed)
    assert other.running == SERVER


def test_what_the_disk_says_holds_from_the_beginning() -> None:
    down = restored(SessionSpec(name="s", host="h", wanted=False, heard=True))
    assert (down.down, down.token_exposed) == (True, True)
    wanted = restored(SPEC)
    assert (wanted.down, wanted.token_exposed) == (False, False)


# --- what is kept with it -----------------------------------------------------------------------------------------


def test_a_link_that_is_lost_again_has_been_away_all_the_time() -> None:
    away = after(LinkLost(at=1.0), LinkUp(link=OTHER_LINK), LinkLost(at=9.0), start=OPEN)
    assert away.away_since == 1.0
    assert after(LinkUp(link=LINK), proven(), start=away).away_since is None


def test_problems_of_a_server_that_was_away_are_over_when_it_is_proven() -> None:
    exposed = Problem(code="kernels-exposed", severity="warning", text="t", fix="f")
    restarted = Problem(code="server-restarted", severity="info", text="t", fix="f")
    found = after(NotUsable(problem=MUTE), ProblemSeen(problem=restarted), proven(exposed=(exposed,)), start=OPEN)
    assert found.problems == (restarted, exposed)
    assert after(proven(), start=found).problems == (restarted,)


def test_what_was_seen_of_the_gpus_belongs_to_one_server() -> None:
    seen = GpusSeen(pid=1, use=(GpuUse(gpu=0, pid=5, memory=1),), problems=(MUTE,))
    shown = after(seen, start=OPEN)
    assert (shown.gpu_use, shown.gpu_problems) == (seen.use, seen.problems)
    assert after(proven(), start=shown).gpu_use == seen.use
    another = after(Proven(running=OTHER_SERVER, over=LINK, at=AT), start=shown)
    assert (another.gpu_use, another.gpu_problems) == ((), ())
    assert after(seen, start=another) is another


def test_a_server_that_is_found_again_is_what_it_was() -> None:
    state = restored(msgspec.structs.replace(SPEC, pid=1, adopted=True))
    assert state.recognised(SERVER).server.adopted
    assert state.recognised(OTHER_SERVER) is OTHER_SERVER


# --- restarts -----------------------------------------------------------------------------------------------------


def test_three_restarts_in_ten_minutes_and_no_more() -> None:
    state, restarts = OPEN, 0
    for second in range(int(machine.RESTARTS_WITHIN) * 2):
        state, effects = step(after(Answered(), start=state), gone(float(second)))
        restarts += "restart" in effects
        assert ("restart" in effects) != ("release" in effects)
        assert ("restart-limit" in {problem.code for problem in state.problems}) == ("release" in effects)
    assert restarts == 2 * machine.RESTARTS


@pytest.mark.parametrize(
    ("event", "spec"),
    [
        (gone(restartable=False), SPEC),
        (gone(), msgspec.structs.replace(SPEC, restart="never")),
        (NotUsable(problem=MUTE), SPEC),
    ],
)
def test_what_is_not_restarted(event: SessionEvent, spec: SessionSpec) -> None:
    assert step(after(Wanted(spec=spec), start=OPEN), event).effects == ("release",)
    assert step(after(Down(), start=OPEN), gone()).effects == ("release",)


def test_the_limit_of_restarts() -> None:
    assert may_restart([], 0.0)
    assert may_restart([0.0, 1.0], 2.0)
    assert not may_restart([0.0, 1.0, 2.0], machine.RESTARTS_WITHIN - 1)
    assert may_restart([0.0, 1.0, 2.0], machine.RESTARTS_WITHIN + 1)


# --- any order of events ------------------------------------------------------------------------------------------

LINKS = st.sampled_from([LINK, OTHER_LINK])
SERVERS = st.sampled_from([SERVER, OTHER_SERVER])
SEEN = st.sampled_from([SERVER, OTHER_SERVER, None, msgspec.UNSET])
ANY: dict[type[SessionEvent], st.SearchStrategy[Any]] = {
    **{kind: st.builds(kind) for kind in (Launching, Answered, LaunchUndone, Refused, Doubted, Reopened, Settled)},
    UpStarted: st.builds(UpStarted, downs=st.integers(0, 2)),
    Listening: st.builds(Listening, over=LINKS),
    Proven: st.builds(Proven, running=SERVERS, over=LINKS, at=st.just(AT), before=SEEN),
    UpFailed: st.builds(UpFailed, undone=st.booleans()),
    Wanted: st.builds(Wanted, spec=st.just(SPEC)),
    LinkUp: st.builds(LinkUp, link=LINKS),
    LinkLost: st.builds(LinkLost, at=st.just(1.0)),
    Absent: st.builds(
        Absent,
        problem=st.just(ENDED),
        at=st.floats(0.0, 2000.0),
        restartable=st.booleans(),
        before=SEEN,
        running=SERVERS,
    ),
    NotUsable: st.builds(NotUsable, problem=st.just(MUTE), before=SEEN, running=SERVERS),
    Down: st.builds(Down, release=st.booleans()),
    Bound: st.builds(Bound, port=st.sampled_from([None, 8888, 8889])),
    PortExposed: st.builds(PortExposed, port=st.sampled_from([8888, 8889])),
    TokenRenewed: st.builds(TokenRenewed, running=SERVERS, token=st.sampled_from([None, "new"])),
    PortProblems: st.builds(PortProblems, problems=st.just((MUTE,))),
    ProblemSeen: st.builds(ProblemSeen, problem=st.just(MUTE)),
    GpusSeen: st.builds(GpusSeen, pid=st.sampled_from([1, 2]), use=st.just(()), problems=st.just((MUTE,))),
    Killed: st.builds(Killed),
}
ORDERS = st.lists(st.one_of(*ANY.values()), max_size=40)
STARTS = st.sampled_from([restored(SPEC), restored(msgspec.structs.replace(SPEC, wanted=False)), entered(SPEC, LINK)])


def test_any_order_draws_from_every_event() -> None:
    assert set(ANY) == set(EVENTS)


@settings(max_examples=1000)
@given(STARTS, ORDERS)
@example(restored(SPEC), [LinkUp(link=LINK), proven(), LinkLost(at=1.0), LinkUp(link=OTHER_LINK)])
@example(restored(SPEC), [LinkUp(link=LINK), proven(), LinkUp(link=OTHER_LINK), LinkUp(link=LINK)])
@example(
    restored(SPEC),
    [UpStarted(downs=0), PortExposed(port=8888), TokenRenewed(running=SERVER, token="new"), UpStarted(downs=0)],
)
def test_any_order_of_events_keeps_the_invariants(state: SessionState, events: list[SessionEvent]) -> None:
    link = state.link  # the one that is up, and the one over which there is a proof: by what the events say alone
    proof: object | None = None
    for event in events:
        before = state
        state, effects = step(before, event)
        if isinstance(event, LinkUp):
            link, proof = event.link, proof if event.link is link else None
        elif isinstance(event, LinkLost):
            link = None
        if isinstance(event, (Listening, Proven)) and event.over is link:
            proof = link
        elif isinstance(event, (LinkLost, Refused, Doubted)):
            proof = None
        if state.passes:
            assert proof is not None
            assert proof is link, "over this very link"
            assert not (state.down)
            assert not (state.token_exposed)
            assert not (state.killed)
        if state.state == "exited" != before.state:
            assert isinstance(event, (Absent, UpFailed)), "a launch that failed leaves it as exited as it was"
        if state.url is not None:
            assert str(state.bound_port) in state.url
            assert state.state != "exited"
            assert not (state.down)
            assert not (state.token_exposed)
        if before.down and not state.down:
            assert isinstance(event, Reopened), "no look undoes it"
        assert not (state.down and state.spec.wanted)
        if before.token_exposed and not state.token_exposed:
            assert isinstance(event, TokenRenewed)
        if before.killed:
            assert state is before
        if state.state == "starting" != before.state:
            assert isinstance(event, Launching)
        if "restart" in effects:
            recent = [moment for moment in state.restarts if 0 <= state.restarts[-1] - moment < machine.RESTARTS_WITHIN]
            assert len(recent) <= machine.RESTARTS
            assert state.spec.wanted
        assert ("wake" in effects) == (state.passes and not before.passes)
        assert state.proven == (state.proven_over is not None), "a proof ends with its link"


# --- the one owner ------------------------------------------------------------------------------------------------

PACKAGE = Path(jupyman.__file__).parent
OWNERS = {"current": "core/sessions/registry.py", "listener": "core/sessions/registry.py"}
FIELDS = set(SessionState.__struct_fields__) - {"spec", "state", "problems"}  # these are names of others, too


def trespasses(tree: ast.AST, path: str) -> list[str]:
    """Return what changes the state of a session, or a handle of it, beside its owner."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, (ast.Store, ast.Del)):
            own = isinstance(node.value, ast.Name) and node.value.id == "self"
            owner = OWNERS.get(node.attr, "core/sessions/state.py") if node.attr in {*OWNERS, *FIELDS} else path
            if not own and path != owner:
                found.append(f"{node.lineno}: .{node.attr} =")
        if isinstance(node, ast.Call) and path != "core/sessions/state.py":
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            changed = {keyword.arg for keyword in node.keywords}
            if name == "SessionState" or (name in {"replace", "force_setattr", "setattr"} and changed & FIELDS):
                found.append(f"{node.lineno}: {name}()")
    return found


def test_nothing_beside_the_machine_changes_a_state() -> None:
    found = {
        path: lines
        for file in sorted(PACKAGE.rglob("*.py"))
        for path in [file.relative_to(PACKAGE).as_posix()]
        if (lines := trespasses(ast.parse(file.read_text(encoding="utf-8")), path))
    }
    assert found == {}


def test_the_walker_sees_every_way_to_change_one() -> None:
    for text in (
        "session.current = other",
        "session.listener = None",
        "session.current.gpu_problems = ()",
        "live.down, live.running = True, None",
        "del session.current",
        "SessionState(spec=spec)",
        "state.SessionState(spec=spec)",
        "msgspec.structs.replace(session.current, down=True)",
        "replace(state, running=None)",
    ):
        assert trespasses(ast.parse(text), "core/verbs/up.py"), text
    for text in (
        "self.running = 1",
        "msgspec.structs.replace(spec, wanted=True)",
        "session.current.spec",
        "x.state = 1",
    ):
        assert trespasses(ast.parse(text), "core/verbs/up.py") == [], text


def test_the_diagram_of_the_documents_is_this_table() -> None:
    text = "\n".join(machine.diagram())
    drawn = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    assert f"```mermaid\n{text}\n```" in drawn
