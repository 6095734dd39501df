"""The command that replaces an environment's torch by one that fits the driver and the GPUs.

Sources: PyTorch's "Get started" page (an index for each build; the packages that go with a release are named in the
same command); conda-forge's documentation of `cuda-version`, the package that keeps builds to one CUDA.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from jupyman.model import Driver, Environment, Gpu
from jupyman.tools.envs import activation
from jupyman.tools.gpu import torch_cuda
from jupyman.tools.install.torch_wheels import INDEX


def command(environment: Environment, driver: Driver | None, gpus: Sequence[Gpu]) -> str | None:
    """Return the command for an environment whose torch does not run on the GPUs.

    Args:
        environment: with its torch.
        driver: of the host.
        gpus: of the host; without any, a CPU build is right.

    Returns:
        A line for a POSIX shell on the host, with the same release of torch if it has such a build, else the newest
        that has one. None when no build fits.
    """
    torch = environment.torch
    if torch is None or driver is None:
        return None
    newest = torch_cuda.best_build(driver, gpus)
    if newest is None:
        return None
    if environment.torch_by == "conda":
        return _conda(environment, newest)
    public = torch.version.split("+", 1)[0]
    numbers = torch_cuda.version(public)
    same = torch_cuda.best_build(driver, gpus, numbers[:2]) if numbers is not None and len(numbers) > 1 else None
    tag = same or newest
    first, last = next((row[4], row[5]) for row in torch_cuda.BUILDS if row[0] == tag)
    if same is not None:
        # For pip, an installed 2.5.1+cu124 satisfies torch==2.5.1: the build must be in the version.
        wanted = f"torch=={public}+{tag}"
    elif last is not None:
        wanted = f"torch=={last[0]}.{last[1]}.*"
    else:
        wanted = f"torch>={first[0]}.{first[1]}"
    python = activation.python(environment)
    pip = ["uv", "pip", "install", "--python", python] if environment.kind == "uv" else [python, "-m", "pip", "install"]
    return shlex.join([*pip, wanted, *environment.torch_with, "--index-url", f"{INDEX}/{tag}"])


def _conda(environment: Environment, tag: str) -> str:
    """Return the command of conda's own solver; pip would replace conda's torch only partly."""
    cuda = next(row[1] for row in torch_cuda.BUILDS if row[0] == tag)
    program = "micromamba" if environment.kind == "micromamba" else "conda"
    if environment.root is not None and program == "conda":
        program = f"{environment.root.rstrip('/')}/bin/{environment.kind if environment.kind == 'mamba' else 'conda'}"
    packages = ["pytorch-gpu", f"cuda-version<={cuda[0]}.{cuda[1]}", *environment.torch_with]
    return shlex.join([program, "install", "-p", environment.prefix, "-c", "conda-forge", *packages])
