"""The verbs of `jupyman kernel`."""

from __future__ import annotations

from typing import Literal

import msgspec

from jupyman import api, errors
from jupyman.api import Operation, Prompt
from jupyman.api.results import KernelAdded, KernelRemoved, Kernels
from jupyman.core.links.hosts import Hosts
from jupyman.core.runtime.progress import step
from jupyman.core.sessions.registry import SessionRegistry
from jupyman.core.verbs.host import connect, remember
from jupyman.host.kernels import check as kernel_check
from jupyman.host.kernels import repair
from jupyman.host.kernels import specs as kernel_work
from jupyman.host.kernels.check import Findings
from jupyman.host.kernels.repair import Plan
from jupyman.host.kernels.specs import Listing
from jupyman.host.report import probe
from jupyman.model import Environment, HostReport, KernelSpec, Problem, Repair
from jupyman.ssh.link import Link
from jupyman.tools.envs import discovery
from jupyman.tools.jupyter import kernelspec

# An installation may show what else is lacking: that a kernel starts, and has no ipywidgets.
ROUNDS = 3


def add(
    request: api.KernelAdd, host: str, hosts: Hosts, sessions: SessionRegistry, operation: Operation
) -> KernelAdded:
    """Register an environment as a kernel."""
    link = connect(host, hosts, operation)
    with step(operation, "environment", f"looking for environment {request.env}") as progress:
        named = [request.env] if request.env.startswith(("/", "~/")) else []
        report = probe.probe(link, host, depth="launch", directory=None, extra=named)
        remember(host, report, sessions)
        environment = discovery.find(report.environments, request.env, report.home)
        progress.text = f"environment {environment.name or environment.prefix}: Python {environment.python}"
    install = kernel_work.may_install(environment, request.install, operation)
    with step(operation, "kernel", "registering the kernel") as progress:
        added = kernel_work.add(
            link,
            environment,
            name=request.name,
            display_name=request.display_name,
            install=install,
            replace=request.replace,
            proof=True,
            progress=progress.now,
            cancelled=operation.cancelled,
        )
        progress.text = f"kernel {added.kernel.name} runs {added.executable}"
    return added


def ls(request: api.KernelLs, host: str, hosts: Hosts, sessions: SessionRegistry, operation: Operation) -> Kernels:
    """List the kernel specs."""
    del request
    link = connect(host, hosts, operation)
    _, listing = _list(link, host, sessions)
    return Kernels(kernels=listing.specs)


def rm(
    request: api.KernelRm, host: str, hosts: Hosts, sessions: SessionRegistry, operation: Operation
) -> KernelRemoved:
    """Remove a kernel spec of the user's own."""
    del sessions
    link = connect(host, hosts, operation)
    if not request.yes:
        if not operation.client.interactive:
            raise errors.UsageFault("a question must be answered, and stdin is no terminal", "say -y to answer yes")
        question = Prompt(id="", kind="confirm", text=f"Remove kernel {request.name} from {host}?", default="n")
        if operation.ask(question).lower() not in {"y", "yes"}:
            raise errors.Interrupted("nothing was removed")
    return KernelRemoved(removed=request.name, directory=kernel_work.rm(link, request.name))


def check(
    request: api.KernelCheck, host: str, hosts: Hosts, sessions: SessionRegistry, operation: Operation
) -> Kernels:
    """Start kernels to see that they work; say what is wrong; install what they lack where the user says so."""
    link = connect(host, hosts, operation)
    with step(operation, "probe", "looking for kernels") as progress:
        report, listing = _list(link, host, sessions)
        chosen = _chosen(listing, request.name, host)
        servers = _servers(report, host, hosts, sessions)
        progress.text = f"{len(listing.specs)} kernels in {len(report.environments)} environments"
    repairs: list[Repair] = []
    tried: set[tuple[str, tuple[str, ...]]] = set()
    named = request.name is not None and any(spec.name == request.name.lower() for spec in chosen)
    found, plans = _look(link, listing, chosen, report, servers, operation, named=named)
    for _ in range(ROUNDS if request.fix else 0):
        fresh = [plan for plan in plans if plan.command and (plan.environment.prefix, plan.packages) not in tried]
        if not fresh:
            break
        tried |= {(plan.environment.prefix, plan.packages) for plan in fresh}
        done = _mend(link, host, fresh, operation, yes=request.yes)
        repairs += done
        if not any(one.state == "done" for one in done):
            break
        same = {one.directory for one in chosen}
        listing = kernel_work.ls(link, report.environments)
        chosen = [spec for spec in listing.specs if spec.directory in same]
        found, plans = _look(link, listing, chosen, report, servers, operation, named=named)
    if not request.fix:
        repairs = [_repair(plan, "proposed") for plan in plans if plan.command]
    words = [request.name] if named and request.name is not None else []
    again = " ".join(["jupyman kernel check", *words, "--host", host, "--fix"])
    return Kernels(kernels=found.kernels, problems=_with_commands(found, plans, again), repairs=repairs)


def _list(link: Link, host: str, sessions: SessionRegistry) -> tuple[HostReport, Listing]:
    """Look for environments and kernels; kernels may lead to environments that nothing else does."""
    running = sorted(_running(host, sessions))
    report = probe.probe(link, host, depth="launch", directory=None, extra=running)
    remember(host, report, sessions)
    listing = kernel_work.ls(link, report.environments)
    # The probe asks a Python for its version: not one of another user's.
    trusted = [spec for spec in listing.specs if spec.ok is None and kernelspec.executable(spec) not in listing.foreign]
    leads = {spec.prefix for spec in trusted if spec.prefix is not None}
    known = {place for one in report.environments for place in (one.prefix, one.real)}
    unknown = leads - known
    if unknown:
        report = probe.probe(link, host, depth="launch", directory=None, extra=[*running, *sorted(unknown)])
        listing = kernel_work.ls(link, report.environments)
    return report, listing


def _chosen(listing: Listing, name: str | None, host: str) -> list[KernelSpec]:
    if name is None:
        return listing.specs
    chosen = [spec for spec in listing.specs if spec.name == name.lower()]
    if chosen:
        return chosen
    if name == host:  # the one word was the host's name
        return listing.specs
    names = ", ".join(dict.fromkeys(spec.name for spec in listing.specs)) or "none"
    raise errors.UsageFault(f"no kernel is called {name!r} on {host}", f"kernels there: {names}")


def _running(host: str, sessions: SessionRegistry) -> set[str]:
    """Return the prefixes in which servers of this computer's sessions run."""
    servers = [live.running.server for live in sessions.on(host) if live.running is not None]
    return {server.env for server in servers if server.env is not None}


def _servers(report: HostReport, host: str, hosts: Hosts, sessions: SessionRegistry) -> list[Environment]:
    """Return the environments whose Jupyter shows the kernels: of running sessions, else the one that `up` takes."""
    running = _running(host, sessions)
    used = [one for one in report.environments if one.prefix in running]
    if used:
        return used
    default = hosts.entry(host).env or hosts.config.defaults.env
    try:
        return [probe.choose(report, None, default, "lab")[0]]
    except errors.JupyterMissing:
        return [one for one in report.environments if one.apps][:1]


def _look(
    link: Link,
    listing: Listing,
    chosen: list[KernelSpec],
    report: HostReport,
    servers: list[Environment],
    operation: Operation,
    *,
    named: bool,
) -> tuple[Findings, list[Plan]]:
    what = f"kernel {chosen[0].name}" if len(chosen) == 1 else f"{len(chosen)} kernels"
    with step(operation, "kernels", f"starting {what}") as progress:
        found = kernel_check.look(
            link,
            listing,
            chosen,
            report.environments,
            servers,
            named=named,
            told=progress.now,
            cancelled=operation.cancelled,
        )
        plans = repair.plans(link, found.wishes, operation.cancelled)
        count = len(found.problems)
        progress.text = f"{what} started: {count} problem{'' if count == 1 else 's'}"
    return found, plans


def _mend(link: Link, host: str, plans: list[Plan], operation: Operation, *, yes: bool) -> list[Repair]:
    """Run each plan's command after a yes."""
    if not yes and not operation.client.interactive:
        text = "a question must be answered, and stdin is no terminal"
        commands = "; ".join(plan.text for plan in plans)
        raise errors.UsageFault(text, f"say --yes to run on {host}: {commands}", commands=[plan.text for plan in plans])
    done = []
    for plan in plans:
        question = Prompt(id="", kind="confirm", text=f"Run on {host}: {plan.text} ?", default="y")
        if not yes and operation.ask(question).lower() not in {"y", "yes"}:
            done.append(_repair(plan, "declined"))
            continue
        with step(operation, "repair", plan.text) as progress:
            repair.run(link, plan, on_line=progress.now, cancelled=operation.cancelled)
            progress.text = plan.text
        done.append(_repair(plan, "done"))
    return done


def _repair(plan: Plan, state: Literal["proposed", "declined", "done"]) -> Repair:
    packages, command = list(plan.packages), list(plan.command)
    return Repair(prefix=plan.environment.prefix, packages=packages, command=command, state=state)


def _with_commands(found: Findings, plans: list[Plan], again: str) -> list[Problem]:
    """Put the command that mends it into each problem's fix, or why there is none."""
    problems = [*found.problems]
    for plan in plans:
        fix = f"{again} runs there: {plan.text}" if plan.command else plan.refusal
        for place in plan.problems:
            problems[place] = msgspec.structs.replace(problems[place], fix=fix)
    return problems
