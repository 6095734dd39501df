"""`--restart always`: a server that died is restarted at the same address; one that was stopped is not."""

from __future__ import annotations

import contextlib
import socket
from typing import Any

import pytest

from tests.bed import Cli, User, wait_until


@pytest.fixture
def session(cli: Cli) -> dict[str, Any]:
    made = cli("up", "server1", "--no-browser", "--restart", "always", "--json")
    assert made.rc == 0, made
    found: dict[str, Any] = made.json
    return found


def now(cli: Cli) -> dict[str, Any]:
    found: dict[str, Any] = cli("ps", "--json").json["sessions"][0]
    return found


def knock(session: dict[str, Any]) -> None:
    """Connect as an open browser tab does all the time: a refusal is noticed at once."""
    port = int(session["forwards"][0]["local"].rsplit(":", 1)[1])
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 5):
        pass


def test_a_killed_server_is_restarted_at_the_same_address(cli: Cli, session: dict[str, Any], user: User) -> None:
    pid = session["server"]["pid"]
    user.run("kill", "-9", str(pid))

    def back() -> bool:
        one = now(cli)
        return bool(one["state"] == "running" and one["server"]["pid"] != pid)

    wait_until(back, what="the restart", timeout=40)
    one = now(cli)
    assert one["url"] == session["url"], "same local port, same token"
    assert one["server"]["port"] == session["server"]["port"]

    def told() -> bool:
        return "server-restarted" in {problem["code"] for problem in now(cli)["problems"]}

    wait_until(told, what="word of the restart")


def test_it_gives_up_after_three(cli: Cli, session: dict[str, Any], user: User) -> None:
    seen = {session["server"]["pid"]}
    for _ in range(3):
        user.run("kill", "-9", *map(str, seen))

        def fresh() -> int:
            knock(session)
            one = now(cli)
            pid = int((one["server"] or {}).get("pid") or 0)
            return pid if one["state"] == "running" and pid not in seen else 0

        seen.add(wait_until(fresh, what="the restart", timeout=40))
    user.run("kill", "-9", *map(str, seen))

    def given_up() -> bool:
        knock(session)
        return "restart-limit" in {problem["code"] for problem in now(cli)["problems"]}

    wait_until(given_up, what="the end of restarts", timeout=40)
    assert now(cli)["state"] == "exited"
