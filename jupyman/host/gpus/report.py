"""PURE: the GPUs of a host and the processes on them, read from a script's answer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from jupyman.host.shell.script import Facts
from jupyman.model import Gpu, GpuProcess
from jupyman.tools.gpu import nvidia_smi
from jupyman.tools.jupyter import process_tree

MOST_GPUS = 64  # more than any machine has; a hostile host could report any number


def read(facts: Facts) -> list[Gpu]:
    """Read the GPUs with their processes; `attribute` adds the servers that these belong to."""
    accounts = nvidia_smi.users(facts.all("gpu.user"))
    held = nvidia_smi.processes(facts.all("gpu.app"), accounts)
    parts = nvidia_smi.instances(facts.all("gpu.list"))
    own, processes = facts.number("uid"), tree(facts)

    def known(process: GpuProcess) -> GpuProcess:
        uid = processes.uids.get(process.pid)
        # Without such options of ps, the kernel still shows the number.
        user = process.user or (f"uid {uid}" if uid is not None else None)
        return msgspec.structs.replace(process, user=user, ours=uid is not None and uid == own)

    return [
        msgspec.structs.replace(
            gpu,
            processes=[known(process) for process in held.get(gpu.uuid or "", [])],
            instances=parts.get(gpu.uuid or "", []),
        )
        for gpu in nvidia_smi.gpus(facts.all("gpu.row")[:MOST_GPUS], minimal=facts.one("gpu.minimal") is not None)
    ]


def tree(facts: Facts) -> process_tree.ProcessTree:
    """Read the ancestors and owners of the processes on GPUs."""
    return process_tree.read(facts.all("gpu.link"), facts.all("gpu.kernel"), facts.all("gpu.uid"))


def attribute(
    seen: Iterable[Gpu],
    processes: process_tree.ProcessTree,
    servers: Mapping[int, str | None],
    notebooks: Mapping[tuple[int, str], str] | None = None,
) -> list[Gpu]:
    """Add to each process the kernel that started it, and that kernel's server, session and notebook.

    Args:
        seen: from `read`.
        processes: from `tree`.
        servers: session names by the pid of each Jupyter server; None for one without a record.
        notebooks: paths by server and kernel.
    """

    def placed(process: GpuProcess) -> GpuProcess:
        # Another user's process is not a child of our server, whatever the table of processes shows.
        kernel, server = process_tree.place(processes, process.pid, servers if process.ours else {})
        return msgspec.structs.replace(
            process,
            kernel=kernel,
            server=server,
            session=servers[server] if server is not None else None,
            notebook=(notebooks or {}).get((server, kernel)) if server is not None and kernel is not None else None,
        )

    return [msgspec.structs.replace(gpu, processes=[placed(one) for one in gpu.processes]) for gpu in seen]
