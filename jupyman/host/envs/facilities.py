"""The installers that a host has for making environments, and the space for them."""

from __future__ import annotations

import re

from jupyman.host.shell import script
from jupyman.host.shell.script import Shell
from jupyman.model import HostReport
from jupyman.tools.install.request import KINDS, HostInstallers, Python, Tool

_TIMEOUT = 60.0  # seconds: each tool found is asked for its version


def look(shell: Shell, report: HostReport) -> HostInstallers:
    """Find installers and Pythons."""
    roots = list(dict.fromkeys(one.root for one in report.environments if one.root is not None))
    facts = script.run(shell, "envs/look", {"ROOTS": "\n".join(roots)}, timeout=_TIMEOUT)
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
    """Look at the directory for a new environment, and at what an earlier attempt left there."""
    return script.run(shell, "envs/place", {"PREFIX": prefix, "NAME": name}, timeout=script.LOOK_TIMEOUT)


def free(line: str | None) -> int | None:
    """Read the free space, in bytes, from a line of ``df -Pk``."""
    # POSIX df -Pk, as in probe.py.
    found = re.search(r"\s[0-9]{1,18}\s+[0-9]{1,18}\s+([0-9]{1,18})\s+[0-9]{1,3}%", line or "")
    return int(found[1]) * 1024 if found is not None else None


def quota_left(report: HostReport, prefix: str) -> int | None:
    """Return what is left of the quota, which is taken to be that of the home directory."""
    disk = report.disk
    if disk is None or disk.quota is None or disk.quota_used is None:
        return None
    return max(0, disk.quota - disk.quota_used) if prefix.startswith(f"{(report.home or '?').rstrip('/')}/") else None
