"""The nouns of GPUs, CUDA and torch: part of model.py, from where everybody imports them."""

from __future__ import annotations

import msgspec


class GpuProcess(msgspec.Struct, frozen=True, kw_only=True):
    """A process that holds GPU memory."""

    pid: int
    name: str | None
    memory: int | None
    user: str | None = None  # None: it cannot be seen from this account (another container, hidden by the host)
    ours: bool = False  # it is a process of the account that we logged in with
    kernel: str | None = None  # the id of the Jupyter kernel that it is, or that started it
    notebook: str | None = None  # the path of that kernel's notebook, as its server tells it
    server: int | None = None  # pid of the Jupyter server that it belongs to
    session: str | None = None  # the name of that server, where jupyman started it


class MigInstance(msgspec.Struct, frozen=True, kw_only=True):
    """A part of a GPU in MIG mode; `name` tells its size: ``3g.40gb``."""

    uuid: str
    name: str


class Gpu(msgspec.Struct, frozen=True, kw_only=True):
    """One physical GPU; memory in bytes, utilization in percent."""

    index: int
    uuid: str | None
    name: str | None
    memory_total: int | None
    memory_used: int | None
    utilization: int | None
    processes: list[GpuProcess] = []
    compute_cap: str | None = None
    mig: bool | None = None
    instances: list[MigInstance] = []


class GpuUse(msgspec.Struct, frozen=True, kw_only=True):
    """What a session's server holds on a GPU through one process; memory in bytes."""

    gpu: int
    pid: int
    memory: int | None
    kernel: str | None = None
    notebook: str | None = None


class Driver(msgspec.Struct, frozen=True, kw_only=True):
    """The NVIDIA driver; `cuda` is the newest CUDA it can run."""

    version: str | None
    cuda: str | None


class Toolkit(msgspec.Struct, frozen=True, kw_only=True):
    """A CUDA toolkit on the host."""

    version: str
    path: str
    on_path: bool = False  # its nvcc is the one on PATH


class Torch(msgspec.Struct, frozen=True, kw_only=True):
    """The torch build of an environment; `cuda` is None for a CPU build."""

    version: str
    cuda: str | None


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """Does this environment's torch fit the driver?"""

    env: str
    ok: bool | None
    text: str
    fix: str | None = None  # what to do where it does not fit: the command that installs what does


class DeepCheck(msgspec.Struct, frozen=True, kw_only=True):
    """What a tiny torch program did in an environment; `device` is the GPU that it ran on."""

    env: str
    ok: bool | None  # None: there was nothing to try
    text: str
    fix: str | None = None
    device: str | None = None
    seconds: float | None = None
