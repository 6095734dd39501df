"""The ancestors of a process: the kernel that started it, and the Jupyter server that started the kernel."""

from __future__ import annotations

import re
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass

# jupyter_client names a connection file kernel-ID.json (connect.py), and Jupyter's servers know the kernel by that ID.
_FILE = re.compile(r"kernel-([A-Za-z0-9._-]{1,100})\.json")
_PAIR = re.compile(r"([0-9]{1,9}) ([0-9]{1,10})")


@dataclass(frozen=True)
class ProcessTree:
    """Processes of a host: the parent of each, which are kernels (their ids), and the uids of some."""

    parents: Mapping[int, int]
    kernels: Mapping[int, str]
    uids: Mapping[int, int]


def read(links: Sequence[str], kernels: Sequence[str], uids: Sequence[str]) -> ProcessTree:
    """Read the processes of a script's answer.

    Args:
        links: ``PID PARENT``.
        kernels: ``PID CONNECTION-FILE``.
        uids: ``PID UID``.
    """
    named: dict[int, str] = {}
    for line in kernels:
        number, _, file = line.partition(" ")
        identity = kernel_id(file)
        if re.fullmatch(r"[0-9]{1,9}", number) and identity is not None:
            named[int(number)] = identity
    return ProcessTree(_pairs(links), named, _pairs(uids))


def kernel_id(file: str) -> str | None:
    """Return the kernel id in the name of a connection file; None when there is none."""
    found = _FILE.fullmatch(file.rsplit("/", 1)[-1])
    return found[1] if found is not None else None


def place(processes: ProcessTree, pid: int, servers: Container[int]) -> tuple[str | None, int | None]:
    """Find the kernel and the server that a process belongs to.

    Args:
        processes: of the host.
        pid: the process.
        servers: pids of Jupyter servers.

    Returns:
        The id of the nearest kernel among the process and its ancestors, and the pid of the nearest server above it;
        None for what does not exist.
    """
    kernel: str | None = None
    seen: set[int] = set()
    here: int | None = pid
    while here is not None and here not in seen:
        if here in servers:
            return kernel, here
        kernel = kernel or processes.kernels.get(here)
        seen.add(here)
        here = processes.parents.get(here)
    return kernel, None


def _pairs(lines: Sequence[str]) -> dict[int, int]:
    found = (_PAIR.fullmatch(line) for line in lines)
    return {int(pair[1]): int(pair[2]) for pair in found if pair is not None}
