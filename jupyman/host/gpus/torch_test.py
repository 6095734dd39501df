"""`check --deep`: compute something with an environment's torch, on a GPU when its build supports one."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from jupyman import errors, remote
from jupyman.host.shell import script
from jupyman.host.shell.script import Shell
from jupyman.model import DeepCheck, Driver, Environment, Gpu
from jupyman.tools.envs import activation
from jupyman.tools.gpu import choose as gpu_choice
from jupyman.tools.gpu import torch_run
from jupyman.tools.install import torch_fix

LIMIT = 90  # seconds; importing torch from a cold network home takes 30, and CUDA loads its kernels on first use


def run(
    shell: Shell,
    environment: Environment,
    driver: Driver | None,
    gpus: Sequence[Gpu],
    *,
    limit: int = LIMIT,
    cancelled: threading.Event | None = None,
) -> DeepCheck:
    """Compute something small with an environment's torch, by its own Python, activated as for a kernel.

    Args:
        shell: the host.
        environment: whose torch is tried.
        driver: of the host.
        gpus: of the host; the one with the most free memory is used.
        limit: seconds, after which the program is killed.
        cancelled: ends the wait.

    Returns:
        The result; an environment without torch is not a failure.

    Raises:
        LinkLost: the connection ended.
        Interrupted: `cancelled` was set.
    """
    if environment.torch is None:
        return DeepCheck(env=environment.prefix, ok=None, text="there is no torch in it")
    visible = gpu_choice.choose(gpu_choice.parse("auto"), gpus).visible if gpus else None
    status = answer = line = None
    try:
        facts = script.run(
            shell,
            "gpus/torch_run",
            {
                "ACTIVATE": activation.script(environment),
                "PYTHON": activation.python(environment),
                "PROGRAM": remote.program("gpus/torch_run"),
                "LIMIT": str(limit),
                "CUDA_SET": "0" if visible is None else "1",
                "CUDA": visible or "",
            },
            timeout=limit + 30.0,
            cancelled=cancelled,
        )
        status, answer, line = facts.number("status"), facts.one("told"), facts.one("line")
    except (errors.RemoteFailed, errors.EnvironmentMissing) as error:
        return DeepCheck(env=environment.prefix, ok=False, text=error.message, fix=error.hint)
    return torch_run.judge(
        environment,
        answer,
        status=status,
        line=line,
        limit=limit,
        install=torch_fix.command(environment, driver, gpus),
        gpus=bool(gpus),
    )
