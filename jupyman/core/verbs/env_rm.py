"""`env rm`: remove an environment of the account with its kernel specs; nothing else, and nothing that is in use."""

from __future__ import annotations

from jupyman import api, errors, rules
from jupyman.api.results import EnvRemoved
from jupyman.core.verbs.host_call import HostCall
from jupyman.host.kernels import specs as kernels
from jupyman.host.report import probe
from jupyman.host.shell import jobs as env_jobs
from jupyman.host.shell.jobs import Job
from jupyman.host.shell.script import Facts
from jupyman.model import Environment
from jupyman.tools.envs import discovery
from jupyman.tools.host.text import clean

REMOVE_TIMEOUT = 1800.0  # seconds; a hundred thousand files on a network home take minutes
SHOWN_PIDS = 5


def remove(request: api.EnvRm, call: HostCall) -> EnvRemoved:
    """Remove an environment.

    Raises:
        EnvironmentMissing: there is none of that name.
        UsageFault: it is a conda installation, or in use; or nobody can be asked.
        NotOurs: it belongs to another user, or is a link.
        RemoteFailed: not all of it could be removed.
        Interrupted: the answer was no.
    """
    link = call.connect()
    with call.step("look", f"looking at {request.env}") as progress:
        named = [request.env] if request.env.startswith(("/", "~/")) else []
        report = probe.probe(link, call.host, depth="launch", directory=None, extra=named)
        jobs = env_jobs.find(link)
        name, prefix = _find(request.env, report.environments, jobs, report.home)
        environment = next((one for one in report.environments if one.prefix == prefix), None)
        if environment is not None and (environment.kind == "system" or environment.prefix == environment.root):
            raise errors.UsageFault(
                f"{prefix} is not an environment that jupyman removes", "remove it by hand if you mean it"
            )
        here = [one for one in jobs if one.state != "elsewhere"]
        job = next((one for one in here if one.prefix.rstrip("/") == prefix.rstrip("/")), None)
        facts = _script(call, prefix, job, remove=False, force=False)
        specs = [
            spec
            for spec in kernels.ls(link, report.environments).specs
            if (spec.prefix or "").rstrip("/") == prefix.rstrip("/")
            and not (spec.directory or "").startswith(f"{prefix.rstrip('/')}/")
        ]
        size = facts.number("size")
        size = size * 1024 if size is not None else None
        progress.text = f"{name}: {prefix}, {rules.size(size) if size is not None else 'size not known'}"
    users = [line.split() for line in facts.all("use")]
    busy = _busy(users)
    if busy and request.yes and not request.force:
        raise errors.UsageFault(f"{prefix} is in use: {busy}", "end them first, or add --force", users=users)
    if not request.yes and not call.confirm(
        _question(call.host, prefix, size, [spec.name for spec in specs], busy, job)
    ):
        raise errors.Interrupted("nothing was removed")
    with call.step("remove", f"removing {prefix}") as progress:
        _script(call, prefix, job, remove=True, force=bool(request.force or (busy and not request.yes)))
        removed = []
        for spec in specs:
            try:
                kernels.rm(link, spec.name)
            except (errors.UsageFault, errors.NotOurs) as error:
                progress.warn(f"{prefix} is removed; kernel {spec.name} stays: {error.message}")
            else:
                removed.append(spec.name)
        if progress.state == "done":
            progress.text = f"removed {prefix}" + (f" and kernel {', '.join(removed)}" if removed else "")
    call.remember_environments(probe.probe(link, call.host, depth="launch", directory=None))
    return EnvRemoved(name=name, prefix=prefix, size=size, kernels=removed)


def remove_unfinished(call: HostCall, name: str, prefix: str) -> None:
    """Stop an installation that this command started, and remove what it made.

    Raises:
        LinkLost, RemoteFailed: as the script; `env rm` does the same later.
    """
    job = Job(name=name, state="running", node=None, prefix=prefix, tool=None, new=True, text=None)
    _script(call, prefix, job, remove=True, force=True)


def _find(wanted: str, environments: list[Environment], jobs: list[Job], home: str | None) -> tuple[str, str]:
    """Return name and prefix of an environment, or of an installation of that name that has made none yet."""
    try:
        found = discovery.find(environments, wanted, home, unfinished=True)
    except errors.EnvironmentMissing:
        job = next((one for one in jobs if wanted in {one.name, one.prefix}), None)
        if job is None:
            raise
        return job.name, job.prefix
    return found.name, found.prefix


def _script(call: HostCall, prefix: str, job: Job | None, *, remove: bool, force: bool) -> Facts:
    arguments = {
        "PREFIX": prefix,
        "NAME": job.name if job is not None else "",
        "REMOVE": "1" if remove else "0",
        "FORCE": "1" if force else "0",
    }
    timeout = REMOVE_TIMEOUT if remove else env_jobs.LOOK_TIMEOUT + 20
    return call.script("envs/remove", arguments, timeout=timeout)


def _busy(users: list[list[str]]) -> str:
    """Return what runs from the environment, as text; each user is a pid, its start, and a kind."""
    words = {"kernel": "kernels", "server": "Jupyter servers", "process": "other programs"}
    parts = []
    for kind, plural in words.items():
        pids = [one[0] for one in users if len(one) == 3 and one[2] == kind]
        if pids:
            more = f" and {len(pids) - SHOWN_PIDS} more" if len(pids) > SHOWN_PIDS else ""
            parts.append(f"{plural} (pid {', '.join(pids[:SHOWN_PIDS])}{more})")
    return clean(" and ".join(parts))


def _question(host: str, prefix: str, size: int | None, specs: list[str], busy: str, job: Job | None) -> str:
    text = f"Remove {prefix} from {host}"
    text += f" ({rules.size(size)})" if size is not None else ""
    text += f" and kernel {', '.join(specs)}" if specs else ""
    if job is not None and job.state == "running":
        text += ", and stop its installation"
    if busy:
        text += f", although it is in use by {busy}"
    return f"{text}?"
