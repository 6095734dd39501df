"""`--gpu`: the grammar (corrections 6), and which GPUs are chosen."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jupyman import errors
from jupyman.model import Gpu, GpuProcess
from jupyman.tools import gpu_choice
from jupyman.tools.gpu_choice import GIB, GpuSpec

BUSY = [GpuProcess(pid=7, name="python", memory=GIB, user="bob")]


def gpu(index: int, free: float | None, *, busy: bool = False, mig: bool | None = None) -> Gpu:
    used = int((80 - free) * GIB) if free is not None else None
    return Gpu(
        index=index,
        uuid=f"GPU-{index}aaa-bbbb",
        name="A100",
        memory_total=80 * GIB,
        memory_used=used,
        utilization=None,
        processes=BUSY if busy else [],
        mig=mig,
    )


@pytest.mark.parametrize(
    ("text", "spec"),
    [
        ("auto", GpuSpec(kind="auto")),
        (" none ", GpuSpec(kind="none")),
        ("0", GpuSpec(kind="indices", indices=(0,))),
        ("1,0,1", GpuSpec(kind="indices", indices=(1, 0))),
        ("GPU-9f0c,MIG-5a6e", GpuSpec(kind="uuids", uuids=("GPU-9f0c", "MIG-5a6e"))),
        ("MIG-GPU-9f0c/1/0", GpuSpec(kind="uuids", uuids=("MIG-GPU-9f0c/1/0",))),
        ("any:2", GpuSpec(kind="any", count=2)),
        ("free:20G", GpuSpec(kind="free", free=20 * GIB)),
        ("free>=20G", GpuSpec(kind="free", free=20 * GIB)),
        ("free:20", GpuSpec(kind="free", free=20 * GIB)),
        ("free:1.5GiB", GpuSpec(kind="free", free=3 * GIB // 2)),
        ("free:512m", GpuSpec(kind="free", free=GIB // 2)),
    ],
)
def test_what_can_be_said(text: str, spec: GpuSpec) -> None:
    assert gpu_choice.parse(text) == spec


@pytest.mark.parametrize(
    "text",
    [
        "",
        "all",
        "AUTO",
        "0,",
        ",0",
        "-1",
        "0 1",
        "any:0",
        "any:",
        "any:100",
        "free",
        "free:",
        "free:x",
        "free>20G",
        "free:-1",
        "GPU-",
        "GPU-a;id",
        "0,GPU-9f0c",
        "²",
        "free:1e9",
        "free:20GG",
        "none,0",
    ],
)
def test_what_cannot_be_meant(text: str) -> None:
    with pytest.raises(errors.UsageFault) as failure:
        gpu_choice.parse(text)
    assert failure.value.status == 2
    assert "any:2" in failure.value.hint


FOUR = [gpu(0, 10, busy=True), gpu(1, 79), gpu(2, 30, busy=True), gpu(3, 80, mig=True)]


@pytest.mark.parametrize(
    ("text", "indices"),
    [
        ("auto", [1]),  # unused and whole: not the emptier one in MIG mode
        ("any:2", [1, 2]),
        ("any:4", [1, 2, 0, 3]),
        ("free:20G", [1]),
        ("free:80G", [3]),
        ("2,0", [2, 0]),
        ("GPU-2aaa-bbbb", [2]),
        ("GPU-2aaa,GPU-0AAA", [2, 0]),
        ("none", []),
    ],
)
def test_what_is_chosen(text: str, indices: list[int]) -> None:
    found, visible, reason = gpu_choice.choose(gpu_choice.parse(text), FOUR)
    assert found == indices
    assert visible == ",".join(f"GPU-{index}aaa-bbbb" for index in indices)
    assert reason


def test_the_reason_names_the_gpu_its_room_and_its_users() -> None:
    assert gpu_choice.choose(gpu_choice.parse("auto"), FOUR)[2] == "GPU 1 (A100, 79 GiB free): the freest"
    assert "in use by others" in gpu_choice.choose(gpu_choice.parse("auto"), [gpu(0, 10, busy=True)])[2]


def test_a_mig_instance_is_handed_on_as_it_is() -> None:
    assert gpu_choice.choose(gpu_choice.parse("MIG-5a6e"), FOUR)[:2] == ([], "MIG-5a6e")


def test_auto_without_a_gpu_sets_nothing() -> None:
    assert gpu_choice.choose(gpu_choice.parse("auto"), [])[:2] == (None, None)


def test_unknown_memory_is_not_free() -> None:
    assert gpu_choice.choose(gpu_choice.parse("auto"), [gpu(0, None), gpu(1, 1)])[0] == [1]
    with pytest.raises(errors.UsageFault):
        gpu_choice.choose(gpu_choice.parse("free:1G"), [gpu(0, None)])


@pytest.mark.parametrize(
    ("text", "gpus", "words"),
    [
        ("4", FOUR, "GPU 4"),
        ("0", [], "GPU 0"),
        ("any:5", FOUR, "4 GPUs, not 5"),
        ("any:1", [], "0 GPUs, not 1"),
        ("free:81G", FOUR, "81 GiB"),
        ("GPU-ffff", FOUR, "GPU-ffff"),
        ("GPU-9aaa", [gpu(9, 1), gpu(9, 2)], "several"),
    ],
)
def test_what_the_host_does_not_have(text: str, gpus: list[Gpu], words: str) -> None:
    with pytest.raises(errors.UsageFault) as failure:
        gpu_choice.choose(gpu_choice.parse(text), gpus)
    assert words in failure.value.message


@given(st.text(max_size=40), st.lists(st.floats(0, 80) | st.none(), max_size=5))
def test_any_text_chooses_or_says_why(text: str, frees: list[float | None]) -> None:
    gpus = [gpu(index, free) for index, free in enumerate(frees)]
    for word in (text, f"free:{text}", f"any:{text}", f"GPU-{text}"):
        failure: errors.UsageFault | None = None
        try:
            indices, visible, _ = gpu_choice.choose(gpu_choice.parse(word), gpus)
            assert set(indices or []) <= set(range(len(gpus)))
            assert visible is None or "\n" not in visible
        except errors.UsageFault as error:
            failure = error
        assert failure is None or len(failure.message.splitlines()) == 1
