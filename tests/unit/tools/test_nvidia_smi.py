"""nvidia-smi: rows, headers and complaints as they were published, and any text at all."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jupyman.model import Driver
from jupyman.tools.gpu import nvidia_smi

MIB = 1024 * 1024
FULL = [
    "0, GPU-9f0c1111-2222-3333-4444-555566667777, NVIDIA A100 80GB PCIe, 550.54.15, 81920, 1226, 28, 8.0, Disabled",
    "1, GPU-a008e90f-259e-df57-7988-63b6831fff68, NVIDIA GeForce RTX 4080, 550.54.15, 16376, 0, [N/A], 8.9, [N/A]",
]
HEADER = [
    "Mon Feb  3 10:11:12 2025",
    "+-----------------------------------------------------------------------------------------+",
    "| NVIDIA-SMI 550.54.15              Driver Version: 550.54.15      CUDA Version: 12.4     |",
]
HEADER_610 = ["| NVIDIA-SMI 610.57.04    KMD Version: 610.57.04    CUDA UMD Version: 13.3     |"]
NOT_LOADED = (
    "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver. Make sure that the latest NVIDIA "
    "driver is installed and running."
)


def test_full_rows() -> None:
    first, second = nvidia_smi.gpus(FULL)
    assert (first.index, first.name, first.memory_total, first.memory_used) == (
        0,
        "NVIDIA A100 80GB PCIe",
        81920 * MIB,
        1226 * MIB,
    )
    assert (first.utilization, first.compute_cap, first.mig) == (28, "8.0", False)
    assert second.uuid == "GPU-a008e90f-259e-df57-7988-63b6831fff68"
    assert (second.memory_used, second.utilization, second.mig) == (0, None, None)


def test_minimal_rows() -> None:
    (gpu,) = nvidia_smi.gpus(["0, GPU-1, Tesla K80, 418.67, 11441, 0"], minimal=True)
    assert (gpu.name, gpu.memory_total, gpu.utilization, gpu.compute_cap, gpu.mig) == (
        "Tesla K80",
        11441 * MIB,
        None,
        None,
        None,
    )


@pytest.mark.parametrize(
    "cell", ["[N/A]", "[Not Supported]", "[Insufficient Permissions]", "[Unknown Error]", "ERR!", "", "-1"]
)
def test_a_cell_that_is_no_number_is_not_known(cell: str) -> None:
    (gpu,) = nvidia_smi.gpus([f"0, GPU-1, X, 550.54.15, {cell}, {cell}, {cell}, 8.0, {cell}"])
    assert (gpu.memory_total, gpu.memory_used, gpu.utilization, gpu.mig) == (None, None, None, None)


def test_a_comma_in_the_name_and_mig() -> None:
    (gpu,) = nvidia_smi.gpus(["3, GPU-1, Grace, Hopper, 550.54.15, 10, 5, 1, 9.0, Enabled"])
    assert (gpu.index, gpu.name, gpu.mig) == (3, "Grace, Hopper", True)


def test_rows_beside_a_lost_card_are_kept() -> None:
    rows = ["Unable to determine the device handle for GPU0000:CB:00.0: Unknown Error", *FULL]
    assert [gpu.index for gpu in nvidia_smi.gpus(rows)] == [0, 1]
    found = nvidia_smi.problem(0, rows)
    assert found is not None
    assert found.code == "gpu-lost"


@pytest.mark.parametrize(
    ("rows", "header", "expected"),
    [
        (FULL, HEADER, Driver(version="550.54.15", cuda="12.4")),
        (FULL, [], Driver(version="550.54.15", cuda=None)),
        ([], HEADER_610, Driver(version="610.57.04", cuda="13.3")),
        ([], ["| NVIDIA-SMI 390.30    Driver Version: 390.30  |"], Driver(version="390.30", cuda=None)),
        ([], ["CUDA Version: N/A"], None),
        ([], [], None),
    ],
)
def test_driver(rows: list[str], header: list[str], expected: Driver | None) -> None:
    assert nvidia_smi.driver(rows, header) == expected


def test_processes_are_found_by_gpu_with_their_accounts() -> None:
    rows = [
        "GPU-a, 5627, /usr/libexec/gnome-remote-desktop-daemon, 251",
        "GPU-a, 77, /opt/x/python, --a, b, [N/A]",
        "GPU-b, 5627, [Insufficient Permissions], 12",
        "No running processes found",
    ]
    found = nvidia_smi.processes(rows, nvidia_smi.users([" 5627 alice", "x y", "", "77"]))
    first, second = found["GPU-a"]
    assert (first.pid, first.name, first.memory, first.user) == (
        5627,
        "/usr/libexec/gnome-remote-desktop-daemon",
        251 * MIB,
        "alice",
    )
    assert (second.pid, second.name, second.memory, second.user) == (77, "/opt/x/python, --a, b", None, None)
    assert [(one.pid, one.name) for one in found["GPU-b"]] == [(5627, None)]
    assert set(found) == {"GPU-a", "GPU-b"}


@pytest.mark.parametrize(
    ("status", "output", "code"),
    [
        (0, FULL, None),
        (14, [*FULL, "WARNING: infoROM is corrupted at gpu 0000:00:1E.0"], None),
        (9, [NOT_LOADED], "nvidia-not-loaded"),
        (255, [NOT_LOADED], "nvidia-not-loaded"),
        (
            18,
            ["Failed to initialize NVML: Driver/library version mismatch", "NVML library version: 535.161"],
            "nvidia-mismatch",
        ),
        (18, [], "nvidia-mismatch"),
        (6, ["No devices were found"], "nvidia-no-devices"),
        (0, ["No devices were found"], "nvidia-no-devices"),
        (255, ["Failed to initialize NVML: No supported GPUs were found"], "nvidia-no-devices"),
        (255, ["Unable to determine the number of GPUs: Unknown Error"], "nvidia-no-devices"),
        (15, ["Unable to determine the device handle for GPU0000:CB:00.0: Unknown Error"], "gpu-lost"),
        (
            255,
            ["Unable to determine the device handle for GPU 0000:0A:00.0: GPU is lost. Reboot the system"],
            "gpu-lost",
        ),
        (4, ["Failed to initialize NVML: Insufficient Permissions"], "nvidia-permission"),
        (12, ["NVIDIA-SMI couldn't find libnvidia-ml.so library in your system."], "nvidia-library"),
        (124, [], "nvidia-smi-hangs"),
        (137, [], "nvidia-smi-hangs"),
        (None, [], "nvidia-smi-hangs"),
        (127, [], "no-gpu"),
        (3, [], "nvidia-smi-failed"),
        (255, ["\x1b[31mstrange"], "nvidia-smi-failed"),
    ],
)
def test_what_is_wrong(status: int | None, output: list[str], code: str | None) -> None:
    found = nvidia_smi.problem(status, output)
    assert (found.code if found is not None else None) == code
    if found is not None:
        assert found.severity == ("info" if code == "no-gpu" else "warning")
        assert found.text
        assert found.fix
        assert "\x1b" not in found.text


def test_a_loaded_driver_without_its_program() -> None:
    found = nvidia_smi.problem(127, [], driver_file=True)
    assert found is not None
    assert (found.code, found.severity) == ("nvidia-smi-missing", "warning")


def test_a_mig_row_that_hides_its_memory_is_no_failure() -> None:
    assert nvidia_smi.problem(0, ["0, GPU-1, A100, 550.54.15, 81920, [Insufficient Permissions]"]) is None


LIST = [
    "GPU 0: NVIDIA A100 80GB PCIe (UUID: GPU-9f0c6a1d-24e8)",
    "  MIG 3g.40gb     Device  0: (UUID: MIG-5a6e2c90-7f1b)",
    "  MIG 1g.10gb+me  Device  1: (UUID: MIG-b7d80f13-3c6a)",
    "GPU 1: NVIDIA, A100 (UUID: GPU-aaaa1111)",
    "GPU 2: NVIDIA T4 (UUID: GPU-bbbb2222)",
    "  MIG 1g.5gb      Device  0: (UUID: MIG-GPU-bbbb2222/1/0)",
]


def test_instances_stand_below_their_card() -> None:
    found = nvidia_smi.instances(LIST)
    assert {card: [(one.uuid, one.name) for one in parts] for card, parts in found.items()} == {
        "GPU-9f0c6a1d-24e8": [("MIG-5a6e2c90-7f1b", "3g.40gb"), ("MIG-b7d80f13-3c6a", "1g.10gb+me")],
        "GPU-bbbb2222": [("MIG-GPU-bbbb2222/1/0", "1g.5gb")],
    }
    assert nvidia_smi.instances([LIST[1], "", "x"]) == {}


def test_remarks_on_what_is_not_told() -> None:
    assert nvidia_smi.remarks(nvidia_smi.gpus(FULL), 0) == []
    assert nvidia_smi.remarks([], None) == []
    (split,) = nvidia_smi.gpus(["0, GPU-9f0c6a1d-24e8, A100, 535.1.1, 81920, [N/A], [N/A], 8.0, Enabled"])
    [found] = nvidia_smi.remarks([split], 0)
    assert (found.code, found.severity) == ("gpu-mig", "warning")
    [found] = nvidia_smi.remarks(
        [msgspec.structs.replace(split, instances=nvidia_smi.instances(LIST)[split.uuid or ""])], 0
    )
    assert (found.code, found.severity) == ("gpu-mig", "info")
    assert "MIG-5a6e2c90-7f1b (3g.40gb)" in found.fix
    silent = nvidia_smi.gpus(["1, GPU-1, GB10, 580.1.1, [N/A], [N/A], 3, 12.1, [N/A]"])
    [found] = nvidia_smi.remarks(silent, 0)
    assert (found.code, found.severity) == ("gpu-unknown", "info")
    assert "GPU 1" in found.text


@pytest.mark.parametrize(("status", "words"), [(None, "does not answer"), (124, "does not answer"), (3, "status 3")])
def test_the_processes_may_be_what_is_not_known(status: int | None, words: str) -> None:
    [found] = nvidia_smi.remarks(nvidia_smi.gpus(FULL), status)
    assert found.code == "gpu-processes-unknown"
    assert words in found.text


@given(st.lists(st.text(max_size=120), max_size=10), st.integers() | st.none(), st.booleans())
def test_any_text_is_read_without_a_crash(lines: list[str], status: int | None, minimal: bool) -> None:
    rows = [*lines, *(f"0, GPU-1, {line}" for line in lines), *(f"GPU-1, 5, {line}" for line in lines)]
    for gpu in nvidia_smi.gpus(rows, minimal=minimal):
        assert gpu.memory_used is None or gpu.memory_used >= 0
        assert gpu.name is None or "\n" not in gpu.name
    nvidia_smi.driver(rows, lines)
    nvidia_smi.instances([*lines, *LIST, *lines])
    nvidia_smi.processes(rows, nvidia_smi.users(lines))
    nvidia_smi.problem(status, lines)
