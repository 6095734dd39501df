"""The verbs about environments that change nothing: the list, and an installation's log; and the table of them all."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from jupyman import api, errors
from jupyman.api.results import Environments, EnvLog
from jupyman.core.verbs import env_create, env_mirror, env_push, env_rm
from jupyman.core.verbs.host_call import HostCall
from jupyman.host.report import probe
from jupyman.host.shell import jobs as env_jobs
from jupyman.model import Environment
from jupyman.tools.envs import discovery
from jupyman.tools.install.request import KINDS, Kind


def ls(request: api.EnvLs, call: HostCall) -> Environments:
    """List the environments, with those that are being made or were left unfinished."""
    del request
    link = call.connect()
    report = probe.probe(link, call.host, depth="launch", directory=None)
    call.remember_environments(report)
    return Environments(environments=with_jobs(report.environments, env_jobs.find(link), report.home))


def with_jobs(environments: list[Environment], jobs: list[env_jobs.Job], home: str | None) -> list[Environment]:
    """Return the environments with what the installations add: which are being made, and those still invisible."""
    found = list(environments)
    for job in jobs:
        if not job.new or job.state == "done":
            continue
        under_way = job.state in {"running", "elsewhere"}
        number = next((n for n, one in enumerate(found) if one.prefix.rstrip("/") == job.prefix.rstrip("/")), None)
        if number is not None:
            if found[number].state == "incomplete" and under_way:
                found[number] = msgspec.structs.replace(found[number], state="installing")
        elif under_way:
            kind: Kind = next((one for one in KINDS if one == job.tool), "venv")
            found.append(
                Environment(
                    name=discovery.name_of(job.prefix, None, home),
                    prefix=job.prefix,
                    kind=kind,
                    python=None,
                    jupyter=None,
                    ipykernel=None,
                    torch=None,
                    state="installing",
                )
            )
    return found


def logs(request: api.EnvLogs, call: HostCall) -> EnvLog:
    """Send an installation's log as `Output` events; when it is followed, its end decides the exit status.

    Raises:
        UsageFault: there is no installation of that name.
        RemoteFailed: it was followed, and failed or was stopped.
        LinkLost: the connection ended; the installation keeps running.
    """
    # An environment may be named by its prefix, and its name may hold anything.
    name = env_push.job_name(request.name.rstrip("/").rpartition("/")[2])
    ended = env_jobs.follow(
        call.link, name, lines=request.lines, wait=request.follow, on_line=call.output, cancelled=call.cancelled
    )
    if request.follow and ended.state == "failed":
        raise errors.RemoteFailed(
            f"the installation of {name} failed at: {ended.text}",
            f"correct that, and jupyman env create {name} resumes it; jupyman env rm {name} removes what is there",
        )
    if request.follow and ended.state == "interrupted":
        raise errors.RemoteFailed(
            f"the installation of {name} was stopped from outside at: {ended.text}",
            f"jupyman env create {name} resumes it; jupyman env rm {name} removes what is there",
        )
    return EnvLog(name=name, state=ended.state, prefix=ended.prefix)


VERBS: dict[type[api.AnyRequest], Callable[[Any, HostCall], Any]] = {
    api.EnvLs: ls,
    api.EnvCreate: env_create.create,
    api.EnvLogs: logs,
    api.EnvRm: env_rm.remove,
    api.EnvPush: env_push.push,
    api.EnvTarget: env_push.target,
    api.EnvMirrorLs: env_mirror.ls,
    api.EnvMirror: env_mirror.mirror,
}
