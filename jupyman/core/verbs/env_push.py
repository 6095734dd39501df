"""`env push`: package files go up, are checked, and are installed where there is no network."""

from __future__ import annotations

import re
from pathlib import Path

from jupyman import api, errors
from jupyman.api import Operation, Prompt
from jupyman.api.results import EnvPushed, StepResult, WheelTarget
from jupyman.core.links.hosts import Hosts
from jupyman.core.runtime.progress import step
from jupyman.core.sessions.registry import SessionRegistry
from jupyman.core.verbs.env_create import conclude, watch
from jupyman.core.verbs.host import connect, remember
from jupyman.host.envs.facilities import look, mib
from jupyman.host.report import probe
from jupyman.host.shell import jobs, script, upload
from jupyman.host.shell.jobs import JobSpec
from jupyman.host.shell.script import Facts, Shell
from jupyman.model import Environment, HostReport
from jupyman.tools.envs import discovery
from jupyman.tools.install import packages

BAR = 20  # characters


def push(request: api.EnvPush, host: str, hosts: Hosts, sessions: SessionRegistry, operation: Operation) -> EnvPushed:
    """Upload files and install them.

    Raises:
        UsageFault: a file is no package, or two have one name; the environment is in use, and nobody can be asked.
        EnvironmentMissing: no such environment, or no tool for it.
        NotOurs: it cannot be changed by this account.
        RemoteFailed: no room, a wrong checksum, or the installation failed.
        LinkLost: run it again; what has come up is not sent again.
    """
    paths = [Path(text) for text in request.files]
    for path in paths:
        packages.kind(path.name)
        if not path.is_file():
            raise errors.UsageFault(f"{path} is no file", "name package files")
    names = [path.name for path in paths]
    if len({*names}) < len(names):
        raise errors.UsageFault("two of the files have one name", "push one of them")
    link = connect(host, hosts, operation)
    report, environment, facts = _environment(link, request.env, host, sessions, operation)
    if facts.one("writable") != "yes":
        raise errors.NotOurs(f"{environment.prefix} cannot be changed by you", "make an environment of your own")
    means = look(link, report)
    # What cannot be installed is not sent up first.
    packages.steps(environment, [f"/x/{name}" for name in names], means.tools, pip=facts.one("pip") is not None)
    _ask_in_use(environment, facts, operation)
    there, sent = [], 0
    for path in paths:
        with step(operation, f"upload {path.name}", f"uploading {path.name}") as progress:

            def told(have: int, size: int, speed: float, name: str = path.name) -> None:
                progress.now(f"{_bar(have, size)} {name}, {mib(int(speed))}/s")

            there.append(upload.upload(link, path, progress=told, cancelled=operation.cancelled))
            size = path.stat().st_size
            sent += size
            progress.text = f"{path.name}: {mib(size)}, checksum as here"
    steps = packages.steps(environment, there, means.tools, pip=facts.one("pip") is not None)
    made = {one.key: StepResult(key=one.key, text=one.text, command=one.argv) for one in steps}
    name = job_name(environment.name)
    order = JobSpec(
        name=name,
        prefix=environment.prefix,
        tool=environment.kind,
        new=False,
        conda=False,
        steps=steps,
        scope=report.survival == "scope",
    )
    if jobs.start(link, order) == "existing":
        raise errors.UsageFault(
            f"an installation for {environment.name} runs already", f"jupyman env logs {name} -f shows it; wait for it"
        )
    conclude(name, watch(link, name, operation, made), host, None, "run it again: what has come up is kept")
    return EnvPushed(
        name=environment.name, prefix=environment.prefix, files=names, bytes=sent, steps=list(made.values())
    )


def target(
    request: api.EnvTarget, host: str, hosts: Hosts, sessions: SessionRegistry, operation: Operation
) -> WheelTarget:
    """Say which wheels fit an environment.

    Raises:
        EnvironmentMissing: no such environment.
        UsageFault: its Python or its platform is not known.
    """
    link = connect(host, hosts, operation)
    _, environment, facts = _environment(link, request.env, host, sessions, operation)
    version = re.match(r"[0-9]+\.[0-9]+", environment.python or "")
    if version is None:
        raise errors.UsageFault(f"the Python of {environment.prefix} is not known", "download the wheels by hand")
    machine = facts.one("machine") or "?"
    tags = packages.platforms(machine, facts.one("libc"))
    return WheelTarget(prefix=environment.prefix, python=version[0], machine=machine, platforms=tags)


def job_name(name: str) -> str:
    """Name an installation after an environment whose own name may hold anything."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).lstrip(".-")[:63] or "environment"


def _environment(
    link: Shell, wanted: str, host: str, sessions: SessionRegistry, operation: Operation
) -> tuple[HostReport, Environment, Facts]:
    with step(operation, "environment", f"looking for environment {wanted}") as progress:
        named = [wanted] if wanted.startswith(("/", "~/")) else []
        report = probe.probe(link, host, depth="launch", directory=None, extra=named)
        remember(host, report, sessions)
        environment = discovery.find(report.environments, wanted, report.home)
        arguments = {**jobs.libraries(), "PREFIX": environment.prefix}
        facts = script.run(link, "envs/use", arguments, timeout=jobs.LOOK_TIMEOUT)
        progress.text = f"environment {environment.name}: Python {environment.python}, {environment.prefix}"
    return report, environment, facts


def _ask_in_use(environment: Environment, facts: Facts, operation: Operation) -> None:
    """A kernel that has loaded a package goes on with the old one, or with a mixture: the user decides."""
    pids = [line.split()[0] for line in facts.all("use") if line.endswith((" kernel", " server"))]
    if not pids:
        return
    shown = ", ".join(pids[:5])
    if not operation.client.interactive:
        raise errors.UsageFault(
            f"{environment.name} is in use by running kernels or servers (pid {shown})",
            "end them first, or run this on a terminal",
        )
    text = f"{environment.name} is in use by running kernels or servers (pid {shown}). Install into it all the same?"
    if operation.ask(Prompt(id="", kind="confirm", text=text, default="n")).lower() not in {"y", "yes"}:
        raise errors.Interrupted("nothing was installed")


def _bar(have: int, size: int) -> str:
    done = BAR * have // size if size else BAR
    return f"[{'#' * done}{'.' * (BAR - done)}] {100 * have // size if size else 100:3d} % of {mib(size)}"
