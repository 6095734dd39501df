"""`--gpu`: the grammar, and which GPUs are chosen."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jupyman import errors
from jupyman.model import Gpu, GpuProcess, MigInstance
from jupyman.tools.gpu import choose as gpu_choice
from jupyman.tools.gpu.choose import GIB, GpuSpec

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
    found = gpu_choice.choose(gpu_choice.parse(text), FOUR)
    assert found.indices == indices
    assert found.visible == ",".join(f"GPU-{index}aaa-bbbb" for index in indices)
    assert found.reason


def auto(*gpus: Gpu, claimed: tuple[int, ...] = ()) -> gpu_choice.Choice:
    return gpu_choice.choose(gpu_choice.parse("auto"), gpus, claimed)


def test_the_reason_names_the_gpu_its_room_and_its_users() -> None:
    found = auto(*FOUR)
    assert found.reason == "GPU 1 (A100, 79 GiB free): the most free memory, nobody else uses it"
    assert found.shared is None
    found = auto(gpu(0, 10, busy=True))
    assert found.reason.endswith("the most free memory, though others use it")
    assert found.shared == "GPU 0 is used by bob (pid 7)"


def test_own_processes_do_not_keep_from_a_gpu_but_its_memory_counts() -> None:
    mine = msgspec.structs.replace(
        gpu(0, 70), processes=[GpuProcess(pid=8, name="p", memory=GIB, user="me", ours=True)]
    )
    assert auto(mine, gpu(1, 60)).indices == [0]
    assert auto(mine, gpu(1, 71)).indices == [1]
    assert auto(mine).shared is None


def test_a_gpu_of_another_session_is_taken_last_but_before_one_of_others() -> None:
    found = auto(gpu(0, 80), gpu(1, 40), gpu(2, 80, busy=True), claimed=(0,))
    assert found.indices == [1]
    found = auto(gpu(0, 80), gpu(2, 80, busy=True), claimed=(0,))
    assert found.indices == [0]
    assert found.reason.endswith("though another session of yours has it")


def test_what_was_asked_for_is_given_also_where_others_are() -> None:
    found = gpu_choice.choose(gpu_choice.parse("0"), FOUR)
    assert (found.indices, found.shared) == ([0], "GPU 0 is used by bob (pid 7)")
    hidden = msgspec.structs.replace(gpu(0, 70), processes=[GpuProcess(pid=123, name=None, memory=None)])
    found = gpu_choice.choose(gpu_choice.parse("GPU-0aaa"), [hidden])
    assert found.shared == "GPU 0 is used by PID 123 (another container or a user that cannot be seen)"


PARTS = [MigInstance(uuid="MIG-1aaa", name="1g.10gb"), MigInstance(uuid="MIG-3bbb", name="3g.40gb")]


def test_a_mig_instance_is_handed_on_as_it_is() -> None:
    # Where the instances cannot be listed, CUDA must judge the name itself.
    found = gpu_choice.choose(gpu_choice.parse("MIG-5a6e"), FOUR)
    assert (found.indices, found.visible) == ([], "MIG-5a6e")


def test_a_mig_instance_is_known_by_its_card() -> None:
    split = msgspec.structs.replace(gpu(2, None, mig=True), instances=PARTS)
    found = gpu_choice.choose(gpu_choice.parse("MIG-1aaa"), [gpu(0, 10), split])
    assert (found.indices, found.visible) == ([2], "MIG-1aaa")
    with pytest.raises(errors.UsageFault, match="no MIG instance MIG-9999") as failure:
        gpu_choice.choose(gpu_choice.parse("MIG-9999"), [split])
    assert failure.value.hint == "it has MIG-1aaa (1g.10gb), MIG-3bbb (3g.40gb)"


def test_of_a_card_in_mig_mode_the_largest_instance_is_chosen() -> None:
    split = msgspec.structs.replace(gpu(2, None, mig=True), instances=PARTS)
    found = auto(split)
    assert (found.indices, found.visible) == ([2], "MIG-3bbb")
    assert found.reason.startswith("GPU 2 (A100, instance 3g.40gb): ")
    # One without instances cannot be used, as far as the list can be believed.
    assert auto(gpu(0, 80, mig=True), split).indices == [2]
    with pytest.raises(errors.UsageFault, match="1 usable GPUs, not 2"):
        gpu_choice.choose(gpu_choice.parse("any:2"), [gpu(0, 80, mig=True), split])


def test_auto_without_a_gpu_sets_nothing() -> None:
    found = auto()
    assert (found.indices, found.visible) == (None, None)


def test_unknown_memory_is_not_free() -> None:
    assert auto(gpu(0, None), gpu(1, 1)).indices == [1]
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
            found = gpu_choice.choose(gpu_choice.parse(word), gpus)
            assert set(found.indices or []) <= set(range(len(gpus)))
            assert found.visible is None or "\n" not in found.visible
        except errors.UsageFault as error:
            failure = error
        assert failure is None or len(failure.message.splitlines()) == 1
