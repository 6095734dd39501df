"""The ends of a server are told apart."""

from __future__ import annotations

import pytest

from jupyman.host.servers.base import ProcessState
from jupyman.host.servers.liveness import judge

SERVING = ["[I 2026-03-03 ServerApp] Jupyter Server 2.21 is running at:", "[I] Kernel started: 1"]
ENDED = [*SERVING, "[C 2026-03-03 ServerApp] received signal 15, stopping", "[I] Shutting down 3 extensions"]
CRASHED = [*SERVING, "Traceback (most recent call last):", '  File "x.py", line 1', "MemoryError: cannot allocate"]


@pytest.mark.parametrize(
    ("state", "log", "oom", "stopped_by", "code", "words"),
    [
        ("alive", [], False, None, "server-running", "it runs"),
        ("exited", ENDED, False, None, "server-exited", "Shutting down"),
        ("exited", CRASHED, False, None, "server-exited", "MemoryError"),
        ("exited", SERVING, False, None, "server-killed", "no reason"),
        ("exited", SERVING, True, None, "server-killed", "out of memory"),
        ("exited", [], False, None, "server-exited", "its process is gone"),
        ("exited", ENDED, False, "2026-03-03T10:00:00Z eve@laptop", "server-stopped", "stopped by eve@laptop"),
        ("rebooted", SERVING, False, None, "host-rebooted", "restarted"),
        ("taken", [], False, None, "port-taken", "another process"),
        ("not-listening", [], False, None, "server-mute", "does not listen"),
    ],
)
def test_an_end_is_named(
    state: ProcessState, log: list[str], oom: bool, stopped_by: str | None, code: str, words: str
) -> None:
    found = judge(state, pid=7, log=log, oom=oom, stopped_by=stopped_by)
    assert found.code == code
    assert words in found.text
    assert "pid 7" in found.text
    assert found.ok == (state == "alive")
    assert found.dead == (state in {"exited", "rebooted"})


def test_a_running_server_that_somebody_marked_is_still_running() -> None:
    assert judge("alive", pid=7, log=[], stopped_by="2026-03-03T10:00:00Z eve").code == "server-running"
