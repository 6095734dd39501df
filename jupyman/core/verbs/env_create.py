"""`env create`: look at the host, plan the steps, check that they are possible, start them, and watch them."""

from __future__ import annotations

import contextlib

import msgspec

from jupyman import api, errors, rules
from jupyman.api.results import EnvCreated, StepResult
from jupyman.core.verbs.env_job import conclude, watch
from jupyman.core.verbs.env_rm import remove_unfinished
from jupyman.core.verbs.host_call import HostCall
from jupyman.host.envs.facilities import free, look, place, quota_left
from jupyman.host.kernels import specs as kernels
from jupyman.host.report import probe
from jupyman.host.shell import jobs
from jupyman.host.shell.jobs import Job, JobSpec, KernelStep
from jupyman.host.shell.script import Shell
from jupyman.model import Environment, HostReport, KernelSpec, Problem
from jupyman.model.problem_codes import new_problem
from jupyman.tools.host import logind
from jupyman.tools.install import mirrors
from jupyman.tools.install import plan as install_plan
from jupyman.tools.install.mirrors import Mirror
from jupyman.tools.install.plan import InstallPlan
from jupyman.tools.install.request import EnvironmentRequest
from jupyman.tools.jupyter import kernelspec

SOURCE_LIMIT = 256 * 1024  # bytes of an environment.yml or requirements.txt


def create(request: api.EnvCreate, call: HostCall) -> EnvCreated:
    """Make an environment with its kernel.

    Raises:
        UsageFault: the name is taken, or the request contradicts itself.
        EnvironmentMissing: the host has no such tool or Python.
        RemoteFailed: no room, no permission, or a step failed; details["log"] has its last lines.
        KernelFault: the environment is made, and its kernel does not run.
        LinkLost: the installation keeps running.
        Interrupted: it was cancelled; what this command started is removed.
    """
    install_plan.check(_environment_request(request))
    if request.source is not None and len(request.source.encode()) > SOURCE_LIMIT:
        raise errors.UsageFault(f"{request.source_name} is too large", f"at most {SOURCE_LIMIT // 1024} KiB")
    mirror = mirrors.find(request.mirror, call.hosts.config.mirrors) if request.mirror is not None else None
    call.connect()
    return _Creation(request, call, mirror).run()


def _environment_request(request: api.EnvCreate) -> EnvironmentRequest:
    return EnvironmentRequest(**{key: getattr(request, key) for key in EnvironmentRequest.__struct_fields__})


class _Creation:
    """One run of `env create`."""

    def __init__(self, request: api.EnvCreate, call: HostCall, mirror: Mirror | None) -> None:
        self.request = request
        self.call = call
        self.mirror = mirror
        self.problems: list[Problem] = []

    def run(self) -> EnvCreated:
        request, call, name = self.request, self.call, self.request.name
        with call.step("probe", "looking at the host") as progress:
            report = probe.probe(call.shell, call.host, depth="full", directory=None)
            call.remember_environments(report)
            earlier = next((job for job in jobs.find(call.shell) if job.name == name and job.new), None)
            installers = look(call.shell, report)
            tools = ", ".join(dict.fromkeys(tool.kind for tool in installers.tools))
            tools = tools or "no installer except Python's own"
            progress.text = f"{report.os or 'unknown system'}, {report.user}; {tools}"
        if earlier is not None and earlier.state == "running":
            # One of this name is under way: it is watched, not started a second time.
            return self._watch(earlier.prefix, earlier.tool or "?", {}, began=False)
        wanted = self._wanted(call.shell, earlier)
        with call.step("recipe", "planning the steps") as progress:
            plan = install_plan.plan(wanted, installers, self.mirror)
            progress.text = "; ".join([f"{plan.tool.kind} makes {plan.prefix}", *plan.notes])
        kernel_name = self._kernel_name(call.shell, report, plan)
        kernel = self._kernel_step(plan, kernel_name)
        steps = {one.key: StepResult(key=one.key, text=one.text, command=one.argv) for one in plan.steps}
        steps["kernel"] = StepResult(
            key="kernel", text=f"kernel {kernel_name}, and a cell run in it", command=kernel.shown
        )
        self._check_possible(call.shell, report, plan)
        if request.dry_run:
            return EnvCreated(
                name=name, prefix=plan.prefix, tool=plan.tool.kind, state="planned", steps=list(steps.values())
            )
        job = JobSpec(
            name=name,
            prefix=plan.prefix,
            tool=plan.tool.kind,
            new=True,
            conda=plan.tool.kind in install_plan.CONDA,
            steps=plan.steps,
            kernel=kernel,
            wish=msgspec.json.encode(wanted).decode(),
            file=plan.file,
            text=wanted.source or "",
            scope=report.survival == "scope",
        )
        with call.step("begin", "starting the installation") as progress:
            how = jobs.start(call.link, job)
            progress.text = {
                "begun": f"the installation keeps running on {call.host} even if you disconnect",
                "resumed": f"the installation resumes, and keeps running on {call.host} even if you disconnect",
                "existing": f"the installation is already running on {call.host}",
            }[how]
        if report.survival == "logout":
            self.problems.append(logind.ends_at_logout(report.user or ""))
        if request.detach:
            call.report("watch", f"jupyman env logs {name} --host {call.host} -f shows its progress")
            return EnvCreated(
                name=name,
                prefix=plan.prefix,
                tool=plan.tool.kind,
                state="installing",
                steps=list(steps.values()),
                problems=self.problems,
            )
        return self._watch(plan.prefix, plan.tool.kind, steps, began=how == "begun", environment=plan.environment)

    # --- before anything is touched -------------------------------------------------------------------------------

    def _wanted(self, shell: Shell, earlier: Job | None) -> EnvironmentRequest:
        """Return the given options; if only a name was given, those of the unfinished installation of that name."""
        request = self.request
        said = _environment_request(request)
        if not said.bare or earlier is None or earlier.state == "done":
            return said
        facts = place(shell, "", request.name)
        kept = jobs.decode_wish(facts.one("wish"), EnvironmentRequest)
        if not isinstance(kept, EnvironmentRequest):
            return said
        self.call.report("resume", f"resuming {request.name} with its earlier options")
        return msgspec.structs.replace(kept, name=request.name)

    def _kernel_name(self, shell: Shell, report: HostReport, plan: InstallPlan) -> str:
        """Return the kernel's name; a name that another environment has is refused before the long work."""
        wanted = self.request.kernel
        name = kernelspec.checked_name(wanted) if wanted is not None else kernelspec.name_for(plan.environment)
        for spec in kernels.ls(shell, report.environments).specs:
            if spec.name == name and _own(spec, report.home) and not self.request.replace:
                if (spec.prefix or "").rstrip("/") == plan.prefix:
                    continue
                raise errors.UsageFault(
                    f"kernel {name} already runs another environment ({spec.prefix or spec.directory})",
                    "choose another name with --kernel, or add --replace",
                )
        return name

    def _kernel_step(self, plan: InstallPlan, name: str) -> KernelStep:
        """Return the last step: the kernel, and the command that is shown for it."""
        return KernelStep(
            arguments=kernels.arguments(
                plan.environment,
                name=name,
                display_name=None,
                install=False,
                replace=self.request.replace,
                proof=True,
            ),
            shown=[
                plan.environment.executable or "python",
                *("-m", "ipykernel", "install", "--user", "--name", name),
                *("--display-name", kernelspec.display_name_for(plan.environment)),
            ],
        )

    def _check_possible(self, shell: Shell, report: HostReport, plan: InstallPlan) -> None:
        """Check for room and permission, and that the name and the folder are free."""
        name, host = self.request.name, self.call.host
        taken = [one for one in report.environments if one.name == name and one.state == "ready"]
        if taken:
            raise errors.UsageFault(
                f"{host} already has an environment {name}: {taken[0].prefix}",
                f"choose another name, or run jupyman env rm {name} first",
            )
        with self.call.step("room", f"room in {plan.prefix.rpartition('/')[0]}") as progress:
            facts = place(shell, plan.prefix, name)
            if facts.one("exists") is not None and facts.one("incomplete") is None:
                raise errors.UsageFault(f"{plan.prefix} already exists", "choose another name, or another --dir")
            if facts.one("writable") != "yes":
                raise errors.RemoteFailed(
                    f"no permission to write in {facts.one('folder')}",
                    "leave --dir out, or choose a folder of your own" if self.request.dir else "ask the host's admin",
                )
            room = free(facts.one("disk"))
            quota = quota_left(report, plan.prefix)
            left = min((one for one in (room, quota) if one is not None), default=None)
            progress.text = f"{rules.size(left)} are free, about {rules.size(plan.room)} are needed"
            # What an interrupted installation has written is counted twice: better than a full disk.
            if left is not None and left < plan.room:
                which = "of your quota" if quota is not None and left == quota else f"in {facts.one('folder')}"
                raise errors.RemoteFailed(
                    f"only {rules.size(left)} are left {which}, and about {rules.size(plan.room)} are needed",
                    "make room, or choose a folder on another disk with --dir",
                    free=left,
                    needed=plan.room,
                )

    # --- while it runs --------------------------------------------------------------------------------------------

    def _watch(
        self,
        prefix: str,
        tool: str,
        steps: dict[str, StepResult],
        *,
        began: bool,
        environment: Environment | None = None,
    ) -> EnvCreated:
        """Watch the installation to its end.

        Args:
            prefix: of the environment.
            tool: that makes it.
            steps: by their keys; their states are filled in.
            began: this command started it, and removes it when it is cancelled.
            environment: the one that is made; None: not known here.
        """
        name, host = self.request.name, self.call.host
        try:
            ended = watch(self.call, name, steps)
        except errors.LinkLost as error:
            raise errors.LinkLost(
                f"{error.message}; the installation of {name} keeps running",
                f"jupyman env logs {name} --host {host} -f shows it again when the network is back",
            ) from error
        except errors.Interrupted:
            if not began:
                raise errors.Interrupted(
                    "interrupted", f"the installation keeps running; jupyman env rm {name} stops and removes it"
                ) from None
            with contextlib.suppress(errors.LinkLost, errors.RemoteFailed):
                remove_unfinished(self.call, name, prefix)
            raise
        kernel = conclude(name, ended, host, environment)
        found = self._look_again(prefix)
        for one in steps.values():
            if one.state == "warn":
                text = f"{one.text}: failed (see jupyman env logs {name})"
                self.problems.append(new_problem("env-step", text, f"jupyman check {host}"))
        return EnvCreated(
            name=name,
            prefix=prefix,
            tool=tool,
            state="done",
            steps=list(steps.values()),
            environment=found,
            kernel=kernel,
            problems=self.problems,
        )

    def _look_again(self, prefix: str) -> Environment | None:
        call = self.call
        with call.step("look", "looking at the new environment") as progress:
            report = probe.probe(call.link, call.host, depth="launch", directory=None, extra=[prefix])
            call.remember_environments(report)
            found = next((one for one in report.environments if one.prefix.rstrip("/") == prefix), None)
            if found is None:
                progress.warn(f"{prefix} cannot be found")
                return None
            verdict = next((one for one in report.verdicts if one.env == found.prefix), None)
            progress.text = f"environment {found.name}: Python {found.python}"
            if verdict is not None:
                progress.text += f"; {verdict.text}"
        return found


def _own(spec: KernelSpec, home: str | None) -> bool:
    """Whether a spec is in the account's own folder: only such a one would be replaced."""
    return home is not None and (spec.directory or "").startswith(f"{home.rstrip('/')}/.local/")
