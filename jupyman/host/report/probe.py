"""The probe: one read-only report on a host."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from typing import Literal, Protocol

import msgspec

from jupyman import errors
from jupyman.host.gpus import report as gpu_facts
from jupyman.host.shell import script
from jupyman.host.shell.script import Facts, Shell
from jupyman.model import Disk, Driver, Environment, Gpu, HostReport, Problem, Severity, Toolkit, Verdict
from jupyman.model.problem_codes import new_problem
from jupyman.tools.envs import discovery
from jupyman.tools.gpu import nvidia_smi, torch_cuda
from jupyman.tools.host import logind
from jupyman.tools.host.text import clean
from jupyman.tools.install import torch_fix

TIMEOUT = 30.0
GPU_TIMEOUT = {"launch": 3, "full": 5}  # seconds; without persistence mode nvidia-smi takes one or two
# More than any host has. Each environment is compared with each GPU: a hostile host could keep us busy for hours.
MOST_ENVIRONMENTS = 2000
LOW_SPACE = 500 * 1024 * 1024  # bytes; a checkpoint of a notebook with plots needs some
# Names that `stat -f` prints for file systems shared by several machines: their locks are slow or missing.
_SHARED = frozenset({"nfs", "nfs4", "lustre", "gpfs", "beegfs", "fhgfs", "cifs", "smb", "smb2", "afs", "ceph", "panfs"})
_TORCH_FIX = "ask the admin for a newer NVIDIA driver: no build of torch fits this one and the GPUs"


def probe(
    shell: Shell,
    host: str,
    *,
    depth: Literal["launch", "full"],
    directory: str | None = None,
    timeout: float = TIMEOUT,
    extra: Sequence[str] = (),
) -> HostReport:
    """Report on a host.

    Args:
        shell: the host.
        host: its name, for the report.
        depth: "launch" leaves out what `up` does not need: toolkits, cuDNN, quota.
        directory: the wanted root directory; its own ``.venv`` counts as an environment, unless it is another user's.
        timeout: seconds; the script itself ends after 8 ("launch") or 10 even when a part of it hangs.
        extra: further prefixes named by the user, absolute or from ``~``.

    Returns:
        The report; what could not be seen is None or a problem.

    Raises:
        LinkLost, RemoteFailed: as `script.run`.
    """
    return read(script.run(shell, "report/probe", arguments(depth, directory, extra), timeout=timeout), host)


def arguments(
    depth: Literal["launch", "full"], directory: str | None = None, extra: Sequence[str] = ()
) -> dict[str, str]:
    """Return the script's variables; see `probe`."""
    return {
        "DEPTH": depth,
        "DIR": directory or "",
        "GPU_TIMEOUT": str(GPU_TIMEOUT[depth]),
        "EXTRA": "\n".join(prefix for prefix in extra if "\n" not in prefix),
    }


def read(facts: Facts, host: str) -> HostReport:
    """Make a report from the script's facts. Pure; tests use recorded ones."""
    gpus = gpu_facts.read(facts)
    rows, header = facts.all("gpu.row")[: gpu_facts.MOST_GPUS], facts.all("gpu.header")
    driver = nvidia_smi.driver(rows if gpus else [], header if facts.number("gpu.header_status") in {0, 14, 15} else [])
    environments = _environments(facts)
    verdicts = _verdicts(environments, driver, gpus)
    trouble = nvidia_smi.problem(
        facts.number("gpu.status"), [*rows, *header], driver_file=facts.one("gpu.driver_file") is not None
    )
    disk = _disk(facts)
    user = clean(facts.one("user") or "", 60)
    manager, account = facts.all("logind.manager"), facts.all("logind.account")
    survival = logind.survival(user, manager, account, bus=facts.one("logind.bus") is not None)
    problems = _problems(facts, disk, environments, verdicts)
    if survival == "logout":
        problems.append(logind.ends_at_logout(user))
    return HostReport(
        host=host,
        os=_clean(facts.one("os")),
        user=user,
        shell=_clean(facts.one("shell")),
        gpus=gpus,
        driver=driver,
        cuda_toolkits=_toolkits(facts),
        cudnn=_clean(facts.one("cudnn")),
        environments=environments,
        disk=disk,
        slurm=_clean(facts.one("slurm")),
        verdicts=verdicts,
        problems=[
            *([trouble] if trouble is not None else []),
            *nvidia_smi.remarks(gpus, facts.number("gpu.apps_status")),
            *problems,
        ],
        survival=survival,
        home=facts.one("home"),
        node=_clean(facts.one("node")),
        uid=facts.number("uid"),
        boot_id=facts.one("boot_id"),
    )


def _environments(facts: Facts) -> list[Environment]:
    """Read the environments in order of preference: on PATH with Jupyter, base, others with Jupyter, the rest."""
    on_path: dict[str, int] = {}
    for place, program in enumerate(facts.all("on_path")):
        on_path.setdefault(program, place)
    home = facts.one("home")
    found: list[tuple[tuple[object, ...], Environment]] = []
    for record in itertools.islice(facts.records("env", "prefix"), MOST_ENVIRONMENTS):
        one = discovery.read(record.one, record.all, home)
        if one is None:
            continue
        able = bool(one.apps)
        real = record.one("real") or one.prefix
        path = on_path.get(real, len(on_path)) if able else len(on_path)
        if one.lodger and path < len(on_path):  # it is on the user's own PATH
            one = msgspec.structs.replace(one, lodger=False)
        order = (not able, path, one.name != "base", "lab" not in one.apps, one.kind == "system", one.name, one.prefix)
        found.append((order, one))
    return [one for _, one in sorted(found, key=lambda pair: pair[0])]


def _verdicts(environments: Sequence[Environment], driver: Driver | None, gpus: Sequence[Gpu]) -> list[Verdict]:
    """Judge the torch of each environment that has one, with the command that replaces one that does not fit."""
    found = []
    for one in environments:
        verdict = torch_cuda.verdict(one, driver, gpus)
        if verdict is not None and verdict.ok is False:
            fix = torch_fix.command(one, driver, gpus)
            verdict = msgspec.structs.replace(verdict, fix=f"run on the host: {fix}" if fix is not None else _TORCH_FIX)
        if verdict is not None:
            found.append(verdict)
    return found


def _toolkits(facts: Facts) -> list[Toolkit]:
    """List the toolkits of the host, then those in conda environments."""
    on_path = facts.one("nvcc")
    found = []
    for line in facts.all("toolkit"):
        version, _, path = line.partition(" ")
        found.append(Toolkit(version=clean(version, 40), path=clean(path), on_path=version == on_path))
    for record in facts.records("env", "prefix"):
        prefix, toolkit = clean(record.one("prefix") or ""), discovery.toolkit(record.all("toolkit"))
        if toolkit is not None:
            found.append(Toolkit(version=toolkit, path=prefix))
    return found


def _disk(facts: Facts) -> Disk | None:
    home = facts.one("home")
    if home is None:
        return None
    total = free = None
    # POSIX df -Pk: device, blocks of 1024, used, available, capacity, mount point; the device may hold spaces.
    found = re.search(r"\s([0-9]{1,18})\s+([0-9]{1,18})\s+([0-9]{1,18})\s+[0-9]{1,3}%", facts.one("disk") or "")
    if found is not None:
        total, free = int(found[1]) * 1024, int(found[3]) * 1024
    quota = _quota(facts)
    return Disk(
        path=clean(home),
        total=total,
        free=free,
        quota=quota[1] if quota is not None else None,
        quota_used=quota[0] if quota is not None else None,
        filesystem=_clean(facts.one("filesystem")),
    )


def _quota(facts: Facts) -> tuple[int, int] | None:
    """Return use and limit, bytes, of the fullest file system in `quota -w`: filesystem, blocks, quota, limit."""
    rows = []
    for line in facts.all("quota"):
        cells = line.split()
        if len(cells) >= 4 and all(re.fullmatch(r"[0-9]{1,18}\*?", cell) for cell in cells[1:4]):
            used, soft, hard = (int(cell.rstrip("*")) * 1024 for cell in cells[1:4])
            if soft or hard:
                rows.append((used, soft or hard))
    return max(rows, key=lambda row: row[0] / row[1], default=None)


def _problems(
    facts: Facts, disk: Disk | None, environments: Sequence[Environment], verdicts: Sequence[Verdict]
) -> list[Problem]:
    found: list[Problem] = []

    def say(code: str, text: str, fix: str, severity: Severity | None = None) -> None:
        found.append(new_problem(code, text, fix, severity))

    parts = set(facts.all("part"))
    home = clean(facts.one("home") or "?")
    if facts.one("home_writable") == "no":
        say("home-read-only", f"the home directory {home} is missing or not writable", "ask the admin", "error")
    if disk is not None and disk.free is not None and disk.free < LOW_SPACE:
        say("disk-full", f"only {disk.free // (1024 * 1024)} MiB are free in {home}", "delete something there")
    quota = _quota(facts)
    if quota is not None and quota[0] > 0.95 * quota[1]:
        say("quota-full", f"{100 * quota[0] // quota[1]} % of your quota is used", "delete something in your home")
    if "disk" not in parts or disk is None or disk.total is None:
        say("disk-hangs", f"the file system of {home} does not answer", "ask the admin: it may be a dead network mount")
    if disk is not None and disk.filesystem in _SHARED:
        text = f"the home is on {disk.filesystem}, shared by several machines"
        say("network-home", text, "nothing: what jupyman keeps there is kept per machine", "info")
    if "environments" not in parts:
        text = "looking for environments took too long: the list is not complete"
        say("environments-hang", text, "a network mount may be slow or dead: try again, or ask the admin")
    if facts.number("uid") == 0:
        text = "you are logged in as root: a mistake in a notebook can damage the host"
        say("server-as-root", text, "log in with an ordinary account")
    if not any(one.apps for one in environments):
        say("no-jupyter", "no environment can run Jupyter", errors.JupyterMissing.default_hint)
    _say_environments(facts, say)
    names = {one.prefix: one.name for one in environments}
    for verdict in verdicts:
        if verdict.ok is False:
            say("torch-driver", f"{names.get(verdict.env, verdict.env)}: {verdict.text}", verdict.fix or _TORCH_FIX)
    return found


class _Say(Protocol):
    def __call__(self, code: str, text: str, fix: str, severity: Severity | None = None) -> None:
        """Add a problem."""


def _say_environments(facts: Facts, say: _Say) -> None:
    """Report environments that could not be read, or whose Python is gone."""
    closed = [*facts.all("closed")]
    for record in facts.records("env", "prefix"):
        prefix = clean(record.one("prefix") or "")
        if record.one("unreadable") is not None:
            closed.append(prefix)
        if record.one("executable") is None and record.all("app"):
            text = f"the Python of {prefix} is gone: nothing in it can run"
            say("env-broken", text, "make that environment again, or delete it", "info")
    if closed:
        more = f" and {len(closed) - 3} more" if len(closed) > 3 else ""
        text = f"not readable for your account: {', '.join(clean(one, 100) for one in sorted(set(closed))[:3])}{more}"
        say("env-unreadable", text, "ask their owner for read access (chmod -R a+rX) if you want to use them", "info")


def _clean(text: str | None) -> str | None:
    return clean(text) if text else None
