"""Orphaned kernels: their server is gone, so nobody can reach them, and they hold memory or a GPU."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from jupyman import errors, rules
from jupyman.api import Kill
from jupyman.core.verbs.host_call import HostCall
from jupyman.host.gpus import report as gpu_report
from jupyman.host.shell import script
from jupyman.host.shell.script import Facts, Shell
from jupyman.model import Gpu, Problem
from jupyman.model.problem_codes import new_problem
from jupyman.tools.jupyter import process_tree

LOOK_TIMEOUT = 30.0  # seconds
GPU_TIMEOUT = 5
GRACE = 5  # seconds between SIGTERM and SIGKILL


@dataclass(frozen=True)
class Orphan:
    """A process with a kernel's connection file: the kernel itself, a wrapper around it, a worker forked from it.

    Attributes:
        pid, ticks: its identity, on the boot on which it was seen.
        kernel: its id.
        memory: bytes; None if not known.
        children: pids of what it started, without other orphans.
        gpu: GPU memory that it and its children hold, bytes, by index of the GPU; 0 if it is not known how much.
    """

    pid: int
    ticks: int
    kernel: str
    memory: int | None
    children: tuple[int, ...] = ()
    gpu: Mapping[int, int] = field(default_factory=dict)


def read(facts: Facts, gpus: Iterable[Gpu] = ()) -> list[Orphan]:
    """Read the script's answer.

    Args:
        facts: the answer.
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
    """Return the problem that there are orphans, with the command that ends them; None if there are none."""
    if not found:
        return None
    count = len({orphan.kernel for orphan in found})
    subject = "1 orphaned kernel holds" if count == 1 else f"{count} orphaned kernels hold"
    pids = ", ".join(f"pid {orphan.pid}" for orphan in found[:5])
    return new_problem("orphan-kernels", f"{subject} {_held(found)}: {pids}", f"jupyman kill --orphans {host}")


def kill(request: Kill, call: HostCall) -> list[Orphan]:
    """Show the orphans of a host, ask, and end them with what they started.

    Returns:
        Those that were ended.

    Raises:
        UsageFault: a question must be answered, and there is no terminal.
        Interrupted: it was answered with no.
        RemoteFailed: one does not end.
    """
    link, host = call.link, call.host
    with call.step("orphans", f"looking for orphaned kernels on {host}") as progress:
        found, boot = find(link)
        count = len(found)
        progress.text = f"{count} process{'' if count == 1 else 'es'} of orphaned kernels on {host}"
        if not found:
            progress.text = f"no orphaned kernels on {host}"
    if not found:
        return []
    if not request.yes:
        shown = "; ".join(_line(orphan) for orphan in found)
        unattended = errors.UsageFault(
            f"a question must be answered, and stdin is no terminal: {shown}", "-y ends them"
        )
        if not call.confirm(f"Orphaned kernels on {host}: {shown}. End them?", unattended=unattended):
            raise errors.Interrupted("nothing was stopped")
    with call.step("end", "ending them") as progress:
        ended, alive = end(link, found, boot, force=request.force)
        if alive and not request.force and call.interactive:
            pids = ", ".join(f"pid {orphan.pid}" for orphan in alive)
            if call.confirm(f"{pids} does not end. Kill it (SIGKILL)?"):
                more, alive = end(link, alive, boot, force=True)
                ended += more
        if alive:
            pids = ", ".join(str(orphan.pid) for orphan in alive)
            raise errors.RemoteFailed(f"pid {pids} on {host} does not end", f"jupyman kill --force --orphans {host}")
        pids = ", ".join(f"pid {orphan.pid}" for orphan in ended)
        progress.text = f"ended {pids}" if ended else "they had ended already"
    return ended


def find(shell: Shell) -> tuple[list[Orphan], str]:
    """Look for orphans, and for what they hold on GPUs; nothing is changed.

    Returns:
        The orphans, and the boot id to which their identities belong.

    Raises:
        LinkLost, RemoteFailed: as `script.run`.
    """
    facts = script.run(shell, "kernels/orphans", {"LIST": ""}, timeout=LOOK_TIMEOUT)
    gpus: list[Gpu] = []
    if facts.one("orphan.pid") is not None:
        arguments = {"GPU_TIMEOUT": str(GPU_TIMEOUT)}
        gpus = gpu_report.read(script.run(shell, "gpus/usage", arguments, timeout=LOOK_TIMEOUT))
    return read(facts, gpus), facts.one("boot_id") or ""


def end(
    shell: Shell, orphans: Sequence[Orphan], boot: str, *, force: bool = False, grace: int = GRACE
) -> tuple[list[Orphan], list[Orphan]]:
    """End orphans; the host checks each again right before its signal.

    Args:
        shell: the host.
        orphans: as `find` returned them.
        boot: likewise.
        force: send SIGKILL after the grace period.
        grace: seconds after SIGTERM.

    Returns:
        Those that ended, and those still alive. One whose pid now is another process is in neither.

    Raises:
        LinkLost, RemoteFailed: as `script.run`.
    """
    facts = script.run(
        shell,
        "kernels/orphans",
        {
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


def _line(orphan: Orphan) -> str:
    more = f" and {len(orphan.children)} that it started" if orphan.children else ""
    return f"kernel {orphan.kernel[:8]} (pid {orphan.pid}{more}, {_held([orphan])})"


def _held(orphans: Sequence[Orphan]) -> str:
    """Return what they hold, as text: memory, and that of each GPU."""
    memory = sum(orphan.memory or 0 for orphan in orphans)
    parts = [f"{rules.size(memory)} of memory"]
    for index in sorted({index for orphan in orphans for index in orphan.gpu}):
        total = sum(orphan.gpu.get(index, 0) for orphan in orphans)
        parts.append(f"{rules.size(total)} of GPU {index}" if total else f"GPU {index}")
    return " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)
