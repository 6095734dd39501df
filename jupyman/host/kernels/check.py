"""Start the kernels of a host to check that they work, and find what is missing."""

from __future__ import annotations

import shlex
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field, replace

import msgspec

from jupyman import remote
from jupyman.host.kernels import specs as kernels
from jupyman.host.kernels.specs import Listing
from jupyman.host.shell import script
from jupyman.host.shell.script import Facts, Shell
from jupyman.model import Environment, KernelSpec, Problem, Severity
from jupyman.model.problem_codes import new_problem
from jupyman.tools.envs import activation
from jupyman.tools.host.text import clean
from jupyman.tools.jupyter import kernelspec, widgets

# At once: a starting kernel needs a core, and a link runs at most six commands.
TOGETHER = 3
# Seconds beyond the proof's own limit: a program that hangs is examined for 30 s more.
SLACK = 60.0


@dataclass(frozen=True)
class MissingPackage:
    """A package to install.

    Attributes:
        environment: where it is missing.
        package: its requirement, valid for pip, conda and uv.
        problem: the index in `Findings.problems` of the problem that it solves.
    """

    environment: Environment
    package: str
    problem: int


@dataclass
class Findings:
    """The kernels in the order of the listing, what is wrong with them, and the packages that would help."""

    kernels: list[KernelSpec] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    missing: list[MissingPackage] = field(default_factory=list)

    def add(
        self,
        code: str,
        text: str,
        fix: str,
        severity: Severity | None = None,
        missing: tuple[Environment, str] | None = None,
    ) -> None:
        """Add a problem, and the package that solves it with its environment."""
        if missing is not None:
            self.missing.append(MissingPackage(*missing, problem=len(self.problems)))
        self.problems.append(new_problem(code, text, fix, severity))


@dataclass(frozen=True)
class _Started:
    """A kernel after its start; `half` is its part of the widgets, None when it did not run or is not Python."""

    spec: KernelSpec
    runs: Environment | None
    facts: Facts
    half: widgets.WidgetPart | None = None


def look(
    shell: Shell,
    listing: Listing,
    chosen: Sequence[KernelSpec],
    environments: Sequence[Environment],
    servers: Sequence[Environment],
    *,
    named: bool = False,
    progress: Callable[[str], None] | None = None,
    cancelled: threading.Event | None = None,
) -> Findings:
    """Start kernels, each until it answers, and judge them.

    Args:
        shell: the host.
        listing: of all its kernels.
        chosen: those of them to start.
        environments: of the host.
        servers: environments whose Jupyter shows the kernels: of running sessions, else the one that `up` would use.
        named: the user named these kernels. Kernels in other users' environments are only started when named.
        progress: called with a text as each kernel is done.
        cancelled: ends it; the kernels end too.

    Raises:
        LinkLost, RemoteFailed, Interrupted: as `script.run`.
    """
    with ThreadPoolExecutor(TOGETHER) as pool:
        work = {pool.submit(_start, shell, spec, environments, servers, cancelled, named): spec for spec in chosen}
        for count, done in enumerate(as_completed(work), 1):
            done.result()
            if progress is not None:
                progress(f"{count} of {len(chosen)} kernels started: {work[done].name}")
    found = Findings()
    started = [_judged(done.result(), environments, found) for done in work]
    found.kernels = [one.spec for one in started]
    names = {spec.name for spec in chosen}
    for server in servers:
        shown = [spec for spec in listing.specs if _shows(server, spec, environments)]
        found.problems += kernelspec.confusions(shown, names, server.name or server.prefix)
    _widgets(started, listing, environments, servers, found)
    return found


def _start(
    shell: Shell,
    spec: KernelSpec,
    environments: Sequence[Environment],
    servers: Sequence[Environment],
    cancelled: threading.Event | None,
    named: bool,
) -> _Started:
    runs = kernels.runs_in(spec, environments)
    if spec.ok is False:  # its kernel.json cannot be read, or its program is gone
        return _Started(spec, runs, Facts())
    if runs is not None and runs.state != "ready":
        return _Started(spec, runs, Facts([("unfinished", "yes")]))
    arguments = {
        "NAME": (spec.directory or "").rpartition("/")[2],
        "SPECS": (spec.directory or "").rpartition("/")[0],
        "PYTHON": _starter(spec, environments, servers) or "",
        "PROGRAM": kernelspec.executable(spec) or "",
        "PREFIX": spec.prefix or "",
        "NAMED": "1" if named else "0",
        "LIMIT": str(kernels.PROOF_TIMEOUT),
        "PROVE": remote.program("kernels/kernel_proof"),
    }
    timeout = kernels.PROOF_TIMEOUT + SLACK
    facts = script.run(shell, "kernels/check", arguments, timeout=timeout, cancelled=cancelled)
    return _Started(spec, runs, facts)


def _starter(spec: KernelSpec, environments: Sequence[Environment], servers: Sequence[Environment]) -> str | None:
    """Return the Python whose jupyter_client starts the kernel: that of the server that would start it."""
    prefix = kernelspec.holder(spec.directory or "", [one.prefix for one in environments])
    if prefix is not None:
        return next(activation.python(one) for one in environments if one.prefix == prefix)
    if servers:
        return activation.python(servers[0])
    program = kernelspec.executable(spec) or ""
    return program if program.rpartition("/")[2].startswith("python") else None


def _shows(server: Environment, spec: KernelSpec, environments: Sequence[Environment]) -> bool:
    holder = kernelspec.holder(spec.directory or "", [one.prefix for one in environments])
    return holder is None or holder == server.prefix


# --- one kernel -----------------------------------------------------------------------------------------------------


def _judged(one: _Started, environments: Sequence[Environment], found: Findings) -> _Started:
    """Return the kernel with the verdict on whether and where it runs; add problems to `found`."""
    spec, facts = one.spec, one.facts
    promised = kernelspec.misnamed(spec, None, environments)
    own = kernelspec.holder(spec.directory or "", [env.prefix for env in environments]) is None
    again = f"jupyman kernel add {shlex.quote(promised or 'ENV')} --name {spec.name} --replace"
    if facts.one("missing") is not None:
        spec = kernels.gone(spec)
    if spec.ok is False:
        remove = f"jupyman kernel rm {spec.name}" if own else f"its owner must remove {spec.directory}"
        fix = f"{again}, or {remove}" if promised is not None and own else remove
        found.add("kernel-gone", f"kernel {spec.name}: {spec.problem}", fix, "error")
        return replace(one, spec=spec)
    if facts.one("unfinished") is not None:
        text = f"kernel {spec.name} was not started: environment {spec.environment} is not finished"
        found.add("kernel-unfinished", text, f"jupyman env create {spec.environment} resumes it", "info")
        return one
    if (foreign := facts.one("foreign")) is not None:
        text = (
            f"kernel {spec.name} was not started: others can change {clean(foreign)}, and their code would run as you"
        )
        found.add("kernel-foreign", text, f"jupyman kernel check {spec.name} starts it if you trust them", "info")
        return one
    failed = facts.one("failed")
    if failed is not None:
        return replace(one, spec=_broken(one, clean(failed, 300), found))
    if facts.one("ready") is None:  # the host has nothing that could start it
        return one
    seen, expected = facts.one("prefix"), facts.one("expected")
    if seen is not None and expected is not None and seen != expected:
        text = f"kernel {spec.name} belongs to {spec.prefix} and runs in {clean(seen)}"
        found.add("kernel-elsewhere", text, f"{again}, or correct its kernel.json in {spec.directory}")
    elif own and (wrong := kernelspec.misnamed(spec, one.runs, environments)) is not None:
        where = one.runs.name if one.runs is not None else clean(seen or spec.prefix or "another environment")
        text = f"kernel {spec.name} is shown as {spec.display_name!r} and runs in {where}, not in {wrong}"
        found.add("kernel-elsewhere", text, again)
    version = facts.one("ipywidgets")
    if version is None:
        return replace(one, spec=msgspec.structs.replace(spec, ok=True))
    if version.startswith("broken"):
        text = f"kernel {spec.name}: ipywidgets is installed but does not work: {clean(version[7:], 200)}"
        found.add("widgets-kernel", text, f"install it again in {spec.environment or spec.prefix}")
        return replace(one, spec=msgspec.structs.replace(spec, ok=True))
    half = widgets.in_kernel(None if version == "none" else clean(version, 40))
    return replace(one, spec=msgspec.structs.replace(spec, ok=True, ipywidgets=half.version), half=half)


def _broken(one: _Started, failed: str, found: Findings) -> KernelSpec:
    """Add the reason why a kernel does not start; return the kernel with it."""
    spec, ipykernel = one.spec, one.facts.one("ipykernel") or ""
    where = one.runs.name or one.runs.prefix if one.runs is not None else spec.prefix
    program = kernelspec.executable(spec)
    missing: tuple[Environment, str] | None = None
    if ipykernel == "none":
        problem, code = f"environment {where} has no ipykernel", "ipykernel-missing"
        fix = f"install ipykernel in {where}"
        missing = (one.runs, "ipykernel") if one.runs is not None else None
    elif ipykernel.startswith("broken"):
        problem, code = f"{program} cannot import ipykernel: {clean(ipykernel[7:], 200)}", "ipykernel-broken"
        fix = f"install ipykernel again in {where}"
    else:
        problem, code = f"it does not start: {failed}", "kernel-broken"
        fix = f"start it by hand on the host to see its output: {program or spec.name} -m ipykernel_launcher"
    found.add(code, f"kernel {spec.name}: {problem}", fix, "error", missing)
    return msgspec.structs.replace(spec, ok=False, problem=problem)


# --- widgets --------------------------------------------------------------------------------------------------------


def _widgets(
    started: Sequence[_Started],
    listing: Listing,
    environments: Sequence[Environment],
    servers: Sequence[Environment],
    found: Findings,
) -> None:
    """Compare the two halves of the widgets: each kernel's, and that of each server that shows it."""
    shown = {one.prefix: one for one in servers}
    for one in started:  # servers of another environment with Jupyter show the kernels there
        prefix = kernelspec.holder(one.spec.directory or "", [env.prefix for env in environments])
        if prefix in listing.fronts:
            shown.setdefault(prefix, next(env for env in environments if env.prefix == prefix))
    settled: set[str] = set()  # environments of kernels: one installation serves all kernels there
    for server in shown.values():
        front = listing.fronts.get(server.prefix)
        mine = [one for one in started if one.half is not None and _shows(server, one.spec, environments)]
        if front is None or not mine:
            continue
        if front.version is None:
            wanted = _wanted(mine)
            text = f"environment {server.name}, where Jupyter runs, has no {front.package}: widgets are not drawn there"
            need = widgets.requirement(front.package, wanted)
            found.add("widgets-server", text, f"install {need} in {server.name}", missing=(server, need))
            front = replace(front, generation=wanted)
        for one in mine:
            if one.spec.prefix not in settled:
                settled.add(one.spec.prefix or "")
                _kernel_half(one, front, server, found)


def _wanted(mine: Sequence[_Started]) -> widgets.Generation:
    """Return the generation of most kernels; when none has any, the newest that all their Pythons support."""
    have = Counter(one.half.generation for one in mine if one.half is not None and one.half.generation is not None)
    if have:
        return have.most_common(1)[0][0]
    empty = widgets.in_lab(None)
    return min(widgets.agreed(widgets.in_kernel(None), empty, one.facts.one("version")) or 8 for one in mine)


def _kernel_half(one: _Started, front: widgets.WidgetPart, server: Environment, found: Findings) -> None:
    half, spec = one.half, one.spec
    target = widgets.agreed(half, front, one.facts.one("version")) if half is not None else None
    if half is None or target is None:
        return
    where = spec.environment or spec.prefix
    need = widgets.requirement("ipywidgets", target)
    missing = (one.runs, need) if one.runs is not None else None
    if half.version is None:
        text = f'environment {where} has no ipywidgets: progress bars say "IProgress not found" (kernel {spec.name})'
        found.add("widgets-kernel", text, f"install {need} in {where}", missing=missing)
    elif half.generation != target:
        text = (
            f"ipywidgets {half.version} of {where} does not fit {front.package} of {server.name}: widgets show an error"
        )
        found.add("widgets-mismatch", text, f"install {need} in {where}", missing=missing)
    if front.generation is not None and front.generation != target:
        text = f"the Python of {where} is too old for the ipywidgets that {front.package} of {server.name} draws"
        found.add("widgets-mismatch", text, "create an environment with a newer Python for work that needs widgets")
