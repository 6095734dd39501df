"""From which notebook of which session a process on a GPU comes."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from jupyman import errors
from jupyman.host.gpus import report
from jupyman.host.kernels.notebooks import paths
from jupyman.host.servers import nohup
from jupyman.host.servers.base import Found
from jupyman.model import Gpu, Running
from jupyman.ssh.link import Link
from jupyman.tools.jupyter.process_tree import ProcessTree


def traced(link: Link, seen: list[Gpu], tree: ProcessTree, found: Found) -> list[Gpu]:
    """Say whose each process is, asking the servers for the notebooks of kernels that hold a GPU, and only then.

    Args:
        link: to the host.
        seen: from `gpus.read`.
        tree: from `gpus.kin`.
        found: the Jupyter servers of this account, looked up a moment ago.
    """
    records = {record.pid: record for record in found.records if record.alive}
    servers: dict[int, str | None] = {server.pid: None for server in found.servers}
    servers |= {pid: record.name for pid, record in records.items()}
    placed = report.attribute(seen, tree, servers)
    asked = {one.server for gpu in placed for one in gpu.processes if one.kernel and one.server is not None}

    def ask(pid: int) -> dict[tuple[int, str], str]:
        running = _proven(link, pid, found)
        told = paths(link, running) if running is not None else {}
        return {(pid, kernel): path for kernel, path in told.items()}

    if not asked:
        return placed
    with ThreadPoolExecutor(4) as pool:
        notebooks = {key: path for told in pool.map(ask, asked) for key, path in told.items()}
    return report.attribute(seen, tree, servers, notebooks)


def _proven(link: Link, pid: int, found: Found) -> Running | None:
    """Return a server that may be sent its token: the look that found a record has proven its socket."""
    record = next((one for one in found.records if one.pid == pid and one.alive), None)
    if record is not None:
        return record.running if record.state == "alive" else None
    foreign = next((one for one in found.servers if one.pid == pid), None)
    if foreign is None or foreign.secure or foreign.token is None:
        return None
    running = nohup.adopt(link, foreign, record=False)
    try:
        return running if nohup.verify(link, running).ok else None
    except errors.JupymanError:
        return None
