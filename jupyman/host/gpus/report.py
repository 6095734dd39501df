"""The GPUs of a host, and whose the processes on them are, as the script told it. PURE."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from jupyman.host.shell.script import Facts
from jupyman.model import Gpu, GpuProcess
from jupyman.tools.gpu import nvidia_smi
from jupyman.tools.jupyter import process_tree

MOST_GPUS = 64  # more than any machine has: a host may invent them


def read(facts: Facts) -> list[Gpu]:
    """Read the GPUs with their processes; which server these belong to is for `attribute` to say."""
    accounts = nvidia_smi.users(facts.all("gpu.user"))
    held = nvidia_smi.processes(facts.all("gpu.app"), accounts)
    parts = nvidia_smi.instances(facts.all("gpu.list"))
    own, tree = facts.number("uid"), kin(facts)

    def known(process: GpuProcess) -> GpuProcess:
        uid = tree.uids.get(process.pid)
        # Where ps has no such options the kernel tells the number at least.
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


def kin(facts: Facts) -> process_tree.ProcessTree:
    """Read whose children the processes are."""
    return process_tree.read(facts.all("gpu.link"), facts.all("gpu.kernel"), facts.all("gpu.uid"))


def attribute(
    seen: Iterable[Gpu],
    tree: process_tree.ProcessTree,
    servers: Mapping[int, str | None],
    notebooks: Mapping[tuple[int, str], str] | None = None,
) -> list[Gpu]:
    """Say of each process from which kernel it comes, and the server, session and notebook of that.

    Args:
        seen: from `read`.
        tree: from `kin`.
        servers: names of their sessions by the pid of each Jupyter server; None where jupyman did not start it.
        notebooks: paths by server and kernel.
    """

    def placed(process: GpuProcess) -> GpuProcess:
        # Nobody else's process is a child of a server of ours, whatever the table of processes says.
        kernel, server = process_tree.place(tree, process.pid, servers if process.ours else {})
        return msgspec.structs.replace(
            process,
            kernel=kernel,
            server=server,
            session=servers[server] if server is not None else None,
            notebook=(notebooks or {}).get((server, kernel)) if server is not None and kernel is not None else None,
        )

    return [msgspec.structs.replace(gpu, processes=[placed(one) for one in gpu.processes]) for gpu in seen]
