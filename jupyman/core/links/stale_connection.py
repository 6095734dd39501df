"""The sshd process that carries our connection on the host: it outlives a lost network by hours unless it is ended."""

from __future__ import annotations

from dataclasses import dataclass

from jupyman.host.shell import script
from jupyman.host.shell.script import Shell

TIMEOUT = 30.0  # seconds; no user waits for it


@dataclass(frozen=True)
class ServerProcess:
    """The process that carries, or carried, one connection: its pid, its start in ticks, the host's boot."""

    pid: int
    ticks: int
    boot: str


def take_over(shell: Shell, before: ServerProcess | None) -> ServerProcess | None:
    """Find the process that carries this connection, and end the one of the connection that was lost before.

    Some hosts count logins (pam_limits, maxlogins), and would soon refuse further ones.

    Args:
        shell: the link.
        before: the process of the link that was lost, None if there was none.

    Returns:
        Ours; None if the host does not show it (it is not Linux).

    Raises:
        JupymanError: as `script.run`.
    """
    old = {"PID": "", "TICKS": "", "BOOT": ""}
    if before is not None:
        old = {"PID": str(before.pid), "TICKS": str(before.ticks), "BOOT": before.boot}
    facts = script.run(shell, "processes/visit", old, timeout=TIMEOUT)
    pid, ticks, boot = facts.number("pid"), facts.number("ticks"), facts.one("boot")
    return ServerProcess(pid, ticks, boot) if pid is not None and ticks is not None and boot is not None else None
