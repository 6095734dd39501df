"""Kernels of this account whose server is gone: nobody can reach them any more, and they hold memory or a GPU."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from jupyman import errors, remote
from jupyman.api import Kill, Operation, Prompt
from jupyman.core.links.hosts import Hosts
from jupyman.core.runtime.progress import step
from jupyman.host.gpus import report as gpu_facts
from jupyman.host.shell import script
from jupyman.host.shell.script import Facts, Shell
from jupyman.model import Gpu, Problem
from jupyman.tools.gpu import choose
from jupyman.tools.jupyter import process_tree

LOOK_TIMEOUT = 30.0  # seconds
GPU_TIMEOUT = 5
GRACE = 5  # seconds between SIGTERM and SIGKILL


@dataclass(frozen=True)
class Orphan:
    """A process with a kernel's connection file: the kernel itself, a wrapper around it, a worker forked from it.

    Attributes:
        pid, ticks: its identity, on the boot that the look was made in.
        kernel: its id.
        memory: bytes; None where not known.
        children: pids of what it started, other orphans left out.
        gpu: GPU memory that it and they hold, bytes, by index of the GPU; 0 where it is not known how much.
    """

    pid: int
    ticks: int
    kernel: str
    memory: int | None
    children: tuple[int, ...] = ()
    gpu: Mapping[int, int] = field(default_factory=dict)


def read(facts: Facts, gpus: Iterable[Gpu] = ()) -> list[Orphan]:
    """Read what the script found.

    Args:
        facts: of it.
        gpus: of the host, with their processes.
    """
    held: dict[int, dict[int, int]] = {}
    for gpu in gpus:
        for process in gpu.processes:
            mine = held.setdefault(process.pid, {})
            mine[gpu.index] = mine.get(gpu.index, 0) + (process.memory or 0)
    found: list[Orphan] = []
    entries = list(facts.records("orphan", "pid"))
    # A wrapper, its kernel and a worker are orphans each; what they all started is counted once.
    counted = {entry.one("pid") for entry in entries}
    for entry in entries:
        pid, ticks, kernel = entry.number("pid"), entry.number("ticks"), process_tree.kernel_id(entry.one("file") or "")
        if pid is None or ticks is None or kernel is None:
            continue
        texts = [text for text in entry.all("child") if re.fullmatch(r"[0-9]{1,9}", text) and text not in counted]
        counted.update(texts)
        children = tuple(map(int, texts))
        total: dict[int, int] = {}
        for one in (pid, *children):
            for index, memory in held.get(one, {}).items():
                total[index] = total.get(index, 0) + memory
        size = entry.number("memory")
        found.append(Orphan(pid, ticks, kernel, size * 1024 if size is not None else None, children, total))
    return found


def problem(host: str, found: Sequence[Orphan]) -> Problem | None:
    """Say that there are some, and how to end them."""
    if not found:
        return None
    kernels = len({orphan.kernel for orphan in found})
    them = f"{kernels} kernel{'s' if kernels > 1 else ''} whose server is gone hold{'' if kernels > 1 else 's'}"
    return Problem(
        code="orphan-kernels",
        severity="warning",
        text=f"{them} {_held(found)}: {', '.join(f'pid {orphan.pid}' for orphan in found[:5])}",
        fix=f"jupyman kill --orphans {host}",
    )


def kill(request: Kill, host: str, hosts: Hosts, operation: Operation) -> list[Orphan]:
    """Show the orphans of a host, ask, and end them with what they started.

    Args:
        request: `yes`, `force`.
        host: where.
        hosts: to reach it.
        operation: whom to ask.

    Returns:
        Those that were ended.

    Raises:
        UsageFault: a question must be answered, and there is no terminal.
        Interrupted: it was answered with no.
        RemoteFailed: one does not end.
    """
    link = hosts.supervisor(host, operation.client).acquire(operation)
    with step(operation, "orphans", f"looking for kernels on {host} whose server is gone") as progress:
        found, boot = find(link)
        progress.text = f"{len(found)} process{'' if len(found) == 1 else 'es'} of kernels whose server is gone"
        if not found:
            progress.text = f"no kernel of yours on {host} is without its server"
    if not found:
        return []
    told = "; ".join(_line(orphan) for orphan in found)
    if not request.yes:
        if not operation.client.interactive:
            raise errors.UsageFault(
                f"a question must be answered, and stdin is no terminal: {told}", "say -y to end them"
            )
        if not _yes(operation, f"On {host} nobody can reach any more: {told}. End them?"):
            raise errors.Interrupted("nothing was stopped")
    with step(operation, "end", "ending them") as progress:
        ended, alive = end(link, found, boot, force=request.force)
        if alive and not request.force and operation.client.interactive:
            stubborn = ", ".join(f"pid {orphan.pid}" for orphan in alive)
            if _yes(operation, f"{stubborn} does not end. Kill it (SIGKILL)?"):
                more, alive = end(link, alive, boot, force=True)
                ended += more
        if alive:
            pids = ", ".join(str(orphan.pid) for orphan in alive)
            raise errors.RemoteFailed(f"pid {pids} on {host} does not end", f"jupyman kill --force --orphans {host}")
        progress.text = f"ended {', '.join(f'pid {orphan.pid}' for orphan in ended) or 'nothing: they are gone'}"
    return ended


def find(shell: Shell) -> tuple[list[Orphan], str]:
    """Look for orphans, and for what they hold on GPUs; nothing is changed.

    Returns:
        They, and the boot id that their identities belong to.

    Raises:
        LinkLost, RemoteFailed: as `script.run`.
    """
    facts = script.run(
        shell, "kernels/orphans", {"SERVER": remote.script("lib/server"), "LIST": ""}, timeout=LOOK_TIMEOUT
    )
    gpus: list[Gpu] = []
    if facts.one("orphan.pid") is not None:
        arguments = {"GPUS": remote.script("lib/gpus"), "GPU_TIMEOUT": str(GPU_TIMEOUT)}
        gpus = gpu_facts.read(script.run(shell, "gpus/usage", arguments, timeout=LOOK_TIMEOUT))
    return read(facts, gpus), facts.one("boot_id") or ""


def end(
    shell: Shell, orphans: Sequence[Orphan], boot: str, *, force: bool = False, grace: int = GRACE
) -> tuple[list[Orphan], list[Orphan]]:
    """End orphans; on the host each is looked at once more, right before its signal.

    Args:
        shell: the host.
        orphans: from `find`.
        boot: likewise.
        force: SIGKILL after the grace period.
        grace: seconds after SIGTERM.

    Returns:
        Those that ended, and those that live on. One that is not what it was any more is in neither.

    Raises:
        LinkLost, RemoteFailed: as `script.run`.
    """
    facts = script.run(
        shell,
        "kernels/orphans",
        {
            "SERVER": remote.script("lib/server"),
            "LIST": "\n".join(f"{orphan.pid} {orphan.ticks}" for orphan in orphans),
            "BOOT": boot,
            "GRACE": str(grace),
            "FORCE": "1" if force else "0",
        },
        timeout=grace + LOOK_TIMEOUT,
    )
    ended, alive = facts.all("ended"), facts.all("alive")
    return (
        [orphan for orphan in orphans if str(orphan.pid) in ended],
        [orphan for orphan in orphans if str(orphan.pid) in alive],
    )


def _yes(operation: Operation, question: str) -> bool:
    return operation.ask(Prompt(id="", kind="confirm", text=question, default="n")).lower() in {"y", "yes"}


def _line(orphan: Orphan) -> str:
    more = f" and {len(orphan.children)} that it started" if orphan.children else ""
    return f"kernel {orphan.kernel[:8]} (pid {orphan.pid}{more}, {_held([orphan])})"


def _held(orphans: Sequence[Orphan]) -> str:
    """Say what they hold: memory, and that of each GPU."""
    memory = sum(orphan.memory or 0 for orphan in orphans)
    parts = [f"{choose.size(memory)} of memory"]
    for index in sorted({index for orphan in orphans for index in orphan.gpu}):
        total = sum(orphan.gpu.get(index, 0) for orphan in orphans)
        parts.append(f"{choose.size(total)} of GPU {index}" if total else f"GPU {index}")
    return " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)
