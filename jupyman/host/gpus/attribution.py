"""The notebook and session that a process on a GPU belongs to."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from jupyman import errors
from jupyman.host.gpus import report
from jupyman.host.kernels.notebooks import ChannelOpener, paths
from jupyman.host.servers.base import Found, Launcher
from jupyman.model import Gpu, Running
from jupyman.tools.jupyter.process_tree import ProcessTree


def traced(link: ChannelOpener, launcher: Launcher, seen: list[Gpu], processes: ProcessTree, found: Found) -> list[Gpu]:
    """Add to each process its kernel, server, session and notebook. Only servers whose kernels hold a GPU are asked.

    Args:
        link: to the host.
        launcher: proves the servers before they are asked.
        seen: from `report.read`.
        processes: from `report.tree`.
        found: the Jupyter servers of this account, looked up a moment ago.
    """
    records = {record.pid: record for record in found.records if record.alive}
    servers: dict[int, str | None] = {server.pid: None for server in found.servers}
    servers |= {pid: record.name for pid, record in records.items()}
    placed = report.attribute(seen, processes, servers)
    asked = {one.server for gpu in placed for one in gpu.processes if one.kernel and one.server is not None}

    def ask(pid: int) -> dict[tuple[int, str], str]:
        running = _proven(launcher, pid, found)
        answer = paths(link, running) if running is not None else {}
        return {(pid, kernel): path for kernel, path in answer.items()}

    if not asked:
        return placed
    with ThreadPoolExecutor(4) as pool:
        notebooks = {key: path for answer in pool.map(ask, asked) for key, path in answer.items()}
    return report.attribute(seen, processes, servers, notebooks)


def _proven(launcher: Launcher, pid: int, found: Found) -> Running | None:
    """Return a server that may be sent its token; the search that found a record has proven its socket already."""
    record = next((one for one in found.records if one.pid == pid and one.alive), None)
    if record is not None:
        return record.running if record.state == "alive" else None
    foreign = next((one for one in found.servers if one.pid == pid), None)
    if foreign is None or foreign.secure or foreign.token is None:
        return None
    running = launcher.adopt(foreign, record=False)
    try:
        return running if launcher.verify(running).ok else None
    except errors.JupymanError:
        return None
