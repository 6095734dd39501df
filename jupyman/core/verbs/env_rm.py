"""`env rm`: an environment of the account goes, with its kernel specs; nothing else, and nothing that is in use."""

from __future__ import annotations

from jupyman import api, errors
from jupyman.api import Operation, Prompt
from jupyman.api.results import EnvRemoved
from jupyman.core.links.hosts import Hosts
from jupyman.core.runtime.progress import step
from jupyman.core.sessions.registry import SessionRegistry
from jupyman.core.verbs.host import connect, remember
from jupyman.host.envs.facilities import mib
from jupyman.host.kernels import specs as kernels
from jupyman.host.report import probe
from jupyman.host.shell import jobs as env_jobs
from jupyman.host.shell import script
from jupyman.host.shell.jobs import Job
from jupyman.host.shell.script import Facts, Shell
from jupyman.model import Environment
from jupyman.tools.envs import discovery
from jupyman.tools.host.text import clean

REMOVE_TIMEOUT = 1800.0  # seconds; a hundred thousand files on a network home take minutes


def remove(request: api.EnvRm, host: str, hosts: Hosts, sessions: SessionRegistry, operation: Operation) -> EnvRemoved:
    """Remove an environment.

    Raises:
        EnvironmentMissing: there is none of that name.
        UsageFault: it is a conda installation, or in use; or nobody can be asked.
        NotOurs: it belongs to another user, or is a link.
        RemoteFailed: not all of it could be removed.
        Interrupted: the answer was no.
    """
    link = connect(host, hosts, operation)
    with step(operation, "look", f"looking at {request.env}") as progress:
        named = [request.env] if request.env.startswith(("/", "~/")) else []
        report = probe.probe(link, host, depth="launch", directory=None, extra=named)
        jobs = env_jobs.find(link)
        name, prefix = _meant(request.env, report.environments, jobs, report.home)
        environment = next((one for one in report.environments if one.prefix == prefix), None)
        if environment is not None and (environment.kind == "system" or environment.prefix == environment.root):
            raise errors.UsageFault(
                f"{prefix} is no environment that jupyman removes", "remove it by hand, if you mean that"
            )
        here = [one for one in jobs if one.state != "elsewhere"]
        job = next((one for one in here if one.prefix.rstrip("/") == prefix.rstrip("/")), None)
        seen = _script(link, prefix, job, remove=False, force=False)
        specs = [
            spec
            for spec in kernels.ls(link, report.environments).specs
            if (spec.prefix or "").rstrip("/") == prefix.rstrip("/")
            and not (spec.directory or "").startswith(f"{prefix.rstrip('/')}/")
        ]
        size = seen.number("size")
        size = size * 1024 if size is not None else None
        progress.text = f"{name}: {prefix}, {mib(size) if size is not None else 'size not known'}"
    users = [line.split() for line in seen.all("use")]
    busy = _busy(users)
    if busy and request.yes and not request.force:
        raise errors.UsageFault(f"{prefix} is in use: {busy}", "end them first, or say --force", users=users)
    if not request.yes:
        _confirm(operation, host, prefix, size, [spec.name for spec in specs], busy, job)
    with step(operation, "remove", f"removing {prefix}") as progress:
        _script(link, prefix, job, remove=True, force=bool(request.force or (busy and not request.yes)))
        gone = []
        for spec in specs:
            try:
                kernels.rm(link, spec.name)
            except (errors.UsageFault, errors.NotOurs) as error:
                progress.warn(f"{prefix} is gone; kernel {spec.name} stays: {error.message}")
            else:
                gone.append(spec.name)
        if progress.state == "done":
            progress.text = f"removed {prefix}" + (f" and kernel {', '.join(gone)}" if gone else "")
    remember(host, probe.probe(link, host, depth="launch", directory=None), sessions)
    return EnvRemoved(name=name, prefix=prefix, size=size, kernels=gone)


def remove_unfinished(shell: Shell, name: str, prefix: str) -> None:
    """End an installation that this command has begun, and take away what it made.

    Raises:
        LinkLost, RemoteFailed: as the script; `env rm` does the same later.
    """
    job = Job(name=name, state="running", node=None, prefix=prefix, tool=None, new=True, text=None)
    _script(shell, prefix, job, remove=True, force=True)


def _meant(wanted: str, environments: list[Environment], jobs: list[Job], home: str | None) -> tuple[str, str]:
    """Find what is meant: an environment, or an installation of that name that has made none yet."""
    try:
        found = discovery.find(environments, wanted, home, unfinished=True)
    except errors.EnvironmentMissing:
        job = next((one for one in jobs if wanted in {one.name, one.prefix}), None)
        if job is None:
            raise
        return job.name, job.prefix
    return found.name, found.prefix


def _script(shell: Shell, prefix: str, job: Job | None, *, remove: bool, force: bool) -> Facts:
    arguments = {
        **env_jobs.libraries(),
        "PREFIX": prefix,
        "NAME": job.name if job is not None else "",
        "REMOVE": "1" if remove else "0",
        "FORCE": "1" if force else "0",
    }
    timeout = REMOVE_TIMEOUT if remove else env_jobs.LOOK_TIMEOUT + 20
    return script.run(shell, "envs/remove", arguments, timeout=timeout)


def _busy(users: list[list[str]]) -> str:
    """Say what runs from it."""
    words = {"kernel": "kernels", "server": "Jupyter servers", "process": "other programs"}
    told = []
    for kind, plural in words.items():
        pids = [one[0] for one in users if len(one) == 3 and one[2] == kind]
        if pids:
            more = f" and {len(pids) - 5} more" if len(pids) > 5 else ""
            told.append(f"{plural} (pid {', '.join(pids[:5])}{more})")
    return clean(" and ".join(told))


def _confirm(
    operation: Operation, host: str, prefix: str, size: int | None, specs: list[str], busy: str, job: Job | None
) -> None:
    text = f"Remove {prefix} from {host}"
    text += f" ({mib(size)})" if size is not None else ""
    text += f" and kernel {', '.join(specs)}" if specs else ""
    if job is not None and job.state == "running":
        text += ", and stop its installation"
    if busy:
        text += f", although it is in use by {busy}"
    if not operation.client.interactive:
        raise errors.UsageFault("a question must be answered, and stdin is no terminal", "say -y to answer yes")
    if operation.ask(Prompt(id="", kind="confirm", text=f"{text}?", default="n")).lower() not in {"y", "yes"}:
        raise errors.Interrupted("nothing was removed")
