"""Judge the answer of remote/gpus/torch_run.py about an environment's torch."""

from __future__ import annotations

import re
from typing import Literal

import msgspec

from jupyman.model import DeepCheck, Environment
from jupyman.tools.host.text import clean


class TorchReport(msgspec.Struct, frozen=True):
    """The program's answer."""

    stage: Literal["import", "cpu", "cuda", "done"] = "import"
    version: str | None = None
    cuda: str | None = None
    hip: str | None = None
    right: bool | None = None
    device: str | None = None
    capability: str | None = None
    error: str | None = None
    seconds: float | None = None


_NO_GPU = r"Found no NVIDIA driver|No CUDA GPUs are available|no CUDA-capable device"
# Errors of torch and CUDA, and what to do about them; the first match counts.
_FIXES = (
    (r"driver on your system is too old|no kernel image is available|not compiled with CUDA", "install"),
    (r"out of memory", "free memory on that GPU, or choose another with CUDA_VISIBLE_DEVICES or --gpu"),
    (r"No module named", "install"),
    (
        _NO_GPU,
        "see what jupyman check shows about the GPUs",
    ),
    (r"cannot open shared object file|undefined symbol", "install"),
    (
        r"unspecified launch failure|uncorrectable|device-side assert|CUDA error: unknown",
        "ask the admin to look at the GPU",
    ),
)


def judge(
    environment: Environment,
    answer: str | None,
    *,
    status: int | None,
    line: str | None,
    limit: float,
    install: str | None,
    gpus: bool,
) -> DeepCheck:
    """Return the verdict.

    Args:
        environment: in which it ran.
        answer: JSON; None when there was none.
        status: its exit status; 124 and 137: it was ended at the limit; None: unknown.
        line: the last line that it printed, if it gave no answer.
        limit: seconds that it had.
        install: the command that installs a torch that fits, if one is known.
        gpus: the host has GPUs.
    """

    def say(ok: bool | None, text: str, fix: str | None = None) -> DeepCheck:
        report = found or TorchReport()
        device = clean(report.device, 80) if report.device is not None and ok else None
        return DeepCheck(
            env=environment.prefix, ok=ok, text=text, fix=fix, device=device, seconds=report.seconds if ok else None
        )

    found: TorchReport | None = None
    if answer is not None:
        try:
            found = msgspec.json.decode(answer, type=TorchReport)
        except msgspec.DecodeError:
            return say(False, "its answer could not be read", "try by hand: python -c 'import torch'")
    if found is None:
        if status in {None, 124, 137}:
            text = f"torch did not finish a small computation in {limit:.0f} s"
            return say(
                False, text, "the driver may be stuck, or a network file system slow: try again, or ask the admin"
            )
        text = f"its Python ended with status {status}{f': {clean(line)}' if line else ''}"
        return say(False, text, "try by hand: python -c 'import torch'")
    name = f"torch {clean(found.version or '', 60)}" if found.version else "torch"
    if found.error is not None:
        error = clean(found.error)
        if not gpus and re.search(_NO_GPU, error):
            return say(None, f"{name} can be imported; there is no GPU here to compute on")
        where = {"import": "cannot be imported", "cpu": "fails on the CPU"}.get(found.stage, "fails on the GPU")
        return say(False, f"{name} {where}: {error}", _fix(error, install))
    if not found.right:
        return say(False, f"{name} computed a wrong result", "ask the admin to look at the GPU")
    took = f"in {found.seconds:.1f} s" if found.seconds is not None else "in time"
    if found.cuda is None and found.hip is None:
        text = f"{name} is a CPU build: it computed on the CPU {took}, not on a GPU"
        return say(not gpus, text, install if gpus else None)
    capability = f", compute capability {clean(found.capability, 20)}" if found.capability else ""
    return say(True, f"{name} computed on {clean(found.device or 'the GPU', 80)}{capability} {took}")


def _fix(error: str, install: str | None) -> str:
    fix = next((fix for words, fix in _FIXES if re.search(words, error)), "install")
    if fix != "install":
        return fix
    return install or "install a build of torch that fits: jupyman check names it"
