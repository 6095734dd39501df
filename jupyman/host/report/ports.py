"""TCP ports of a host: who listens, and how a process of our account is ended."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from jupyman import errors
from jupyman.host.shell import script
from jupyman.host.shell.script import Facts, Shell
from jupyman.model import PortHolder
from jupyman.tools.host import lsof, sockets
from jupyman.tools.host.text import clean

TIMEOUT = 30.0
GRACE = 5  # seconds between SIGTERM and SIGKILL


def who(shell: Shell, ports: Iterable[int] | None = None) -> list[PortHolder]:
    """Find the listeners that occupy a port of the host's loopback.

    Args:
        shell: the host.
        ports: only these; None: all.

    Returns:
        One holder for each occupied port, by number. Another user's has no pid: only root can see it.

    Raises:
        LinkLost, RemoteFailed: as `script.run`.
    """
    wanted = sorted(set(ports)) if ports is not None else None
    if wanted == []:
        return []
    facts = script.run(shell, "report/ports", {"PORTS": " ".join(map(str, wanted or []))}, timeout=TIMEOUT)
    return [holder for holder in read(facts) if wanted is None or holder.port in wanted]


def read(facts: Facts) -> list[PortHolder]:
    """Merge the facts of the kernel's table, lsof, ss and /proc. Pure; tests use recorded facts.

    When several programs listen on one port, the one that loopback reaches is returned; when several processes share
    its socket (a server and its workers), the oldest, which is the one to end.
    """
    own = facts.number("uid")
    boot = facts.one("boot_id")
    accounts = _pairs(facts.all("account"))
    ticks = {pid: int(text) for pid, text in _pairs(facts.all("ticks")).items() if re.fullmatch(r"[0-9]{1,18}", text)}
    commands = _pairs(facts.all("cmdline"))
    pids: dict[int, list[int]] = {}
    for line in facts.all("fd"):
        pid, _, inode = line.partition(" ")
        if re.fullmatch(r"[0-9]{1,18} [0-9]{1,18}", line):
            pids.setdefault(int(inode), []).append(int(pid))
    by_port: dict[int, list[sockets.Socket]] = {}
    for socket in listening(facts):
        if not sockets.blocks_loopback(socket.address):
            continue
        by_port.setdefault(socket.port, []).append(socket)
        if socket.inode is not None and socket.pid is not None:
            pids.setdefault(socket.inode, []).append(socket.pid)

    def age(pid: int) -> tuple[int, int]:
        return ticks.get(pid, 2**62), pid

    found = []
    for port in sorted(by_port):
        same = by_port[port]
        first = min(same, key=lambda one: sockets.rank(one.address) or 0)
        alike = [one for one in same if one.inode == first.inode] if first.inode is not None else [first]
        holders = {one.pid for one in alike if one.pid is not None}
        if first.inode is not None:
            holders.update(pids.get(first.inode, ()))
        elder = min(holders, key=age, default=None)
        uid = next((one.uid for one in alike if one.uid is not None), None)
        named = next((one.command for one in alike if one.command is not None), None)
        found.append(
            PortHolder(
                port=port,
                address=first.address,
                uid=uid,
                user=clean(accounts[uid], 60) if uid in accounts else None,
                pid=elder,
                command=(clean(commands.get(elder, "").strip()) or named) if elder is not None else None,
                ours=uid is not None and uid == own,
                start_ticks=ticks.get(elder) if elder is not None else None,
                boot_id=boot,
            )
        )
    return found


def listening(facts: Facts) -> Iterator[sockets.Socket]:
    """Yield each listening socket of each source; a socket may come several times."""
    table = list(sockets.proc_net(facts.all("tcp")))
    known = {(socket.inode, socket.port): socket for socket in table}
    opened = [
        sockets.Socket(one.address, one.port, one.uid, one.inode, one.pid, one.command)
        for one in lsof.parse(facts.all("lsof"))
    ]
    for one in [*table, *sockets.ss(facts.all("ss")), *opened]:
        # lsof prints "*" for 0.0.0.0 and ::, ss for ::; the kernel's table is exact. A number of lsof's that is not in
        # the table is not an inode: only on Linux is lsof's "device" the inode.
        same = known.get((one.inode, one.port))
        address, uid, inode = (same.address, same.uid, same.inode) if same is not None else (one.address, one.uid, None)
        yield sockets.Socket(address, one.port, uid, inode, one.pid, one.command)


def describe(holder: PortHolder, *, jupyter: bool = False) -> str:
    """Describe who holds a port.

    Args:
        holder: of the port.
        jupyter: it is known to be a Jupyter server.
    """
    if not holder.ours:
        if holder.user is not None:
            return f"{holder.user} (uid {holder.uid})"
        return f"uid {holder.uid}" if holder.uid is not None else "another user"
    what = "your own Jupyter" if jupyter else "your own process"
    command = f" {clean(holder.command, 120)}" if holder.command and not jupyter else ""
    return f"{what}{command} (pid {holder.pid})" if holder.pid is not None else what


def stop_process(shell: Shell, holder: PortHolder, *, force: bool = False, grace: int = GRACE) -> bool:
    """End the process that holds a port, if it is still the one that was found.

    Uid, start time, boot id and listening socket are compared on the host just before the signal.

    Args:
        shell: the host.
        holder: from `who`.
        force: send SIGKILL after the grace period.
        grace: seconds after SIGTERM.

    Returns:
        True when it has ended.

    Raises:
        NotOurs: it belongs to another user, cannot be seen, or is a different process now.
        LinkLost, RemoteFailed: as `script.run`.
    """
    if not holder.ours:
        raise errors.NotOurs(f"port {holder.port} is held by {describe(holder)}: it was left alone")
    if holder.pid is None or holder.start_ticks is None or holder.boot_id is None:
        raise errors.NotOurs(
            f"the process behind port {holder.port} cannot be seen: it was left alone",
            "it may run in a container or another namespace: end it there, or choose another port",
        )
    facts = script.run(
        shell,
        "processes/signal",
        {
            "PID": str(holder.pid),
            "TICKS": str(holder.start_ticks),
            "BOOT": holder.boot_id,
            "PORT": str(holder.port),
            "GRACE": str(grace),
            "FORCE": "1" if force else "0",
        },
        timeout=grace + TIMEOUT,
    )
    state = facts.one("state")
    if state == "foreign":
        raise errors.NotOurs(f"pid {holder.pid} belongs to another user by now: it was left alone")
    if state == "changed":
        raise errors.NotOurs(
            f"pid {holder.pid} does not hold port {holder.port} any more: it was left alone", "run the command again"
        )
    return state == "gone"


def _pairs(lines: Iterable[str]) -> dict[int, str]:
    """Read lines ``NUMBER TEXT``."""
    pairs = (line.partition(" ") for line in lines)
    return {int(key): value for key, _, value in pairs if value and key.isascii() and key.isdigit() and len(key) < 19}
