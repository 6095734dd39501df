"""Will the server end with the login? Decided from what loginctl says."""

from __future__ import annotations

from pathlib import Path

import pytest

from jupyman.tools.host.logind import Survival, survival

DATA = Path(__file__).parents[2] / "data" / "logind"
KILLS = (DATA / "kills.txt").read_text().splitlines()
SPARES = (DATA / "spares.txt").read_text().splitlines()
LINGERS, STAYS = ["UID=1000", "Name=alice", "Linger=yes", "State=active"], ["UID=1000", "Name=alice", "Linger=no"]


@pytest.mark.parametrize(
    ("user", "manager", "account", "bus", "expected"),
    [
        ("alice", [], [], False, "plain"),
        ("alice", SPARES, STAYS, True, "plain"),
        ("alice", KILLS, STAYS, True, "logout"),
        ("alice", KILLS, STAYS, False, "logout"),
        ("alice", KILLS, LINGERS, True, "scope"),
        ("alice", KILLS, LINGERS, False, "logout"),
        ("root", KILLS, STAYS, False, "plain"),
        ("alice", ["KillUserProcesses=yes", "KillOnlyUsers=bob eve"], STAYS, False, "plain"),
        ("alice", ["KillUserProcesses=yes", "KillOnlyUsers=bob alice"], STAYS, False, "logout"),
        ("alice", ["garbage", "=", "KillUserProcesses"], ["\x1b"], True, "plain"),
    ],
)
def test_how_it_survives(user: str, manager: list[str], account: list[str], bus: bool, expected: Survival) -> None:
    assert survival(user, manager, account, bus=bus) == expected
