"""Hosts with installers, and requests for environments, for tests of what is made of them."""

from __future__ import annotations

from typing import Any

from jupyman.model import Driver, Gpu
from jupyman.tools.install.request import EnvironmentRequest, HostInstallers, Python, Tool

HOME = "/home/alice"
JOBS = f"{HOME}/.local/state/jupyman/n/.environments"
CONDA = Tool(kind="conda", path="/opt/conda/bin/conda", root="/opt/conda", writable=False)
OWN = Tool(kind="conda", path=f"{HOME}/miniconda3/bin/conda", root=f"{HOME}/miniconda3", writable=True)
MAMBA = Tool(kind="mamba", path=f"{HOME}/mf/bin/mamba", root=f"{HOME}/mf", writable=True)
MICRO = Tool(kind="micromamba", path=f"{HOME}/.local/bin/micromamba", root=f"{HOME}/mm", writable=True)
UV = Tool(kind="uv", path="/usr/bin/uv", writable=True)
PY311 = Python(path="/usr/bin/python3", version="3.11.2", venv=True)
PY314 = Python(path="/usr/bin/python3.14", version="3.14.1", venv=True)
BARE = Python(path="/usr/bin/python3.13", version="3.13.0", venv=False)


def gpu(cap: str | None = "8.0") -> Gpu:
    return Gpu(index=0, uuid="GPU-1", name="A100", memory_total=1, memory_used=0, utilization=0, compute_cap=cap)


def means(
    *tools: Tool, pythons: tuple[Python, ...] = (), driver: str | None = None, cap: str | None = "8.0"
) -> HostInstallers:
    return HostInstallers(
        home=HOME,
        jobs=JOBS,
        tools=list(tools),
        pythons=list(pythons),
        driver=Driver(version=driver, cuda=None) if driver is not None else None,
        gpus=[gpu(cap)] if driver is not None else [],
    )


def wish(name: str = "e", **more: Any) -> EnvironmentRequest:
    return EnvironmentRequest(name=name, **more)
