"""The link's whole reconnect policy, as a table without I/O.

Rules, and everything that affects them lives in this file:

1. One link per host. `begin` is a foreground login (a user waits, prompts are possible), `due` a background one.
2. A background login never prompts. If a prompt would be needed the state is `needs-auth`, and nothing is tried again
   until a `begin`. A changed host key is `failed`, likewise.
3. An unreachable host is retried for ever while something is wanted on it, and never otherwise.
4. Every way into `up` attaches the forwards; every way out of it detaches them.
5. A nudge restarts the waiting: after sleep, or in another network, earlier failures mean nothing.
6. While the state is `reconnecting`, a login is scheduled or under way, in any order of events: each result of a login
   has a row that schedules the next one or leaves the state.
7. Silence is not an end. A host that does not answer makes the link `silent`: its connection and all streams on it
   stay, nothing new is asked of it, and no login is tried. It ends when the connection does, or when the supervisor
   gives it up (`lost`). `ps` shows `silent` as `reconnecting`.
8. A link that is up and no longer wanted stays up for the next command, until it has been idle for a while (`expired`).

docs/architecture.md draws the table; `python -m jupyman.core.links.policy` prints it in that form.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

from jupyman.model import LinkState

PolicyState = LinkState | Literal["silent"]
EventName = Literal[
    "begin",
    "connected",
    "unreachable",
    "auth",
    "hostkey",
    "lost",
    "due",
    "nudge",
    "want",
    "release",
    "expired",
    "abandoned",
    "silent",
    "life",
]
Action = Literal["login", "attach", "detach", "heartbeat", "hold", "resume", "schedule", "schedule-now", "disconnect"]

# begin       a foreground operation starts a login        connected   a login succeeded
# unreachable a login failed: network                      auth        a login failed: credentials
# hostkey     a login failed: the host's key               lost        the link ended
# due         the wait before a retry is over              nudge       woke up, or the network changed
# want        something is wanted on the host              release     nothing is wanted any more
# expired     a link that nothing wants was idle for long
# abandoned   a login ended without a result: it was cancelled, or something of ours broke
# silent      the host has not answered in time          life        it has answered after all
EVENTS: tuple[EventName, ...] = (
    "begin",
    "connected",
    "unreachable",
    "auth",
    "hostkey",
    "lost",
    "due",
    "nudge",
    "want",
    "release",
    "expired",
    "abandoned",
    "silent",
    "life",
)
STATES: tuple[PolicyState, ...] = ("idle", "connecting", "up", "silent", "reconnecting", "needs-auth", "failed")


@dataclass(frozen=True)
class LinkSnapshot:
    """The link as the policy sees it.

    Attributes:
        state: its name; `ps` shows `silent` as `reconnecting`.
        wanted: a session or a forward wants this host.
        attempt: retries since the link was last up.
        reconnects: times it came back by itself.
        lost: it was up and was lost since; else coming up is not counted as a reconnect.
    """

    state: PolicyState = "idle"
    wanted: bool = False
    attempt: int = 0
    reconnects: int = 0
    lost: bool = False


# (state, event) -> (state when wanted, actions, state when not wanted, actions). Every pair has a row.
_Row = tuple[PolicyState, tuple[Action, ...], PolicyState, tuple[Action, ...]]
TABLE: dict[tuple[PolicyState, EventName], _Row] = {
    ("idle", "begin"): ("connecting", (), "connecting", ()),
    ("idle", "want"): ("reconnecting", ("schedule-now",), "idle", ()),
    ("connecting", "connected"): ("up", ("attach",), "up", ("attach",)),
    ("connecting", "unreachable"): ("reconnecting", ("schedule",), "idle", ()),
    ("connecting", "auth"): ("needs-auth", (), "idle", ()),
    ("connecting", "hostkey"): ("failed", (), "idle", ()),
    ("connecting", "abandoned"): ("reconnecting", ("schedule",), "idle", ()),
    ("up", "lost"): ("reconnecting", ("detach", "schedule-now"), "idle", ("detach",)),
    ("up", "nudge"): ("up", ("heartbeat",), "up", ("heartbeat",)),
    ("up", "expired"): ("up", (), "idle", ("detach", "disconnect")),
    ("up", "silent"): ("silent", ("hold",), "silent", ("hold",)),
    ("silent", "life"): ("up", ("resume",), "up", ("resume",)),
    ("silent", "lost"): ("reconnecting", ("detach", "schedule-now"), "idle", ("detach",)),
    ("silent", "release"): ("idle", ("detach", "disconnect"), "idle", ("detach", "disconnect")),
    ("reconnecting", "begin"): ("connecting", (), "connecting", ()),
    ("reconnecting", "due"): ("reconnecting", ("login",), "idle", ()),
    ("reconnecting", "nudge"): ("reconnecting", ("schedule-now",), "idle", ()),
    ("reconnecting", "connected"): ("up", ("attach",), "up", ("attach",)),
    ("reconnecting", "unreachable"): ("reconnecting", ("schedule",), "idle", ()),
    ("reconnecting", "auth"): ("needs-auth", (), "idle", ()),
    ("reconnecting", "hostkey"): ("failed", (), "idle", ()),
    ("reconnecting", "abandoned"): ("reconnecting", ("schedule",), "idle", ()),
    ("reconnecting", "release"): ("idle", (), "idle", ()),
    ("needs-auth", "begin"): ("connecting", (), "connecting", ()),
    ("needs-auth", "release"): ("idle", (), "idle", ()),
    ("failed", "begin"): ("connecting", (), "connecting", ()),
    ("failed", "release"): ("idle", (), "idle", ()),
}
# The other pairs: the event comes too late, twice, or brings nothing new. `want` and `release` are noted in
# `LinkSnapshot.wanted` anyway.
_LATE: tuple[EventName, ...] = ("silent", "life", "expired")
_STILL: dict[PolicyState, tuple[EventName, ...]] = {
    "idle": ("connected", "unreachable", "auth", "hostkey", "lost", "due", "nudge", "release", "abandoned", *_LATE),
    "connecting": ("begin", "lost", "due", "nudge", "want", "release", *_LATE),
    "up": ("begin", "connected", "unreachable", "auth", "hostkey", "due", "want", "release", "abandoned", "life"),
    # A login beside a silent link is not known here before it has taken its place.
    "silent": (
        "begin",
        "connected",
        "unreachable",
        "auth",
        "hostkey",
        "due",
        "nudge",
        "want",
        "abandoned",
        "silent",
        "expired",
    ),
    "reconnecting": ("lost", "want", *_LATE),
    "needs-auth": ("connected", "unreachable", "auth", "hostkey", "lost", "due", "nudge", "want", "abandoned", *_LATE),
    "failed": ("connected", "unreachable", "auth", "hostkey", "lost", "due", "nudge", "want", "abandoned", *_LATE),
}
TABLE |= {(state, event): (state, (), state, ()) for state, events in _STILL.items() for event in events}


def step(link: LinkSnapshot, event: EventName) -> tuple[LinkSnapshot, tuple[Action, ...]]:
    """Apply one event.

    Args:
        link: the present state.
        event: what happened.

    Returns:
        The next state and what the supervisor must do, in order.
    """
    if event in {"want", "release"}:
        link = replace(link, wanted=event == "want")
    row = TABLE[link.state, event]
    state, actions = (row[0], row[1]) if link.wanted else (row[2], row[3])
    if state == link.state and not actions:
        return link, ()
    attempt, reconnects = link.attempt, link.reconnects
    lost = event == "lost" or (link.lost and state not in {"up", "idle"})
    if state == "up" and link.state not in {"up", "silent"}:
        reconnects += link.lost and link.state == "reconnecting"
        attempt = 0
    elif "schedule" in actions:
        attempt += 1
    elif event == "nudge":
        attempt = 0
    return replace(link, state=state, attempt=attempt, reconnects=reconnects, lost=lost), actions


def diagram() -> Iterator[str]:
    """Yield the table as the lines of a Mermaid state diagram, without the rows that change nothing."""
    yield "stateDiagram-v2"
    yield "    [*] --> idle"
    for (state, event), (wanted, actions, unwanted, _) in TABLE.items():
        if event in _STILL[state]:
            continue
        label = f"{event}" + (f" / {', '.join(actions)}" if actions else "")
        yield f"    {_name(state)} --> {_name(wanted)}: {label}"
        if unwanted != wanted:
            yield f"    {_name(state)} --> {_name(unwanted)}: {event} [unwanted]"


def _name(state: PolicyState) -> str:
    return state.replace("-", "_")


if __name__ == "__main__":
    print("\n".join(diagram()))  # noqa: T201 - this module's one output is the drawing for the docs
