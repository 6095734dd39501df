"""Driver, CUDA, torch and the GPU: the tables, and what is said of an environment."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jupyman.model import Driver, Environment, Gpu, Torch
from jupyman.tools.gpu import torch_cuda


def environment(version: str | None, cuda: str | None = None) -> Environment:
    torch = Torch(version=version, cuda=cuda) if version is not None else None
    return Environment(name="e", prefix="/e", kind="conda", python="3.12.1", jupyter=None, ipykernel=None, torch=torch)


def driver(version: str | None, cuda: str | None = None) -> Driver:
    return Driver(version=version, cuda=cuda)


def gpu(cap: str | None, name: str = "NVIDIA X") -> Gpu:
    return Gpu(index=0, uuid="GPU-1", name=name, memory_total=None, memory_used=None, utilization=None, compute_cap=cap)


@pytest.mark.parametrize(
    ("cuda", "version", "shown", "level"),
    [
        ((12, 4), "550.54.14", None, "full"),
        ((12, 4), "550.54.15", None, "full"),
        ((12, 4), "550.54.13", None, "limited"),
        ((12, 4), "535.104.05", None, "limited"),
        ((12, 4), "525.60.13", None, "limited"),
        ((12, 4), "525.60.11", None, "old"),
        ((12, 4), "520.61.05", None, "old"),
        ((11, 8), "450.80.02", None, "limited"),
        ((11, 8), "610.43.02", None, "full"),
        ((11, 3), "470.57.02", None, "limited"),
        ((13, 0), "580.65.06", None, "full"),
        ((13, 0), "575.57.08", None, "old"),
        ((12, 7), "565.57.01", None, "limited"),  # no such toolkit: as 12.8
        ((13, 4), "610.43.02", None, "limited"),
        ((13, 4), "616.00", "13.4", "full"),  # newer than the table: the driver says itself
        ((12, 4), None, "12.4", "full"),
        ((12, 4), None, "12.2", "limited"),
        ((12, 4), None, "11.8", "old"),
        ((10, 2), "535.54.03", None, "full"),
        ((14, 0), "700.10.01", None, None),
        ((12, 4), None, None, None),
    ],
)
def test_support(cuda: tuple[int, ...], version: str | None, shown: str | None, level: str | None) -> None:
    assert torch_cuda.support(cuda, driver(version, shown)) == level


@pytest.mark.parametrize(
    ("version", "caps", "release", "tag"),
    [
        ("580.65.06", ["9.0"], None, "cu130"),
        ("570.124.06", ["9.0"], None, "cu128"),  # cu129 runs with limits only, before 575.51.03
        ("570.26", ["8.0"], (2, 7), "cu128"),
        ("560.35.05", ["8.0"], None, "cu126"),
        ("550.54.15", ["8.6"], None, "cu124"),
        ("535.104.05", ["8.6"], None, "cu121"),
        ("525.60.13", ["8.0"], (2, 4), "cu118"),
        ("470.57.02", ["8.0"], None, "cu118"),
        ("440.33.01", ["7.0"], None, None),
        ("580.65.06", ["7.0"], None, "cu126"),  # Volta: not in CUDA 13
        ("580.65.06", ["6.1"], (2, 11), "cu126"),
        ("570.26", ["12.0"], None, "cu128"),
        ("550.54.15", ["12.0"], None, "cu129"),  # Blackwell: only with limits
        ("580.65.06", ["12.1"], None, "cu130"),
        ("580.65.06", ["7.0", "12.0"], None, None),
        ("550.54.15", [], (2, 5), "cu124"),
    ],
)
def test_best_build(version: str, caps: list[str], release: tuple[int, ...] | None, tag: str | None) -> None:
    assert torch_cuda.best_build(driver(version), [gpu(cap) for cap in caps], release) == tag


@pytest.mark.parametrize(
    ("torch", "version", "cap", "ok", "words"),
    [
        (("2.5.1+cu124", "12.4"), "550.54.15", "8.0", True, "fits driver 550.54.15"),
        (("2.5.1+cu124", "12.4"), "535.104.05", "8.0", True, "with limits"),
        (("2.11.0+cu130", "13.0"), "550.54.15", "8.0", False, "too old"),
        (("2.11.0+cu130", "13.0"), "550.54.15", "8.0", False, "the newest build that fits is cu124 (torch 2.4 to 2.6)"),
        (("2.11.0+cu130", "13.0"), "550.54.15", "8.0", False, "which needs 580.65.06"),
        (("2.11.0+cu130", "13.0"), "560.35.05", "8.0", False, "the build that fits is cu126"),
        (("2.9.1+cu130", "13.0"), "535.104.05", "8.0", False, "of torch 2.9 it is cu128"),
        (("2.5.1", None), "550.54.15", "8.0", False, "CPU build"),
        (("2.5.1", None), "550.54.15", "8.0", False, "the build that fits is cu124"),
        (("2.6.0+rocm6.2", None), "550.54.15", "8.0", False, "AMD"),
        (("2.5.1+cu124", "12.4"), "570.26", "12.0", False, "too new"),
        (("2.11.0+cu130", "13.0"), "580.65.06", "7.0", False, "too old for torch 2.11.0+cu130"),
        (("2.9.1+cu128", "12.8"), "580.65.06", "7.0", None, "may be too old"),
        (("2.11.0+cu128", "12.8"), "580.65.06", "7.0", False, "is too old"),
        (("2.9.1+cu128", "12.8"), "580.65.06", "6.1", False, "is too old"),
        (("2.5.1+cu124", "12.4"), "550.54.15", None, True, "fits"),
        (("3.0+cu140", "14.0"), "700.1.1", "8.0", None, "not in our tables"),
    ],
)
def test_verdicts(torch: tuple[str, str | None], version: str, cap: str | None, ok: bool | None, words: str) -> None:
    found = torch_cuda.verdict(environment(*torch), driver(version), [gpu(cap)])
    assert found is not None
    assert found.env == "/e"
    assert found.ok is ok
    assert words in found.text


def test_without_torch_there_is_no_verdict() -> None:
    assert torch_cuda.verdict(environment(None), driver("550.54.15"), []) is None


@pytest.mark.parametrize(("torch", "ok"), [(("2.5.1+cu124", "12.4"), None), (("2.5.1+cpu", None), True)])
def test_without_a_driver(torch: tuple[str, str | None], ok: bool | None) -> None:
    found = torch_cuda.verdict(environment(*torch), None, [])
    assert found is not None
    assert found.ok is ok


def test_the_tables_agree_with_each_other() -> None:
    for _, cuda, low, high, first, last in torch_cuda.BUILDS:
        assert cuda in torch_cuda.RELEASED_WITH
        assert torch_cuda.FLOOR[cuda[0]] <= torch_cuda.RELEASED_WITH[cuda]
        assert low < high
        assert last is None or first <= last
    rows = list(torch_cuda.RELEASED_WITH.items())
    assert rows == sorted(rows)
    assert [driver for _, driver in rows] == sorted(driver for _, driver in rows)


VERSIONS = st.one_of(st.none(), st.text(max_size=12), st.from_regex(r"\A[0-9]{1,3}(\.[0-9]{1,2}){0,3}\Z"))


@given(VERSIONS, VERSIONS, VERSIONS, VERSIONS, VERSIONS)
def test_any_versions_get_a_verdict(
    torch: str | None, cuda: str | None, version: str | None, shown: str | None, cap: str | None
) -> None:
    found = torch_cuda.verdict(environment(torch or "", cuda), driver(version, shown), [gpu(cap)])
    assert found is not None
    assert found.text


@given(st.tuples(st.integers(440, 620), st.integers(0, 99)))
def test_a_newer_driver_never_runs_less(version: tuple[int, int]) -> None:
    order = ["old", "limited", "full"]
    older, newer = (driver(f"{major}.{version[1]}") for major in (version[0], version[0] + 1))
    for cuda in torch_cuda.RELEASED_WITH:
        before, after = torch_cuda.support(cuda, older), torch_cuda.support(cuda, newer)
        assert before is not None
        assert after is not None
        assert order.index(before) <= order.index(after)
