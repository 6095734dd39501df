"""Read the CSV output and the errors of nvidia-smi.

Formats: `nvidia-smi --help-query-gpu`; NVIDIA warns that they may change. A cell that is not a number ("[N/A]",
"[Not Supported]", "[Insufficient Permissions]") is an unknown value, never 0.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from jupyman.model import Driver, Gpu, GpuProcess, MigInstance, Problem, Severity
from jupyman.model.problem_codes import new_problem
from jupyman.tools.host.text import clean

MIB = 1024 * 1024
_NUMBER = re.compile(r"[0-9]{1,12}(?:\.[0-9]{1,9})?")
# "CUDA Version: 12.8" up to R595, "CUDA UMD Version: 13.3" from R610.
_CUDA = re.compile(r"CUDA(?:\s+UMD)?\s+Version:\s*([0-9]{1,3}\.[0-9]{1,3})")
_DRIVER = re.compile(r"(?:Driver|KMD) Version:\s*([0-9]{1,6}(?:\.[0-9]{1,6}){1,3})")
# Lines of `nvidia-smi -L`; those of instances follow their card's.
_CARD = re.compile(r"GPU [0-9]{1,4}: .*\(UUID: (GPU-[0-9A-Za-z-]{4,80})\)\s*")
_INSTANCE = re.compile(r"\s+MIG ([0-9A-Za-z.+]{1,30})\s+Device\s+[0-9]{1,3}: \(UUID: (MIG-[0-9A-Za-z/-]{4,80})\)\s*")
_VERSION = re.compile(r"[0-9]{3,4}(?:\.[0-9]{1,6}){1,3}")


def gpus(rows: Sequence[str], *, minimal: bool = False) -> list[Gpu]:
    """Read rows of the GPU query.

    Args:
        rows: ``index, uuid, name, driver, total, used[, utilization, compute_cap, mig]``; MiB and percent.
        minimal: only the first six were requested.

    Returns:
        The GPUs by index; rows of another form (errors about a lost card) are skipped.
    """
    found: dict[int, Gpu] = {}
    tail = 3 if minimal else 6
    for row in rows:
        cells = [cell.strip() for cell in row.split(",")]
        if len(cells) < 3 + tail or not re.fullmatch(r"[0-9]{1,4}", cells[0]) or not cells[1].startswith("GPU-"):
            continue
        # A name may hold a comma; the number of fields around it is fixed.
        rest = cells[-tail:]
        found.setdefault(
            int(cells[0]),
            Gpu(
                index=int(cells[0]),
                uuid=clean(cells[1], 80),
                name=_text(", ".join(cells[2:-tail]), 80),
                memory_total=_mib(rest[1]),
                memory_used=_mib(rest[2]),
                utilization=None if minimal else _integer(rest[3]),
                compute_cap=None if minimal else _text(rest[4], 20),
                mig=None if minimal else {"Enabled": True, "Disabled": False}.get(rest[5]),
            ),
        )
    return [found[index] for index in sorted(found)]


def instances(lines: Sequence[str]) -> dict[str, list[MigInstance]]:
    """Read ``nvidia-smi -L``: the instances of each card in MIG mode, by its uuid."""
    found: dict[str, list[MigInstance]] = {}
    card: str | None = None
    for line in lines:
        head, instance = _CARD.fullmatch(line), _INSTANCE.fullmatch(line)
        if head is not None:
            card = head[1]
        elif instance is not None and card is not None:
            found.setdefault(card, []).append(MigInstance(uuid=instance[2], name=instance[1]))
    return found


def driver(rows: Sequence[str], header: Sequence[str]) -> Driver | None:
    """Return the driver's version and the newest CUDA that it runs.

    Args:
        rows: of the GPU query, full or minimal.
        header: the first lines of a plain ``nvidia-smi``.

    Returns:
        What is known; None when both are unknown.
    """
    text = "\n".join(header)
    cuda = _CUDA.search(text)
    cells = (cell.strip() for row in rows for cell in row.split(",")[3:])
    version = next((cell for cell in cells if _VERSION.fullmatch(cell)), None)
    shown = _DRIVER.search(text)
    if version is None and shown is not None:
        version = shown[1]
    if version is None and cuda is None:
        return None
    return Driver(version=version, cuda=cuda[1] if cuda is not None else None)


def users(lines: Sequence[str]) -> dict[int, str]:
    """Read ``ps -o pid= -o user=``: account by pid."""
    cells = (line.split(None, 1) for line in lines)
    return {int(pair[0]): clean(pair[1].strip(), 60) for pair in cells if len(pair) == 2 and _pid(pair[0])}


def processes(rows: Sequence[str], accounts: Mapping[int, str]) -> dict[str, list[GpuProcess]]:
    """Read rows of the process query, by GPU uuid.

    Args:
        rows: ``uuid, pid, name, MiB``. The process chooses its name, which may hold commas. A process on two GPUs has
            two rows.
        accounts: by pid.
    """
    found: dict[str, list[GpuProcess]] = {}
    for row in rows:
        head = row.split(",", 2)
        # strip() removes more than int() does: separators such as \x1d.
        number = head[1].strip() if len(head) == 3 else ""
        if not _pid(number):
            continue
        name, _, memory = head[2].rpartition(",")
        pid = int(number)
        found.setdefault(head[0].strip(), []).append(
            GpuProcess(pid=pid, name=_text(name.strip(), 120), memory=_mib(memory.strip()), user=accounts.get(pid))
        )
    return found


@dataclass(frozen=True)
class _Failure:
    """A failure of nvidia-smi: the exit statuses or words that identify it, and its problem."""

    statuses: frozenset[int]
    words: str
    code: str
    text: str
    fix: str


# Statuses: nvidia-smi(1), "RETURN VALUE"; 18 is not listed there but occurs; 124 and 137: it was ended by us. The order
# matters, because an error about a lost card may precede the rows of the others.
_FAILURES = (
    _Failure(
        frozenset({124, 137}),
        r"(?!)",
        "nvidia-smi-hangs",
        "nvidia-smi does not answer: the driver is stuck",
        "ask the admin to reset the GPUs or to reboot; programs that use a GPU will hang too",
    ),
    _Failure(
        frozenset({18}),
        r"Driver/library version mismatch",
        "nvidia-mismatch",
        "the NVIDIA driver was upgraded while the old one is loaded (driver/library version mismatch)",
        "ask the admin to reload the driver or to reboot; until then new CUDA programs fail, running ones may go on",
    ),
    _Failure(
        frozenset({9}),
        r"couldn't communicate with the NVIDIA driver",
        "nvidia-not-loaded",
        "the NVIDIA driver is installed but not loaded",
        "ask the admin: a kernel update needs a reboot or a rebuilt module, Secure Boot a signed one",
    ),
    _Failure(
        frozenset({6}),
        r"No devices were found|No supported GPUs were found|Unable to determine the number of GPUs",
        "nvidia-no-devices",
        "the NVIDIA driver runs but finds no GPU",
        "ask the admin to look at the cards (dmesg | grep NVRM)",
    ),
    _Failure(
        frozenset({15}),
        r"Unable to determine the device handle|GPU is lost|fallen off the bus",
        "gpu-lost",
        "a GPU has fallen off the bus",
        "ask the admin: it needs a reset or a reboot; leave it out with --gpu",
    ),
    _Failure(
        frozenset({4}),
        r"Insufficient Permissions\s*$",
        "nvidia-permission",
        "your account has no permission to use the GPUs",
        "ask the admin for access to /dev/nvidia* (often the group video or render)",
    ),
    _Failure(
        frozenset({12, 13}),
        r"NVML library|couldn't find libnvidia-ml",
        "nvidia-library",
        "nvidia-smi does not find the driver's library (NVML)",
        "ask the admin to reinstall the driver; in a container it must be started with the GPUs",
    ),
)


def problem(status: int | None, output: Sequence[str], *, driver_file: bool = False) -> Problem | None:
    """Return the problem of GPUs that nvidia-smi cannot report on.

    Args:
        status: exit status of the query; 124: it did not answer in time; 127: there is no nvidia-smi; None is like 124.
        output: its stdout, which also has its errors.
        driver_file: /proc/driver/nvidia exists although the program does not.

    Returns:
        None when there is none. A host without a GPU is an `info`.
    """
    text = " ".join(line.strip() for line in output)
    status = 124 if status is None else status

    if status == 127:
        if driver_file:
            words = "an NVIDIA driver is loaded but nvidia-smi is not on PATH"
            return new_problem("nvidia-smi-missing", words, "ask the admin for the driver's utilities, or extend PATH")
        fix = "nothing, if it has no GPU; on a Slurm login node the GPUs are on the compute nodes"
        return new_problem("no-gpu", "there is no NVIDIA driver on this host", fix)
    for failure in _FAILURES:
        if re.search(failure.words, text) or status in failure.statuses:
            return new_problem(failure.code, failure.text, failure.fix)
    if status in {0, 14}:  # 14: the infoROM is corrupted, the output is still valid
        return None
    words = f"nvidia-smi failed (status {status}): {clean(text, 120) or 'no output'}"
    return new_problem("nvidia-smi-failed", words, "ask the admin to look at the driver")


def remarks(gpus: Sequence[Gpu], apps_status: int | None) -> list[Problem]:
    """Report values that a working driver does not reveal, and what a card in MIG mode means.

    Args:
        gpus: of the host.
        apps_status: exit status of the process query; None: it did not answer.
    """
    found: list[Problem] = []

    def say(code: str, text: str, fix: str, severity: Severity | None = None) -> None:
        found.append(new_problem(code, text, fix, severity))

    split = [gpu for gpu in gpus if gpu.mig]
    if split:
        there = [f"{one.uuid} ({one.name})" for gpu in split for one in gpu.instances]
        if there:
            fix = f"name one with --gpu MIG-…: {', '.join(there[:8])}"
            say("gpu-mig", f"{_numbers(split)}: in MIG mode, a program sees one of its instances only", fix)
        else:
            text = f"{_numbers(split)}: in MIG mode, without instances that your account sees: no program can use it"
            say(
                "gpu-mig",
                text,
                "ask the admin to create instances (nvidia-smi mig -cgi), or use another GPU",
                "warning",
            )
    silent = [gpu for gpu in gpus if not gpu.mig and (gpu.memory_total is None or gpu.memory_used is None)]
    if silent:
        text = f"nvidia-smi does not report how much memory of {_numbers(silent)} is free ([N/A])"
        say("gpu-unknown", text, "choose it by index with --gpu; for auto and free: such a GPU counts as full")
    if gpus and apps_status != 0:
        what = "does not answer" if apps_status in {None, 124, 137} else f"fails (status {apps_status})"
        text = f"the processes on the GPUs are unknown: that query of nvidia-smi {what}"
        say(
            "gpu-processes-unknown",
            text,
            "ask the admin to look at the driver; until then see memory and utilization",
            "warning",
        )
    return found


def _numbers(gpus: Sequence[Gpu]) -> str:
    return f"GPU {', '.join(str(gpu.index) for gpu in gpus)}"


def _pid(text: str) -> bool:
    return re.fullmatch(r"[0-9]{1,9}", text) is not None


def _integer(cell: str) -> int | None:
    return round(float(cell)) if _NUMBER.fullmatch(cell) else None


def _mib(cell: str) -> int | None:
    number = _integer(cell)
    return number * MIB if number is not None else None


def _text(cell: str, limit: int) -> str | None:
    # Unknown values are in brackets: N/A, Not Supported, Insufficient Permissions.
    return clean(cell, limit) if cell and not re.fullmatch(r"\[.*\]", cell) else None
