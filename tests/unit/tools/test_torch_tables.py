"""Every driver of NVIDIA's table with every build of PyTorch's: the verdict, the build that fits, and the command.

What is expected is worked out here from the publishers' tables (tests/data/cuda, with their sources), not from ours.
"""

from __future__ import annotations

import csv
import re
import shlex
from pathlib import Path

import msgspec
import pytest

from jupyman.model import Driver, Environment, Gpu, Torch
from jupyman.tools.gpu import torch_cuda
from jupyman.tools.install import torch_fix, torch_wheels

DATA = Path(__file__).parents[2] / "data" / "cuda"
Numbers = tuple[int, ...]


def rows(name: str) -> list[dict[str, str]]:
    with (DATA / f"{name}.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def numbers(text: str) -> Numbers:
    return tuple(map(int, text.split(".")))


TOOLKITS = [(numbers(row["cuda"]), row["update"], numbers(row["driver"])) for row in rows("toolkits")]
FIRST = {cuda: driver for cuda, update, driver in TOOLKITS if update == "GA"}
FLOORS = {int(row["generation"]): numbers(row["driver"]) for row in rows("floors")}
BUILDS = [(numbers(row["release"]), numbers(row["cuda"])) for row in rows("builds")]
SPAN = {
    numbers(row["cuda"]): (float(row["lowest"]), float(row["highest"]), bool(row["ptx"]))
    for row in rows("architectures")
}
# Each driver that came with a toolkit, the one right below it, and one that is older than all.
DRIVERS = [
    *(driver for _, _, driver in TOOLKITS),
    *((*driver[:-1], driver[-1] - 1) for _, _, driver in TOOLKITS),
    *FLOORS.values(),
    (440, 33, 1),
]
CAPABILITIES = ["6.1", "7.0", "8.0", "9.0", "12.0"]


def tag(cuda: Numbers) -> str:
    return f"cu{cuda[0]}{cuda[1]}"


def dotted(version: Numbers) -> str:
    return ".".join(f"{part:02d}" if place == 2 else str(part) for place, part in enumerate(version))


def level(cuda: Numbers, driver: Numbers) -> str:
    """What NVIDIA promises for programs of this CUDA on this driver."""
    if driver >= FIRST[cuda]:
        return "full"
    return "limited" if driver >= FLOORS[cuda[0]] else "old"


def has_code(cuda: Numbers, capability: str) -> bool:
    lowest, highest, ptx = SPAN[cuda]
    return lowest <= float(capability) and (ptx or float(capability) <= highest)


def best(driver: Numbers, capability: str, release: Numbers | None = None) -> Numbers | None:
    """The newest CUDA of a build that runs without limits, else the newest that runs at all."""
    there = {cuda for its, cuda in BUILDS if release in {None, its} and has_code(cuda, capability)}
    for wanted in ("full", "limited"):
        found = [cuda for cuda in there if level(cuda, driver) == wanted]
        if found:
            return max(found)
    return None


def environment(release: Numbers, cuda: Numbers | None, **more: object) -> Environment:
    version = f"{dotted(release)}.1+{tag(cuda) if cuda is not None else 'cpu'}"
    return Environment(
        name="e",
        prefix="/opt/my envs/e",
        kind="conda",
        python="3.12.1",
        jupyter=None,
        ipykernel=None,
        torch=Torch(version=version, cuda=".".join(map(str, cuda)) if cuda is not None else None),
        executable="/opt/my envs/e/bin/python",
        **more,  # type: ignore[arg-type]
    )


def gpu(capability: str | None) -> Gpu:
    return Gpu(index=0, uuid="GPU-1", name="X", memory_total=1, memory_used=0, utilization=0, compute_cap=capability)


def shown(driver: Numbers) -> Numbers | None:
    """The CUDA in the header of that driver's nvidia-smi: the newest toolkit that is not younger than it."""
    return max((cuda for cuda, first in FIRST.items() if driver >= first), default=None)


@pytest.mark.parametrize("header", [False, True], ids=["version alone", "with the header's CUDA"])
@pytest.mark.parametrize(("release", "cuda"), BUILDS, ids=[f"torch{dotted(r)}-{tag(c)}" for r, c in BUILDS])
def test_every_driver_with_every_build(release: Numbers, cuda: Numbers, header: bool) -> None:
    for version in DRIVERS:
        newest = shown(version)
        if header and newest is None:
            continue
        told = ".".join(map(str, newest)) if header and newest is not None else None
        driver = Driver(version=dotted(version), cuda=told)
        verdict = torch_cuda.verdict(environment(release, cuda), driver, [gpu("8.0")])
        assert verdict is not None
        expected = level(cuda, version)
        where = f"driver {dotted(version)}: {verdict.text}"
        assert verdict.ok is (expected != "old"), where
        assert ("with limits" in verdict.text) is (expected == "limited"), where
        if expected == "old":
            fits = best(version, "8.0")
            assert f"needs {dotted(FLOORS[cuda[0]])}" in verdict.text, where
            words = f"build that fits is {tag(fits)}" if fits is not None else "no build of torch fits"
            assert words in verdict.text, where
            command(release, cuda, version, "8.0")


@pytest.mark.parametrize("capability", CAPABILITIES)
@pytest.mark.parametrize("version", sorted(set(DRIVERS)), ids=dotted)
def test_the_best_build_is_the_tables(version: Numbers, capability: str) -> None:
    driver = Driver(version=dotted(version), cuda=None)
    for release in [None, *sorted({release for release, _ in BUILDS})]:
        expected = best(version, capability, release)
        found = torch_cuda.best_build(driver, [gpu(capability)], release)
        assert found == (tag(expected) if expected is not None else None), f"torch {release}"


def command(release: Numbers, cuda: Numbers | None, version: Numbers, capability: str) -> None:
    """Assert that the command asks for a build that exists and runs."""
    driver = Driver(version=dotted(version), cuda=None)
    line = torch_fix.command(environment(release, cuda), driver, [gpu(capability)])
    newest = best(version, capability)
    if newest is None:
        assert line is None
        return
    assert line is not None
    words = shlex.split(line)
    assert words[:4] == ["/opt/my envs/e/bin/python", "-m", "pip", "install"]
    same = best(version, capability, release)
    wanted = same or newest
    assert words[5:] == ["--index-url", f"https://download.pytorch.org/whl/{tag(wanted)}"]
    if same is not None:
        # The build is named: pip takes what is installed for the same version otherwise.
        assert words[4] == f"torch=={dotted(release)}.1+{tag(same)}"
        return
    fits = {its for its, one in BUILDS if one == newest}
    exact = re.fullmatch(r"torch==([0-9.]+)\.\*", words[4])
    least = re.fullmatch(r"torch>=([0-9.]+)", words[4])
    assert exact or least, words[4]
    asked = numbers((exact or least)[1])  # type: ignore[index]
    assert asked in fits
    # What is installed does not meet it, or pip would leave it as it is.
    assert release != asked if exact else release < asked


@pytest.mark.parametrize("capability", CAPABILITIES)
def test_the_command_for_every_build(capability: str) -> None:
    for release, cuda in BUILDS:
        for version in DRIVERS:
            if level(cuda, version) == "old" or not has_code(cuda, capability):
                command(release, cuda, version, capability)
    for release in sorted({release for release, _ in BUILDS}):
        command(release, None, (580, 65, 6), capability)  # a CPU build on a host with a GPU


def test_the_command_for_other_tools() -> None:
    driver = Driver(version="550.54.15", cuda="12.4")
    made_by_uv = msgspec.structs.replace(environment((2, 11), (13, 0), torch_with=["torchvision"]), kind="uv")
    assert torch_fix.command(made_by_uv, driver, [gpu("8.0")]) == (
        "uv pip install --python '/opt/my envs/e/bin/python' torch==2.11.1+cu128 torchvision "
        "--index-url https://download.pytorch.org/whl/cu128"
    )
    conda = torch_fix.command(
        environment((2, 11), (13, 0), torch_by="conda", root="/opt/conda", torch_with=["torchaudio"]), driver, []
    )
    assert conda == (
        "/opt/conda/bin/conda install -p '/opt/my envs/e' -c conda-forge pytorch-gpu 'cuda-version<=12.4' torchaudio"
    )
    assert torch_fix.command(environment((2, 11), (13, 0)), None, [gpu("8.0")]) is None


def test_our_tables_are_the_publishers() -> None:
    assert torch_cuda.RELEASED_WITH == FIRST
    assert torch_cuda.FLOOR == FLOORS
    ours = {cuda for _, cuda, *_ in torch_cuda.BUILDS}
    assert ours == set(SPAN)
    for name, cuda, lowest, highest, first, last in torch_cuda.BUILDS:
        assert name == tag(cuda)
        low, high, ptx = SPAN[cuda]
        assert (lowest, highest) == (low, float("inf") if ptx else high)
        releases = [release for release, its in BUILDS if its == cuda]
        assert first <= min(releases)
        assert last is None or last == max(releases)
    on_pypi = {numbers(row["release"]): tag(numbers(row["cuda"])) for row in rows("builds") if row["pypi"]}
    assert on_pypi == torch_wheels.ON_PYPI
