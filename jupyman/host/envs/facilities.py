"""What a host has to make environments with, and the room for them."""

from __future__ import annotations

import re

from jupyman.host.shell import jobs as env_jobs
from jupyman.host.shell import script
from jupyman.host.shell.script import Shell
from jupyman.model import HostReport
from jupyman.tools.install.request import KINDS, HostInstallers, Python, Tool

MIB = 1024 * 1024


def look(shell: Shell, report: HostReport) -> HostInstallers:
    """Look for installers and Pythons."""
    roots = list(dict.fromkeys(one.root for one in report.environments if one.root is not None))
    facts = script.run(
        shell, "envs/look", {"SERVER": env_jobs.libraries()["SERVER"], "ROOTS": "\n".join(roots)}, timeout=60.0
    )
    tools = []
    for record in facts.records("tool", "kind"):
        kind, path = next((one for one in KINDS if one == record.one("kind")), None), record.one("path")
        if kind is not None and path is not None:
            tools.append(Tool(kind=kind, path=path, root=record.one("root"), writable=record.one("writable") == "yes"))
    pythons = []
    for record in facts.records("python", "path"):
        path, version = record.one("path"), record.one("version") or ""
        if path is not None and re.fullmatch(r"[0-9]+\.[0-9]+\.[0-9]+", version):
            pythons.append(Python(path=path, version=version, venv=record.one("venv") == "yes"))
    return HostInstallers(
        home=facts.one("home") or report.home or "",
        jobs=facts.one("jobs") or "",
        tools=tools,
        pythons=pythons,
        driver=report.driver,
        gpus=report.gpus,
    )


def place(shell: Shell, prefix: str, name: str) -> script.Facts:
    """Look at the place where an environment shall lie, and at what an earlier try left."""
    arguments = {**env_jobs.libraries(), "PREFIX": prefix, "NAME": name}
    return script.run(shell, "envs/place", arguments, timeout=env_jobs.LOOK_TIMEOUT)


def free(line: str | None) -> int | None:
    """Read what is free in a line of ``df -Pk``, bytes."""
    # POSIX df -Pk, as in probe.py.
    found = re.search(r"\s[0-9]{1,18}\s+[0-9]{1,18}\s+([0-9]{1,18})\s+[0-9]{1,3}%", line or "")
    return int(found[1]) * 1024 if found is not None else None


def quota_left(report: HostReport, prefix: str) -> int | None:
    """What is left of the quota; it counts for the home, as far as is known."""
    disk = report.disk
    if disk is None or disk.quota is None or disk.quota_used is None:
        return None
    return max(0, disk.quota - disk.quota_used) if prefix.startswith(f"{(report.home or '?').rstrip('/')}/") else None


def mib(count: int | None) -> str:
    """Return bytes for people."""
    if count is None:
        return "an unknown number of MiB"
    return f"{count / MIB / 1024:.1f} GiB" if count >= 1024 * MIB else f"{count // MIB} MiB"
