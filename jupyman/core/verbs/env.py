"""The verbs about environments that only look: the list, and an installation's log. And where the others are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from jupyman import api, errors
from jupyman.api import Operation, Output
from jupyman.api.results import Environments, EnvLog
from jupyman.core.links.hosts import Hosts
from jupyman.core.sessions.registry import SessionRegistry
from jupyman.core.verbs import env_create, env_mirror, env_push, env_rm
from jupyman.core.verbs.host import connect, remember
from jupyman.host.report import probe
from jupyman.host.shell import jobs as env_jobs
from jupyman.model import Environment
from jupyman.tools.envs import discovery
from jupyman.tools.install.request import KINDS, Kind


def ls(request: api.EnvLs, host: str, hosts: Hosts, sessions: SessionRegistry, operation: Operation) -> Environments:
    """List the environments, with those that are being made, or were left unfinished."""
    del request
    link = connect(host, hosts, operation)
    report = probe.probe(link, host, depth="launch", directory=None)
    remember(host, report, sessions)
    return Environments(environments=with_jobs(report.environments, env_jobs.find(link), report.home))


def with_jobs(environments: list[Environment], jobs: list[env_jobs.Job], home: str | None) -> list[Environment]:
    """Put in what the installations tell: which environments are being made, and which have nothing to show yet."""
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


def logs(request: api.EnvLogs, host: str, hosts: Hosts, sessions: SessionRegistry, operation: Operation) -> EnvLog:
    """Send an installation's log as `Output` events; followed, its end decides the exit status."""
    del sessions
    link = hosts.supervisor(host, operation.client).acquire(operation)
    # An environment may be named by its prefix, and called anything.
    name = env_push.job_name(request.name.rstrip("/").rpartition("/")[2])

    def send(line: str) -> None:
        operation.emit(Output(line=line))

    ended = env_jobs.follow(
        link, name, lines=request.lines, wait=request.follow, on_line=send, cancelled=operation.cancelled
    )
    if request.follow and ended.state == "failed":
        raise errors.RemoteFailed(
            f"the installation of {name} failed at: {ended.text}",
            f"mend that, and jupyman env create {name} goes on; jupyman env rm {name} removes what is there",
        )
    if request.follow and ended.state == "interrupted":
        raise errors.RemoteFailed(
            f"the installation of {name} was ended from outside at: {ended.text}",
            f"jupyman env create {name} goes on; jupyman env rm {name} removes what is there",
        )
    return EnvLog(name=name, state=ended.state, prefix=ended.prefix)


# What the manager calls for each request, with the host, its link's owner and the sessions.
VERBS: dict[type[api.AnyRequest], Callable[..., Any]] = {
    api.EnvLs: ls,
    api.EnvCreate: env_create.create,
    api.EnvLogs: logs,
    api.EnvRm: env_rm.remove,
    api.EnvPush: env_push.push,
    api.EnvTarget: env_push.target,
    api.EnvMirrorLs: env_mirror.ls,
    api.EnvMirror: env_mirror.mirror,
}
