"""Whether processes outlive their login: systemd-logind may end them all (logind.conf(5), KillUserProcesses)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from jupyman.model import Problem
from jupyman.model.problem_codes import new_problem

# plain: nohup is enough. scope: only in a scope of the user manager, which lingers. logout: all end with the login.
Survival = Literal["plain", "scope", "logout"]


def survival(user: str, manager: Sequence[str], account: Sequence[str], *, bus: bool) -> Survival:
    """Return how a process can outlive the login that started it.

    Args:
        user: the account's name.
        manager: lines of ``loginctl show-session`` without an argument, such as ``KillUserProcesses=yes``; none
            without logind.
        account: lines of ``loginctl show-user USER``, ``Linger=yes`` among them.
        bus: the user's own manager can be reached, and systemd-run is installed.
    """
    settings = _settings(manager)
    if settings.get("KillUserProcesses") != "yes":
        return "plain"
    # Both are lists of names; an empty KillOnlyUsers means everybody.
    only, spared = settings.get("KillOnlyUsers", "").split(), settings.get("KillExcludeUsers", "").split()
    if user in spared or (only and user not in only):
        return "plain"
    if _settings(account).get("Linger") == "yes" and bus:
        return "scope"
    return "logout"


def _settings(lines: Sequence[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for line in lines:
        name, equals, value = line.partition("=")
        if equals:
            found[name.strip()] = value.strip()
    return found


def ends_at_logout(user: str) -> Problem:
    """Report that nothing on this host outlives a login."""
    return new_problem(
        "ends-at-logout",
        text="this host ends all processes of a user with the last login (KillUserProcesses): the server runs only as "
        "long as the link or another login of yours exists",
        fix=f"run loginctl enable-linger there; if it is refused, ask the admin: loginctl enable-linger {user}",
    )
