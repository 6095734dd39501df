"""The verbs of `jupyman kernel`."""

from __future__ import annotations

from typing import Literal

import msgspec

from jupyman import api, errors
from jupyman.api.results import KernelAdded, KernelRemoved, Kernels
from jupyman.core.verbs.host_call import HostCall
from jupyman.host.kernels import check as kernel_check
from jupyman.host.kernels import repair
from jupyman.host.kernels import specs as kernel_specs
from jupyman.host.kernels.check import Findings
from jupyman.host.kernels.repair import Plan
from jupyman.host.kernels.specs import Listing
from jupyman.host.report import probe
from jupyman.model import Environment, HostReport, KernelSpec, Problem, Repair
from jupyman.tools.envs import choice, discovery
from jupyman.tools.jupyter import kernelspec

# A repair may uncover what else is lacking: that a kernel starts, and has no ipywidgets.
ROUNDS = 3


def add(request: api.KernelAdd, call: HostCall) -> KernelAdded:
    """Register an environment as a kernel.

    Raises:
        EnvironmentMissing, UsageFault: no such environment, or the name of the kernel is taken.
        KernelFault: the kernel does not run.
    """
    link = call.connect()
    with call.step("environment", f"looking for environment {request.env}") as progress:
        named = [request.env] if request.env.startswith(("/", "~/")) else []
        report = probe.probe(link, call.host, depth="launch", directory=None, extra=named)
        call.remember_environments(report)
        environment = discovery.find(report.environments, request.env, report.home)
        progress.text = f"environment {environment.name or environment.prefix}: Python {environment.python}"
    install = kernel_specs.may_install(environment, request.install, call.confirm if call.interactive else None)
    with call.step("kernel", "registering the kernel") as progress:
        added = kernel_specs.add(
            link,
            environment,
            name=request.name,
            display_name=request.display_name,
            install=install,
            replace=request.replace,
            proof=True,
            progress=progress.now,
            cancelled=call.cancelled,
        )
        progress.text = f"kernel {added.kernel.name} runs {added.executable}"
    return KernelAdded(kernel=added.kernel, executable=added.executable, python=added.python, refreshed=added.refreshed)


def ls(request: api.KernelLs, call: HostCall) -> Kernels:
    """List the kernel specs."""
    del request
    call.connect()
    _, listing = _list(call)
    return Kernels(kernels=listing.specs)


def rm(request: api.KernelRm, call: HostCall) -> KernelRemoved:
    """Remove a kernel spec of the user's own.

    Raises:
        UsageFault: there is none of that name, or nobody can be asked.
        NotOurs: it is not the user's own.
        Interrupted: the answer was no.
    """
    link = call.connect()
    if not request.yes and not call.confirm(f"Remove kernel {request.name} from {call.host}?"):
        raise errors.Interrupted("nothing was removed")
    return KernelRemoved(removed=request.name, directory=kernel_specs.rm(link, request.name))


def check(request: api.KernelCheck, call: HostCall) -> Kernels:
    """Start kernels to check that they work, report problems, and with `fix` install missing packages.

    Raises:
        UsageFault: there is no kernel of that name, or a repair needs consent and there is no terminal.
        RemoteFailed: a repair failed.
    """
    call.connect()
    with call.step("probe", "looking for kernels") as progress:
        report, listing = _list(call)
        chosen = _chosen(listing, request.name, call.host)
        servers = _server_environments(report, call)
        progress.text = f"{len(listing.specs)} kernels in {len(report.environments)} environments"
    repairs: list[Repair] = []
    tried: set[tuple[str, tuple[str, ...]]] = set()
    named = request.name is not None and any(spec.name == request.name.lower() for spec in chosen)
    found, plans = _start(call, listing, chosen, report, servers, named=named)
    for _ in range(ROUNDS if request.fix else 0):
        fresh = [plan for plan in plans if plan.command and (plan.environment.prefix, plan.packages) not in tried]
        if not fresh:
            break
        tried |= {(plan.environment.prefix, plan.packages) for plan in fresh}
        done = _repair_all(call, fresh, yes=request.yes)
        repairs += done
        if not any(one.state == "done" for one in done):
            break
        same = {one.directory for one in chosen}
        listing = kernel_specs.ls(call.link, report.environments)
        chosen = [spec for spec in listing.specs if spec.directory in same]
        found, plans = _start(call, listing, chosen, report, servers, named=named)
    if not request.fix:
        repairs = [_repair(plan, "proposed") for plan in plans if plan.command]
    words = [request.name] if named and request.name is not None else []
    command = " ".join(["jupyman kernel check", *words, "--host", call.host, "--fix"])
    return Kernels(kernels=found.kernels, problems=_with_commands(found, plans, command), repairs=repairs)


def _list(call: HostCall) -> tuple[HostReport, Listing]:
    """Look for environments and kernels; a kernel may point to an environment that nothing else points to."""
    link, host = call.link, call.host
    running = sorted(_running(call))
    report = probe.probe(link, host, depth="launch", directory=None, extra=running)
    call.remember_environments(report)
    listing = kernel_specs.ls(link, report.environments)
    # The probe runs each Python to get its version: not one of another user's.
    trusted = [spec for spec in listing.specs if spec.ok is None and kernelspec.executable(spec) not in listing.foreign]
    prefixes = {spec.prefix for spec in trusted if spec.prefix is not None}
    known = {place for one in report.environments for place in (one.prefix, one.real)}
    unknown = prefixes - known
    if unknown:
        report = probe.probe(link, host, depth="launch", directory=None, extra=[*running, *sorted(unknown)])
        listing = kernel_specs.ls(link, report.environments)
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


def _running(call: HostCall) -> set[str]:
    """Return the prefixes in which servers of this computer's sessions run."""
    servers = [session.running.server for session in call.sessions.on(call.host) if session.running is not None]
    return {server.env for server in servers if server.env is not None}


def _server_environments(report: HostReport, call: HostCall) -> list[Environment]:
    """Return the environments whose Jupyter shows the kernels: of running sessions, else the one `up` would use."""
    running = _running(call)
    used = [one for one in report.environments if one.prefix in running]
    if used:
        return used
    default = call.hosts.entry(call.host).env or call.hosts.config.defaults.env
    try:
        return [choice.choose(report, None, default, "lab")[0]]
    except errors.JupyterMissing:
        return [one for one in report.environments if one.apps][:1]


def _start(
    call: HostCall,
    listing: Listing,
    chosen: list[KernelSpec],
    report: HostReport,
    servers: list[Environment],
    *,
    named: bool,
) -> tuple[Findings, list[Plan]]:
    """Start the chosen kernels; return what was found, and what would repair it."""
    what = f"kernel {chosen[0].name}" if len(chosen) == 1 else f"{len(chosen)} kernels"
    with call.step("kernels", f"starting {what}") as progress:
        found = kernel_check.look(
            call.link,
            listing,
            chosen,
            report.environments,
            servers,
            named=named,
            progress=progress.now,
            cancelled=call.cancelled,
        )
        plans = repair.plans(call.link, found.missing, call.cancelled)
        count = len(found.problems)
        progress.text = f"{what} started: {count} problem{'' if count == 1 else 's'}"
    return found, plans


def _repair_all(call: HostCall, plans: list[Plan], *, yes: bool) -> list[Repair]:
    """Run each plan's command once the user agrees."""
    commands = [plan.text for plan in plans]
    unattended = errors.UsageFault(
        "a question must be answered, and stdin is no terminal",
        f"say --yes to run on {call.host}: {'; '.join(commands)}",
        commands=commands,
    )
    done = []
    for plan in plans:
        question = f"Run on {call.host}: {plan.text} ?"
        if not yes and not call.confirm(question, default="y", unattended=unattended):
            done.append(_repair(plan, "declined"))
            continue
        with call.step("repair", plan.text) as progress:
            repair.run(call.link, plan, on_line=progress.now, cancelled=call.cancelled)
            progress.text = plan.text
        done.append(_repair(plan, "done"))
    return done


def _repair(plan: Plan, state: Literal["proposed", "declined", "done"]) -> Repair:
    packages, command = list(plan.packages), list(plan.command)
    return Repair(prefix=plan.environment.prefix, packages=packages, command=command, state=state)


def _with_commands(found: Findings, plans: list[Plan], command: str) -> list[Problem]:
    """Put into each problem's fix the command that repairs it, or why there is none."""
    problems = [*found.problems]
    for plan in plans:
        fix = f"{command} runs there: {plan.text}" if plan.command else plan.refusal
        for place in plan.problems:
            problems[place] = msgspec.structs.replace(problems[place], fix=fix)
    return problems
