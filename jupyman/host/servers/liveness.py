"""PURE: what became of a server, judged from what was seen on its host."""

from __future__ import annotations

import re

from jupyman.host.servers.base import Liveness, ProcessState

# A Jupyter server logs one of these when it ends by itself (jupyter_server serverapp.py, notebook 6 notebookapp.py).
_GOODBYE = re.compile(
    r"received signal|Shutting down|Shutdown confirmed|Shutdown request|Interrupted|^\w*(Error|Exception|Exit)\b"
)
_TEXT: dict[ProcessState, tuple[str, str]] = {
    "alive": ("server-running", "it runs"),
    "exited": ("server-exited", "its process is gone"),
    "rebooted": ("host-rebooted", "the host was restarted"),
    "taken": ("port-taken", "its port belongs to another process now, so nothing is sent there"),
    "not-listening": ("server-mute", "its process runs but does not listen"),
    "elsewhere": ("other-node", "it was started on another machine with the same home"),
}
# The problem codes of all these ends.
ENDS = {code for code, _ in _TEXT.values()} | {"server-stopped", "server-killed"}
_LAST = 120  # characters of the log's last line


def judge(
    state: ProcessState,
    *,
    pid: int,
    log: list[str],
    oom: bool = False,
    stopped_by: str | None = None,
    nodes: tuple[str, str] | None = None,
) -> Liveness:
    """Judge what became of a server.

    Args:
        state: of its process.
        pid: of its process.
        log: its last lines.
        oom: the kernel's OOM killer ended it.
        stopped_by: time and person, when somebody stopped it on purpose.
        nodes: the machine on which it was started, and the one that the login reached.
    """
    code, text = _TEXT[state]
    if state == "elsewhere" and nodes is not None:
        text = f"it runs on {nodes[0]}, and this login reached {nodes[1]}"
    elif stopped_by is not None and state != "alive":
        when, _, who = stopped_by.partition(" ")
        code, text = "server-stopped", f"it was stopped by {who or 'somebody'} at {when}"
    elif oom:
        code, text = "server-killed", "the host ran out of memory and killed it (OOM killer)"
    elif state == "exited":
        lines = [line.strip() for line in log if line.strip()]
        if lines and not any(_GOODBYE.search(line) for line in lines):
            text += " and its log has no reason: it was killed (memory or time limit, or kill -9)"
            code = "server-killed"
        elif lines:
            text += f"; the last line of its log: {lines[-1][:_LAST]}"
    return Liveness(state=state, text=f"{text} (pid {pid})", log=log, stopped_by=stopped_by, code=code)
