"""`env push`: package files are uploaded, checked, and installed on a host without a network."""

from __future__ import annotations

import re
from pathlib import Path

from jupyman import api, errors, rules
from jupyman.api.results import EnvPushed, StepResult, WheelTarget
from jupyman.core.verbs.env_job import conclude, watch
from jupyman.core.verbs.host_call import HostCall
from jupyman.host.envs.facilities import look
from jupyman.host.report import probe
from jupyman.host.shell import jobs, upload
from jupyman.host.shell.jobs import JobSpec
from jupyman.host.shell.script import Facts
from jupyman.model import Environment, HostReport
from jupyman.tools.envs import discovery
from jupyman.tools.install import packages

BAR = 20  # characters


def push(request: api.EnvPush, call: HostCall) -> EnvPushed:
    """Upload files and install them.

    Raises:
        UsageFault: a file is no package, or two have one name; the environment is in use, and nobody can be asked.
        EnvironmentMissing: no such environment, or no tool for it.
        NotOurs: this account cannot change it.
        RemoteFailed: no room, a wrong checksum, or the installation failed.
        LinkLost: run it again; what is uploaded is not sent again.
    """
    paths = _package_files(request.files)
    link = call.connect()
    report, environment, facts = _environment(request.env, call)
    if facts.one("writable") != "yes":
        raise errors.NotOurs(f"{environment.prefix} cannot be changed by you", "make an environment of your own")
    installers = look(link, report)
    has_pip = facts.one("pip") is not None
    # What cannot be installed is not uploaded first.
    packages.steps(environment, [f"/x/{path.name}" for path in paths], installers.tools, pip=has_pip)
    _ask_in_use(environment, facts, call)
    uploaded = [_upload(path, call) for path in paths]
    steps = packages.steps(environment, uploaded, installers.tools, pip=has_pip)
    results = {one.key: StepResult(key=one.key, text=one.text, command=one.argv) for one in steps}
    name = job_name(environment.name)
    job = JobSpec(
        name=name,
        prefix=environment.prefix,
        tool=environment.kind,
        new=False,
        conda=False,
        steps=steps,
        scope=report.survival == "scope",
    )
    if jobs.start(link, job) == "existing":
        raise errors.UsageFault(
            f"an installation for {environment.name} is already running",
            f"jupyman env logs {name} -f shows it; wait for it",
        )
    conclude(name, watch(call, name, results), call.host, None, "run it again: what is uploaded is kept")
    return EnvPushed(
        name=environment.name,
        prefix=environment.prefix,
        files=[path.name for path in paths],
        bytes=sum(path.stat().st_size for path in paths),
        steps=list(results.values()),
    )


def target(request: api.EnvTarget, call: HostCall) -> WheelTarget:
    """Return which wheels fit an environment.

    Raises:
        EnvironmentMissing: no such environment.
        UsageFault: its Python or its platform is not known.
    """
    call.connect()
    _, environment, facts = _environment(request.env, call)
    version = re.match(r"[0-9]+\.[0-9]+", environment.python or "")
    if version is None:
        raise errors.UsageFault(f"the Python of {environment.prefix} is not known", "download the wheels by hand")
    machine = facts.one("machine") or "?"
    tags = packages.platforms(machine, facts.one("libc"))
    return WheelTarget(prefix=environment.prefix, python=version[0], machine=machine, platforms=tags)


def job_name(name: str) -> str:
    """Return a valid name for an environment's installation: the environment's may contain any character."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).lstrip(".-")[:63] or "environment"


def _package_files(files: list[str]) -> list[Path]:
    """Check the files on this computer."""
    paths = [Path(text) for text in files]
    for path in paths:
        packages.kind(path.name)
        if not path.is_file():
            raise errors.UsageFault(f"{path} is not a file", "name package files")
    if len({path.name for path in paths}) < len(paths):
        raise errors.UsageFault("two of the files have the same name", "push one of them")
    return paths


def _environment(wanted: str, call: HostCall) -> tuple[HostReport, Environment, Facts]:
    with call.step("environment", f"looking for environment {wanted}") as progress:
        named = [wanted] if wanted.startswith(("/", "~/")) else []
        report = probe.probe(call.link, call.host, depth="launch", directory=None, extra=named)
        call.remember_environments(report)
        environment = discovery.find(report.environments, wanted, report.home)
        facts = call.script("envs/use", {"PREFIX": environment.prefix}, timeout=jobs.LOOK_TIMEOUT)
        progress.text = f"environment {environment.name}: Python {environment.python}, {environment.prefix}"
    return report, environment, facts


def _ask_in_use(environment: Environment, facts: Facts, call: HostCall) -> None:
    """Ask first when kernels run from the environment: what they have loaded stays old, or becomes a mixture."""
    pids = [line.split()[0] for line in facts.all("use") if line.endswith((" kernel", " server"))]
    if not pids:
        return
    in_use = f"{environment.name} is in use by running kernels or servers (pid {', '.join(pids[:5])})"
    unattended = errors.UsageFault(in_use, "end them first, or run this on a terminal")
    if not call.confirm(f"{in_use}. Install into it anyway?", unattended=unattended):
        raise errors.Interrupted("nothing was installed")


def _upload(path: Path, call: HostCall) -> str:
    """Upload a file; return where it is on the host."""
    with call.step(f"upload {path.name}", f"uploading {path.name}") as progress:

        def show(have: int, size: int, speed: float) -> None:
            progress.now(f"{_bar(have, size)} {path.name}, {rules.size(int(speed))}/s")

        uploaded = upload.upload(call.link, path, progress=show, cancelled=call.cancelled)
        progress.text = f"{path.name}: {rules.size(path.stat().st_size)}, checksum verified"
    return uploaded


def _bar(have: int, size: int) -> str:
    done = BAR * have // size if size else BAR
    return f"[{'#' * done}{'.' * (BAR - done)}] {100 * have // size if size else 100:3d} % of {rules.size(size)}"
