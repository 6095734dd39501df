"""GPUs, CUDA and torch."""

from __future__ import annotations

import msgspec


class GpuProcess(msgspec.Struct, frozen=True, kw_only=True):
    """A process that holds GPU memory."""

    pid: int
    name: str | None
    memory: int | None
    user: str | None = None  # None: not visible to this account (another container, or hidden by the host)
    ours: bool = False  # it belongs to the account that we are logged in as
    kernel: str | None = None  # id of the Jupyter kernel that it is, or that started it
    notebook: str | None = None  # path of that kernel's notebook, as its server reports it
    server: int | None = None  # pid of the Jupyter server that it belongs to
    session: str | None = None  # name of that server if jupyman started it


class MigInstance(msgspec.Struct, frozen=True, kw_only=True):
    """A part of a GPU in MIG mode; `name` has its size: ``3g.40gb``."""

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
    """GPU memory that a session's server holds through one process; bytes."""

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
    """Whether an environment's torch fits the driver."""

    env: str
    ok: bool | None
    text: str
    fix: str | None = None  # if it does not fit: the command that installs one that does


class DeepCheck(msgspec.Struct, frozen=True, kw_only=True):
    """The result of a small torch program in an environment; `device` is the GPU that it ran on."""

    env: str
    ok: bool | None  # None: nothing was tried
    text: str
    fix: str | None = None
    device: str | None = None
    seconds: float | None = None
