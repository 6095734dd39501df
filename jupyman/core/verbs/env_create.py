"""`env create`: look at the host, work out the recipe, see that it can be done, leave it running, and watch it."""

from __future__ import annotations

import contextlib
import shlex
from dataclasses import dataclass
from typing import Any

import msgspec

from jupyman import api, errors
from jupyman.api import Operation
from jupyman.api.results import EnvCreated, KernelAdded, StepResult
from jupyman.core.links.hosts import Hosts
from jupyman.core.runtime.progress import step
from jupyman.core.sessions.registry import SessionRegistry
from jupyman.core.verbs.env_rm import remove_unfinished
from jupyman.core.verbs.host import connect, remember
from jupyman.host.envs.facilities import free, look, mib, place, quota_left
from jupyman.host.kernels import specs as kernels
from jupyman.host.report import probe
from jupyman.host.shell import jobs, script
from jupyman.host.shell.jobs import Ended, Job, JobSpec, KernelStep
from jupyman.host.shell.script import CancellableShell, Shell
from jupyman.model import Environment, HostReport, KernelSpec, Problem
from jupyman.tools.host import logind
from jupyman.tools.install import failures, mirrors
from jupyman.tools.install import plan as recipe
from jupyman.tools.install.mirrors import Mirror
from jupyman.tools.install.plan import InstallPlan
from jupyman.tools.install.request import EnvironmentRequest
from jupyman.tools.jupyter import kernelspec

SOURCE_LIMIT = 256 * 1024  # bytes of an environment.yml or requirements.txt


def create(
    request: api.EnvCreate, host: str, hosts: Hosts, sessions: SessionRegistry, operation: Operation
) -> EnvCreated:
    """Make an environment with its kernel.

    Raises:
        UsageFault: the name is taken, or the wish cannot be meant.
        EnvironmentMissing: the host has no such tool or Python.
        RemoteFailed: no room, no permission, or a step failed; details["log"] has its last lines.
        KernelFault: the environment is made, and its kernel does not run.
        LinkLost: the installation goes on.
        Interrupted: it was stopped; what this command began is gone.
    """
    recipe.check(_said(request))
    if request.source is not None and len(request.source.encode()) > SOURCE_LIMIT:
        raise errors.UsageFault(f"{request.source_name} is too large", f"at most {SOURCE_LIMIT // 1024} KiB")
    mirror = mirrors.find(request.mirror, hosts.config.mirrors) if request.mirror is not None else None
    return _Creation(request, host, connect(host, hosts, operation), sessions, operation, mirror).run()


def _said(request: api.EnvCreate) -> EnvironmentRequest:
    return EnvironmentRequest(**{key: getattr(request, key) for key in EnvironmentRequest.__struct_fields__})


@dataclass
class _Watched:
    """What was seen of an installation: the steps by their keys."""

    made: dict[str, StepResult]


class _Creation:
    """One run of it."""

    def __init__(
        self,
        request: api.EnvCreate,
        host: str,
        link: Shell,
        sessions: SessionRegistry,
        operation: Operation,
        mirror: Mirror | None,
    ) -> None:
        self.request = request
        self.host = host
        self.link = link
        self.sessions = sessions
        self.operation = operation
        self.mirror = mirror
        self.problems: list[Problem] = []

    def run(self) -> EnvCreated:
        """Do it."""
        request, name = self.request, self.request.name
        looking = CancellableShell(self.link, self.operation.cancelled)
        with step(self.operation, "probe", "looking at the host") as progress:
            report = probe.probe(looking, self.host, depth="full", directory=None)
            remember(self.host, report, self.sessions)
            earlier = next((job for job in jobs.find(looking) if job.name == name and job.new), None)
            means = look(looking, report)
            tools = ", ".join(dict.fromkeys(tool.kind for tool in means.tools)) or "no installer but Python's own"
            progress.text = f"{report.os or 'unknown system'}, {report.user}; {tools}"
        if earlier is not None and earlier.state == "running":
            # Another one of this name is under way: nothing to be said twice.
            return self._watch(earlier.prefix, earlier.tool or "?", {}, began=False)
        wish = self._wish(looking, earlier)
        with step(self.operation, "recipe", "working out the steps") as progress:
            made = recipe.plan(wish, means, self.mirror)
            progress.text = f"{made.tool.kind} makes {made.prefix}"
            for note in made.notes:
                progress.text += f"; {note}"
        spec = self._kernel(looking, report, made)
        kernel = KernelStep(
            arguments=kernels.arguments(
                made.environment,
                name=spec,
                display_name=None,
                install=False,
                replace=request.replace,
                proof=True,
            ),
            shown=[
                made.environment.executable or "python",
                *("-m", "ipykernel", "install", "--user", "--name", spec),
                *("--display-name", kernelspec.display_name_for(made.environment)),
            ],
        )
        steps = {one.key: StepResult(key=one.key, text=one.text, command=one.argv) for one in made.steps}
        steps["kernel"] = StepResult(key="kernel", text=f"kernel {spec}, and a cell run in it", command=kernel.shown)
        self._possible(looking, report, made)
        if request.dry_run:
            return EnvCreated(
                name=name, prefix=made.prefix, tool=made.tool.kind, state="planned", steps=list(steps.values())
            )
        order = JobSpec(
            name=name,
            prefix=made.prefix,
            tool=made.tool.kind,
            new=True,
            conda=made.tool.kind in recipe.CONDA,
            steps=made.steps,
            kernel=kernel,
            wish=msgspec.json.encode(wish).decode(),
            file=made.file,
            text=wish.source or "",
            scope=report.survival == "scope",
        )
        with step(self.operation, "begin", "starting the installation") as progress:
            how = jobs.start(self.link, order)
            where = f"on {self.host}, whoever goes away"
            progress.text = {
                "begun": f"the installation runs {where}",
                "resumed": f"the installation goes on where it was broken off, {where}",
                "existing": f"the installation runs already {where}",
            }[how]
        if report.survival == "logout":
            self.problems.append(logind.ends_at_logout(report.user or ""))
        if request.detach:
            self._say_how_to_watch()
            return EnvCreated(
                name=name,
                prefix=made.prefix,
                tool=made.tool.kind,
                state="installing",
                steps=list(steps.values()),
                problems=self.problems,
            )
        return self._watch(made.prefix, made.tool.kind, steps, began=how == "begun", environment=made.environment)

    # --- before anything is touched -------------------------------------------------------------------------------

    def _wish(self, shell: Shell, earlier: Job | None) -> EnvironmentRequest:
        """Return what is wanted: what was said, or where only a name was said what an earlier try was made for."""
        request = self.request
        wish = _said(request)
        if not wish.bare or earlier is None or earlier.state == "done":
            return wish
        facts = place(shell, "", request.name)
        kept = jobs.decode_wish(facts.one("wish"), EnvironmentRequest)
        if not isinstance(kept, EnvironmentRequest):
            return wish
        self.operation.emit(
            api.Step(key="resume", text=f"going on with {request.name} as it was begun", state="done", seconds=None)
        )
        return msgspec.structs.replace(kept, name=request.name)

    def _kernel(self, shell: Shell, report: HostReport, made: InstallPlan) -> str:
        """Return the kernel's name; a name that another environment has is refused before the long work."""
        wanted = self.request.kernel
        name = kernelspec.checked_name(wanted) if wanted is not None else kernelspec.name_for(made.environment)
        for spec in kernels.ls(shell, report.environments).specs:
            if spec.name == name and _own(spec, report.home) and not self.request.replace:
                if (spec.prefix or "").rstrip("/") == made.prefix:
                    continue
                raise errors.UsageFault(
                    f"kernel {name} already runs another environment ({spec.prefix or spec.directory})",
                    "choose another name with --kernel, or say --replace",
                )
        return name

    def _possible(self, shell: Shell, report: HostReport, made: InstallPlan) -> None:
        """See that there is room and permission, and that nothing is in the way."""
        name = self.request.name
        taken = [one for one in report.environments if one.name == name and one.state == "ready"]
        if taken:
            raise errors.UsageFault(
                f"{self.host} has an environment {name} already: {taken[0].prefix}",
                f"choose another name, or jupyman env rm {name} first",
            )
        with step(self.operation, "room", f"room in {made.prefix.rpartition('/')[0]}") as progress:
            facts = place(shell, made.prefix, name)
            if facts.one("exists") is not None and facts.one("incomplete") is None:
                raise errors.UsageFault(f"{made.prefix} exists already", "choose another name, or another --dir")
            if facts.one("writable") != "yes":
                raise errors.RemoteFailed(
                    f"no permission to write in {facts.one('folder')}",
                    "leave --dir out, or choose a folder of your own" if self.request.dir else "ask the host's admin",
                )
            room = free(facts.one("disk"))
            quota = quota_left(report, made.prefix)
            left = min((one for one in (room, quota) if one is not None), default=None)
            progress.text = f"{mib(left)} are free, about {mib(made.room)} are needed"
            # What an interrupted one has put there is counted against it once more: better than a full disk.
            if left is not None and left < made.room:
                which = "of your quota" if quota is not None and left == quota else f"in {facts.one('folder')}"
                raise errors.RemoteFailed(
                    f"only {mib(left)} are left {which}, and about {mib(made.room)} are needed",
                    "make room, or choose a folder on another disk with --dir",
                    free=left,
                    needed=made.room,
                )

    # --- while it runs --------------------------------------------------------------------------------------------

    def _say_how_to_watch(self) -> None:
        name = self.request.name
        text = f"jupyman env logs {name} --host {self.host} -f shows how it goes on"
        self.operation.emit(api.Step(key="watch", text=text, state="done", seconds=None))

    def _watch(
        self,
        prefix: str,
        tool: str,
        steps: dict[str, StepResult],
        *,
        began: bool,
        environment: Environment | None = None,
    ) -> EnvCreated:
        name = self.request.name
        watched = _Watched(dict(steps))
        try:
            ended = watch(self.link, name, self.operation, watched.made)
        except errors.LinkLost as error:
            raise errors.LinkLost(
                f"{error.message}; the installation of {name} goes on without it",
                f"jupyman env logs {name} --host {self.host} -f shows it again when the network is back",
            ) from error
        except errors.Interrupted:
            if not began:
                raise errors.Interrupted(
                    "interrupted", f"the installation goes on; jupyman env rm {name} stops and removes it"
                ) from None
            # What this command began, it takes back.
            with contextlib.suppress(errors.LinkLost, errors.RemoteFailed):
                remove_unfinished(self.link, name, prefix)
            raise
        kernel = conclude(name, ended, self.host, environment)
        found = self._look_again(prefix)
        for one in watched.made.values():
            if one.state == "warn":
                text = f"{one.text}: it does not (see jupyman env logs {name})"
                self.problems.append(
                    Problem(code="env-step", severity="warning", text=text, fix=f"jupyman check {self.host}")
                )
        return EnvCreated(
            name=name,
            prefix=prefix,
            tool=tool,
            state="done",
            steps=list(watched.made.values()),
            environment=found,
            kernel=kernel,
            problems=self.problems,
        )

    def _look_again(self, prefix: str) -> Environment | None:
        with step(self.operation, "look", "looking at what was made") as progress:
            report = probe.probe(self.link, self.host, depth="launch", directory=None, extra=[prefix])
            remember(self.host, report, self.sessions)
            found = next((one for one in report.environments if one.prefix.rstrip("/") == prefix), None)
            if found is None:
                progress.warn(f"{prefix} is not found again")
                return None
            verdict = next((one for one in report.verdicts if one.env == found.prefix), None)
            progress.text = f"environment {found.name}: Python {found.python}"
            if verdict is not None:
                progress.text += f"; {verdict.text}"
        return found


def watch(shell: Shell, name: str, operation: Operation, made: dict[str, StepResult]) -> Ended:
    """Follow an installation to its end and show its steps.

    Args:
        shell: the host.
        name: of the installation.
        operation: whom to show it.
        made: the steps by their keys; states and seconds are put in.
    """
    texts: dict[str, str] = {}

    def begin(key: str, text: str) -> None:
        texts[key] = text
        command = made[key].command if key in made else []
        if command:
            # Before it runs, what runs.
            operation.emit(api.Step(key=f"{key}-command", text=f"$ {shlex.join(command)}", state="skip"))
        operation.emit(api.Step(key=key, text=text, state="run"))

    def end(key: str, state: str, seconds: float) -> None:
        text = texts.get(key, key)
        one = made.get(key) or StepResult(key=key, text=text, command=[])
        made[key] = msgspec.structs.replace(one, state=state, seconds=seconds)
        if state == "failed":
            operation.emit(api.Step(key=key, text=f"{text}: failed", state="warn", seconds=seconds))
        elif state == "skip":
            operation.emit(api.Step(key=key, text=f"{text}: done before", state="skip", seconds=None))
        else:
            shown: Any = "warn" if state == "warn" else "done"
            operation.emit(api.Step(key=key, text=text, state=shown, seconds=seconds))

    def last(line: str) -> None:
        if texts:
            key, text = next(reversed(texts.items()))
            operation.emit(api.Step(key=key, text=f"{text}: {line}", state="run"))

    return jobs.follow(shell, name, on_begin=begin, on_end=end, on_last=last, cancelled=operation.cancelled)


def conclude(
    name: str, ended: Ended, host: str, environment: Environment | None, again: str = ""
) -> KernelAdded | None:
    """Return the kernel of an installation that succeeded, and raise for one that did not.

    Args:
        name: of the installation.
        ended: how it ended.
        host: its name.
        environment: that was made; None: one that was there was changed, or it is not known here.
        again: what to do then, where it is not `env create`.

    Raises:
        KernelFault, UsageFault, RemoteFailed: what went wrong.
    """
    if ended.state == "done":
        if environment is None or not ended.answer.lines:
            return None
        spec = (ended.answer.one("directory") or "").rpartition("/")[2]
        return kernels.added(ended.answer, environment, spec, proof=True)
    again = again or f"jupyman env create {name} goes on, jupyman env rm {name} removes what is there"
    if ended.state == "interrupted":
        raise errors.RemoteFailed(f"the installation of {name} was ended from outside at: {ended.text}", again)
    failed = script.failure(ended.answer) if ended.key == "kernel" else None
    if failed is not None:
        failed.hint = f"the environment is there; jupyman kernel add {name} --host {host}. {failed.hint}"
        raise failed
    reason = failures.reason(ended.log)
    raise errors.RemoteFailed(
        f"{ended.text or 'a step'} failed (status {ended.code}): {reason.text}",
        f"{reason.hint.replace('NAME', name)}; {again}",
        log=ended.log[-15:],
        kind=reason.kind,
        step=ended.key,
    )


def _own(spec: KernelSpec, home: str | None) -> bool:
    """Whether a spec lies in the account's own folder: only such a one would be replaced."""
    return home is not None and (spec.directory or "").startswith(f"{home.rstrip('/')}/.local/")
