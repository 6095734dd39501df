"""Whether a torch build runs on a driver and GPUs.

Sources: CUDA compatibility guide, "Minor version compatibility" (floors); CUDA release notes, table "CUDA Toolkit and
corresponding driver versions" (Linux x86_64); PyTorch's RELEASE.md (builds, and the architectures in them), its issues
178665 (no cu128 from 2.12 on) and 190385 (no cu126 from 2.15 on). tests/data/cuda holds these tables for the tests.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from jupyman.model import Driver, Environment, Gpu, Verdict

Version = tuple[int, ...]

# The driver that each toolkit was released with: that one and newer ones run everything.
RELEASED_WITH: dict[Version, Version] = {
    (11, 8): (520, 61, 5),
    (12, 0): (525, 60, 13),
    (12, 1): (530, 30, 2),
    (12, 2): (535, 54, 3),
    (12, 3): (545, 23, 6),
    (12, 4): (550, 54, 14),
    (12, 5): (555, 42, 2),
    (12, 6): (560, 28, 3),
    (12, 8): (570, 26),
    (12, 9): (575, 51, 3),
    (13, 0): (580, 65, 6),
    (13, 1): (590, 44, 1),
    (13, 2): (595, 45, 4),
    (13, 3): (610, 43, 2),
}
# Minor version compatibility: an older driver of the same CUDA generation runs it too, but no PTX of a newer toolkit.
FLOOR: dict[int, tuple[int, int, int]] = {11: (450, 80, 2), 12: (525, 60, 13), 13: (580, 65, 6)}
# The builds that PyTorch publishes, newest first: tag, CUDA, lowest and highest compute capability that it has code
# for (cu130 carries PTX for newer ones), first and last release that has it. cu132 (from 2.12 on) is experimental, and
# whatever driver runs it runs cu130.
BUILDS: tuple[tuple[str, Version, float, float, Version, Version | None], ...] = (
    ("cu130", (13, 0), 7.5, math.inf, (2, 9), None),
    ("cu129", (12, 9), 7.5, 12.1, (2, 8), (2, 8)),
    ("cu128", (12, 8), 7.5, 12.0, (2, 7), (2, 11)),
    ("cu126", (12, 6), 5.0, 9.0, (2, 6), (2, 14)),
    ("cu124", (12, 4), 5.0, 9.0, (2, 4), (2, 6)),
    ("cu121", (12, 1), 5.0, 9.0, (2, 1), (2, 5)),
    ("cu118", (11, 8), 5.0, 9.0, (2, 0), (2, 7)),
)


def version(text: str | None) -> Version | None:
    """Read ``550.54.15`` as numbers; None for other text."""
    if text is None or not re.fullmatch(r"[0-9]{1,6}(?:\.[0-9]{1,6}){0,5}", text):
        return None
    return tuple(int(part) for part in text.split("."))


def support(cuda: Version, driver: Driver | None) -> str | None:
    """Return how well a driver runs programs built for a CUDA version.

    Args:
        cuda: major and minor.
        driver: of the host.

    Returns:
        "full", "limited" (minor version compatibility: no PTX of a newer toolkit), "old"; None when it is unknown.
    """
    have = version(driver.version) if driver is not None else None
    newest = version(driver.cuda) if driver is not None else None
    key = cuda[:2] if len(cuda) > 1 else (cuda[0], 0)
    if newest is not None and newest[:2] >= key:
        return "full"
    floor = FLOOR.get(key[0])
    if have is None:
        if newest is None:
            return None
        return "limited" if newest[0] >= key[0] else "old"
    if floor is None:
        # Older than our tables: every present driver runs it. Newer: unknown.
        return "full" if key[0] < min(FLOOR) else None
    if have < floor:
        return "old"
    # A toolkit between two rows (12.7 was never released) counts as the next one.
    needed = min((row for row in RELEASED_WITH if row >= key and row[0] == key[0]), default=None)
    return "full" if needed is not None and have >= RELEASED_WITH[needed] else "limited"


def capabilities(gpus: Sequence[Gpu]) -> list[tuple[Gpu, float]]:
    """Return the compute capability of each GPU that reports it."""
    texts = ((gpu, gpu.compute_cap or "") for gpu in gpus)
    return [(gpu, float(text)) for gpu, text in texts if re.fullmatch(r"[0-9]{1,3}\.[0-9]", text)]


def best_build(driver: Driver | None, gpus: Sequence[Gpu], release: Version | None = None) -> str | None:
    """Return the newest PyTorch build for a host.

    Args:
        driver: of the host.
        gpus: of the host; each must have code in the build.
        release: only builds of this torch release (major and minor); None: of all.

    Returns:
        Its tag, such as ``cu124``: the newest that runs without limits, else the newest that runs; None: none runs.
    """
    limited: str | None = None
    for tag, cuda, low, high, first, last in BUILDS:
        if release is not None and (release < first or (last is not None and release > last)):
            continue
        if not all(low <= one <= high for _, one in capabilities(gpus)):
            continue
        level = support(cuda, driver)
        if level == "full":
            return tag
        if level == "limited" and limited is None:
            limited = tag
    return limited


def advice(driver: Driver | None, gpus: Sequence[Gpu], torch: str | None = None) -> str:
    """Describe the builds that fit: one of the same torch release, if there is one, and the newest of all."""
    numbers = version((torch or "").split("+", 1)[0])
    release = numbers[:2] if numbers is not None and len(numbers) > 1 else None
    newest = best_build(driver, gpus)
    if newest is None:
        return "no build of torch fits this driver and GPU" if driver is not None else "the build that fits is unknown"
    span = next(
        f"torch {first[0]}.{first[1]} " + (f"to {last[0]}.{last[1]}" if last is not None else "or newer")
        for tag, _, _, _, first, last in BUILDS
        if tag == newest
    )
    same = best_build(driver, gpus, release) if release is not None else None
    if same == newest:
        return f"the build that fits is {newest}"
    if same is not None and release is not None:
        return f"the newest build that fits is {newest} ({span}); of torch {release[0]}.{release[1]} it is {same}"
    return f"the newest build that fits is {newest} ({span})"


def verdict(environment: Environment, driver: Driver | None, gpus: Sequence[Gpu]) -> Verdict | None:
    """Judge an environment's torch.

    Args:
        environment: with its torch build.
        driver: of the host; None: unknown.
        gpus: of the host.

    Returns:
        ok True (fits, perhaps with limits), False (does not run on the GPU), None (unknown). The whole is None when the
        environment has no torch.
    """
    torch = environment.torch
    if torch is None:
        return None

    def say(ok: bool | None, text: str) -> Verdict:
        return Verdict(env=environment.prefix, ok=ok, text=text)

    name = f"torch {torch.version}"
    if "+rocm" in torch.version:
        return say(False if gpus else None, f"{name} is a build for AMD GPUs (ROCm)")
    cuda = version(torch.cuda)
    if cuda is None:
        if not gpus:
            return say(True if driver is None else None, f"{name} is a CPU build; no GPU was seen")
        return say(False, f"{name} is a CPU build: it does not use the GPU; {advice(driver, gpus, torch.version)}")
    built = f"{name} (CUDA {torch.cuda})"
    if driver is None:
        return say(None, f"{built}: no NVIDIA driver was seen to compare it with")
    shown = f"driver {driver.version}" if driver.version else f"a driver for CUDA {driver.cuda}"
    level = support(cuda, driver)
    if level is None:
        return say(None, f"{built} is not in our tables for {shown}")
    if level == "old":
        floor = FLOOR.get(cuda[0])
        needs = f", which needs {floor[0]}.{floor[1]:02d}.{floor[2]:02d}" if floor is not None else ""
        return say(False, f"{shown} is too old for {built}{needs}; {advice(driver, gpus, torch.version)}")
    misfit = _misfit(cuda, torch.version, gpus)
    if misfit is not None:
        gpu, age, sure = misfit
        text = f"{gpu.name or 'the GPU'} (compute capability {gpu.compute_cap}) is too {age} for {built}"
        if not sure:
            return say(None, text.replace("is too", "may be too"))
        return say(False, f"{text}; {advice(driver, gpus, torch.version)}")
    if level == "limited":
        return say(True, f"{built} fits {shown} with limits: no PTX of a newer CUDA (torch.compile, Triton may fail)")
    return say(True, f"{built} fits {shown}")


def _misfit(cuda: Version, torch: str, gpus: Sequence[Gpu]) -> tuple[Gpu, str, bool] | None:
    """Return a GPU that a build has no code for: the GPU, "old" or "new", and whether that is certain."""
    build = next((row for row in BUILDS if row[1] == cuda[:2]), None)
    if build is None:
        return None
    for gpu, one in capabilities(gpus):
        if one < build[2]:
            # The source of the table does not show which of the first CUDA 12.8 builds had code for sm_70.
            release = version(torch.split("+", 1)[0])
            return gpu, "old", not (one >= 7.0 and (release is None or release < (2, 11)))
        if one > build[3]:
            return gpu, "new", True
    return None
