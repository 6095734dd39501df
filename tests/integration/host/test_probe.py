"""The probe against this machine: a real account, real programs, and fakes on PATH that misbehave."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from jupyman.core.verbs import check
from jupyman.host.report import probe
from jupyman.host.servers.nohup import NohupLauncher
from tests.integration.host.environment_tree import Look, Tree, codes, inside
from tests.local_shell import PATH, LocalShell, bare_path

pytestmark = pytest.mark.skipif(os.getuid() != 0, reason="makes accounts: needs root")


# --- the host -----------------------------------------------------------------------------------------------------


def test_account_and_machine(tree: Tree, look: Look) -> None:
    seen = look(depth="full")
    assert (seen.host, seen.user, seen.uid, seen.home) == ("here", tree.account.name, tree.account.uid, str(tree.home))
    assert seen.shell == "/bin/sh"
    assert seen.node == os.uname().nodename
    assert seen.boot_id == Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    assert f'"{seen.os}"' in Path("/etc/os-release").read_text()
    assert seen.disk is not None
    usage = shutil.disk_usage(tree.home)
    assert seen.disk.total == usage.total
    assert seen.disk.free is not None
    assert abs(seen.disk.free - usage.free) < 2**30
    assert seen.disk.filesystem is not None
    assert not codes(seen) & {"home-read-only", "disk-hangs", "environments-hang", "server-as-root"}


def test_nothing_is_changed_on_the_host(tree: Tree, look: Look) -> None:
    tree.root("miniconda3")
    tree.own()
    before = {path: path.lstat().st_mtime_ns for path in tree.home.rglob("*")}
    look(depth="full")
    assert {path: path.lstat().st_mtime_ns for path in tree.home.rglob("*")} == before


def test_a_root_account_and_a_closed_home_are_problems(tree: Tree) -> None:
    assert "server-as-root" in codes(probe.probe(LocalShell(tree.home), "here", depth="launch"))
    tree.home.chmod(0o555)
    os.chown(tree.home, 0, 0)
    shell = LocalShell(tree.home, tree.account.name)
    assert "home-read-only" in codes(probe.probe(shell, "here", depth="launch"))
    lost = LocalShell(Path("/nonexistent"), tree.account.name)
    assert "home-read-only" in codes(probe.probe(lost, "here", depth="launch"))


# --- programs that misbehave --------------------------------------------------------------------------------------

SMI = """#!/bin/sh
case $1 in
    --query-gpu=*compute_cap*) {full} ;;
    --query-gpu=*) echo '0, GPU-1, Tesla K80, 418.67, 11441, 5' ;;
    --query-compute-apps=*) echo "GPU-1, {pid}, /opt/a,b/python, 300" ;;
    *) echo '| NVIDIA-SMI 550.54.15   Driver Version: 550.54.15   CUDA Version: 12.4 |' ;;
esac
"""
FULL = "echo '0, GPU-1, NVIDIA A100, 550.54.15, 81920, 1024, 7, 8.0, Disabled'"


def smi(tree: Tree, text: str) -> dict[str, str]:
    tree.program("smi/nvidia-smi", text)
    return {"PATH": f"{tree.home}/smi:{PATH}"}


def test_gpus_with_their_processes_and_verdicts(tree: Tree, look: Look) -> None:
    tree.conda("miniconda3/envs/new")
    tree.package("miniconda3/envs/new", "torch", "2.11.0+cu130")
    report = look(env=smi(tree, SMI.format(full=FULL, pid=os.getpid())))
    (gpu,) = report.gpus
    assert (gpu.uuid, gpu.memory_used, gpu.utilization, gpu.compute_cap) == ("GPU-1", 2**30, 7, "8.0")
    assert [(one.pid, one.user, one.name) for one in gpu.processes] == [(os.getpid(), "root", "/opt/a,b/python")]
    assert report.driver is not None
    assert (report.driver.version, report.driver.cuda) == ("550.54.15", "12.4")
    (verdict,) = [one for one in report.verdicts if one.env.startswith(str(tree.home))]
    assert verdict.ok is False
    assert "cu124" in verdict.text
    prefix = tree.home / "miniconda3/envs/new"
    install = (
        f"{prefix}/bin/python -m pip install torch==2.11.0+cu128 --index-url https://download.pytorch.org/whl/cu128"
    )
    assert verdict.fix == f"run on the host: {install}"
    assert verdict.fix in [problem.fix for problem in report.problems]
    assert "torch-driver" in codes(report)


def test_the_account_of_a_gpu_process_is_not_cut(tree: Tree, look: Look) -> None:
    shell = LocalShell(tree.home, tree.account.name)
    with subprocess.Popen(shell.command("/bin/sleep", "60")) as process:
        try:
            report = look(env=smi(tree, SMI.format(full=FULL, pid=process.pid)))
        finally:
            process.kill()
    assert [one.user for one in report.gpus[0].processes] == [tree.account.name]


def test_an_old_driver_gets_the_small_query(tree: Tree, look: Look) -> None:
    complaint = "echo 'Field \"compute_cap\" is not a valid field to query.'; exit 2"
    (gpu,) = look(env=smi(tree, SMI.format(full=complaint, pid=1))).gpus
    assert (gpu.name, gpu.memory_used, gpu.utilization) == ("Tesla K80", 5 * 2**20, None)


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ("echo 'Failed to initialize NVML: Driver/library version mismatch'; exit 18", "nvidia-mismatch"),
        (
            'echo "NVIDIA-SMI has failed because it couldn\'t communicate with the NVIDIA driver."; exit 9',
            "nvidia-not-loaded",
        ),
        ("echo 'No devices were found'; exit 6", "nvidia-no-devices"),
        ("exec sleep 600", "nvidia-smi-hangs"),
        ("trap '' TERM; while :; do sleep 1; done", "nvidia-smi-hangs"),
    ],
)
def test_a_broken_driver_is_named_and_costs_a_bounded_time(tree: Tree, look: Look, body: str, code: str) -> None:
    tree.root("miniconda3")
    began = time.monotonic()
    report = look(env=smi(tree, f"#!/bin/sh\n{body}\n"))
    assert time.monotonic() - began < 12
    assert code in codes(report)
    assert (report.gpus, report.driver) == ([], None)
    assert "miniconda3" in inside(tree, report)


def test_without_nvidia_smi_it_is_an_info(tree: Tree, look: Look) -> None:
    report = look(env={"PATH": bare_path(tree.home / "bin", "nvidia-smi")})
    found = {problem.code: problem.severity for problem in report.problems}
    if not Path("/proc/driver/nvidia/version").exists():
        assert found["no-gpu"] == "info"
    assert report.gpus == []


def test_a_host_without_timeout(tree: Tree, look: Look) -> None:
    folder = bare_path(tree.home / "bin", "timeout", "nvidia-smi")
    tree.program("bin/nvidia-smi", "#!/bin/sh\nexec sleep 600\n")
    report = look(env={"PATH": folder})
    assert "nvidia-smi-hangs" in codes(report)
    assert report.disk is not None
    assert report.disk.total


def test_what_can_not_even_be_killed_is_left_behind(tree: Tree, look: Look) -> None:
    # As timeout(1) does where its child is stuck in the kernel: it waits for ever.
    folder = bare_path(tree.home / "bin", "timeout", "nvidia-smi")
    tree.program("bin/timeout", "#!/bin/sh\nexec sleep 600\n")
    tree.program("bin/nvidia-smi")
    tree.root("miniconda3")
    began = time.monotonic()
    report = look(env={"PATH": folder})
    assert time.monotonic() - began < 15
    assert {"nvidia-smi-hangs", "disk-hangs"} <= codes(report)
    assert report.disk is not None
    assert report.disk.total is None
    assert report.user == tree.account.name


def test_check_stops_waiting_for_what_hangs_and_reports_it(tree: Tree) -> None:
    # The look for orphans begins with this very question.
    grep = shutil.which("grep", path=PATH)
    tree.program("bin/grep", f'#!/bin/sh\ncase $* in "-lF kernel- "*) exec sleep 600 ;; esac\nexec {grep} "$@"\n')
    tree.root("miniconda3")
    tree.own()
    shell = LocalShell(tree.home, tree.account.name, {"PATH": f"{tree.home}/bin:{PATH}"})
    began = time.monotonic()
    report = check.look(shell, "here", NohupLauncher(shell))  # type: ignore[arg-type]  # no GPU here: no server is asked for its notebooks
    assert time.monotonic() - began < 20
    assert [one.text for one in report.problems if one.code == "look-unfinished"] == [
        "looking for orphaned kernels took too long"
    ]
    assert "miniconda3" in inside(tree, report)


def test_toolkits_and_slurm(tree: Tree, look: Look) -> None:
    tree.program("cuda/bin/nvcc", "#!/bin/sh\necho 'Cuda compilation tools, release 12.1, V12.1.105'\n")
    tree.program("slurm/sbatch")
    tree.program("slurm/sinfo", "#!/bin/sh\necho slurm 23.02.6\n")
    env = {"PATH": f"{tree.home}/cuda/bin:{tree.home}/slurm:{PATH}"}
    report = look(env=env, depth="full")
    assert ("12.1.105", f"{tree.home}/cuda") in [(one.version, one.path) for one in report.cuda_toolkits]
    assert report.slurm == "slurm 23.02.6"
    assert look(env=env).cuda_toolkits == []


def test_toolkits_and_cudnn_in_environments(tree: Tree, look: Look) -> None:
    tree.conda("miniconda3/envs/dev")
    for record in ("cuda-toolkit-12.4.1-0", "cuda-nvcc-12.4.131-0", "cudnn-9.1.0.70-h1_0"):
        tree.file(f"miniconda3/envs/dev/conda-meta/{record}.json")
    tree.conda("miniconda3/envs/old")
    tree.file("miniconda3/envs/old/conda-meta/cudatoolkit-11.8.0-h4ba93d1_13.json")
    tree.conda("miniconda3/envs/wheels")
    tree.package("miniconda3/envs/wheels", "nvidia_cudnn_cu12", "9.1.0.70")
    for name in ("torch", "torchvision"):
        tree.package("miniconda3/envs/wheels", name, "2.5.1+cu124")
    tree.conda("miniconda3/envs/conda-torch")
    tree.file("miniconda3/envs/conda-torch/conda-meta/pytorch-2.5.1-py3.12_cuda12.4_cudnn9.1.0_0.json")
    report = look(depth="full")
    there = f"{tree.home}/miniconda3/envs"
    assert [(one.version, one.path) for one in report.cuda_toolkits if one.path.startswith(there)] == [
        ("12.4.1", f"{there}/dev"),
        ("11.8.0", f"{there}/old"),
    ]
    found = {path.rpartition("/")[2]: one for path, one in inside(tree, report).items()}
    assert {name: one.cudnn for name, one in found.items()} == {
        "dev": "9.1.0.70",
        "old": None,
        "wheels": "9.1.0.70",
        "conda-torch": None,
    }
    assert (found["wheels"].torch_by, found["wheels"].torch_with) == ("pip", ["torchvision"])
    assert (found["conda-torch"].torch_by, found["conda-torch"].torch_with) == ("conda", [])


def test_every_toolkit_below_usr_local_and_the_headers_of_cudnn(tree: Tree) -> None:
    # In a mount namespace of its own, so that this machine's /usr/local is not touched.
    local = tree.home / "local"
    tree.file("local/cuda-11.8/version.json", '{"cuda" : {"name" : "CUDA SDK", "version" : "11.8.20220929"}}\n')
    tree.file("local/cuda-10.2/version.txt", "CUDA Version 10.2.89\n")
    nvcc = "#!/bin/sh\necho 'Cuda compilation tools, release 12.4, V12.4.131'\n"
    tree.program("local/cuda_dev/bin/nvcc", nvcc)
    tree.program("local/bin/nvcc", nvcc)
    (local / "cuda").symlink_to("cuda-11.8")
    header = "cuda-11.8/targets/x86_64-linux/include"
    tree.file(
        f"local/{header}/cudnn_version.h", "#define CUDNN_MAJOR 8\n#define CUDNN_MINOR 9\n#define CUDNN_PATCHLEVEL 7\n"
    )
    mounted = ("unshare", "--mount", "sh", "-c", 'mount --bind "$0" /usr/local && exec sh -s', str(local))
    report = probe.probe(LocalShell(tree.home, shell=mounted), "here", depth="full")
    assert [(one.version, one.path, one.on_path) for one in report.cuda_toolkits] == [
        ("10.2.89", "/usr/local/cuda-10.2", False),
        ("11.8.20220929", "/usr/local/cuda-11.8", False),
        ("12.4.131", "/usr/local/cuda_dev", True),
    ]
    assert report.cudnn == "8.9.7"
    (local / header / "cudnn_version.h").unlink()
    tree.file(
        "local/cuda-10.2/include/cudnn.h", "#define CUDNN_MAJOR 7\n#define CUDNN_MINOR 6\n#define CUDNN_PATCHLEVEL 5\n"
    )
    assert probe.probe(LocalShell(tree.home, shell=mounted), "here", depth="full").cudnn == "7.6.5"


def test_only_the_question_for_processes_hangs(tree: Tree, look: Look) -> None:
    text = SMI.format(full=FULL, pid=1).replace('echo "GPU-1, 1,', 'exec sleep 600; echo "')
    began = time.monotonic()
    report = look(env=smi(tree, text))
    assert time.monotonic() - began < 12
    assert "gpu-processes-unknown" in codes(report)
    assert [gpu.name for gpu in report.gpus] == ["NVIDIA A100"]
    assert report.driver is not None


def test_values_that_a_gpu_does_not_report_are_marked(tree: Tree, look: Look) -> None:
    full = "echo '0, GPU-1, NVIDIA GB10, 580.95.05, [N/A], [N/A], 7, 12.1, [N/A]'"
    report = look(env=smi(tree, SMI.format(full=full, pid=1)))
    assert "gpu-unknown" in codes(report)
    assert (report.gpus[0].memory_total, report.gpus[0].utilization) == (None, 7)


def test_quota(tree: Tree, look: Look) -> None:
    tree.program(
        "q/quota",
        "#!/bin/sh\necho 'Disk quotas for user alice (uid 1001):'\n"
        "echo '     Filesystem  blocks   quota   limit   grace   files   quota   limit   grace'\n"
        "echo 'nas:/home/alice 980000* 1000000 1100000       -       5       0       0'\n",
    )
    report = look(env={"PATH": f"{tree.home}/q:{PATH}"}, depth="full")
    assert report.disk is not None
    assert report.disk.quota == 1000000 * 1024
    assert "quota-full" in codes(report)
