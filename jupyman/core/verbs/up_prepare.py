"""What is decided before a server is launched: its environment, GPUs, port, and the default kernel."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Literal

import msgspec

from jupyman import errors
from jupyman.api import Operation, Prompt, Up
from jupyman.core.runtime.progress import step
from jupyman.core.sessions.session_forward import DEFAULT_PORT
from jupyman.host.confirm import Confirm
from jupyman.host.kernels import specs
from jupyman.host.report import ports
from jupyman.host.servers.base import Found, Launcher, Record, UnmanagedServer
from jupyman.host.shell.script import CancellableShell
from jupyman.model import Environment, HostReport, LaunchSpec, OnConflict, PortHolder, Problem, Running, SessionSpec
from jupyman.ssh.link import Link
from jupyman.tools.envs import choice
from jupyman.tools.gpu import choose as gpu_choice

# As many as Jupyter itself would try (ServerApp.port_retries).
CANDIDATES = 50


class Preparation:
    """Decides it, step by step.

    Args:
        link: to the host.
        launcher: of the session, on that link.
        spec: what is wanted.
        request: the options of this command.
        report: of the host.
        found: the servers there.
        operation: shows the steps and asks the questions.
        sockets: sshd is not known to refuse UNIX sockets.
        ending: entered with the pid of the server that has the port, while that is ended.

    Attributes:
        problems: what did not stop the work.
    """

    def __init__(
        self,
        link: Link,
        launcher: Launcher,
        spec: SessionSpec,
        request: Up,
        report: HostReport,
        found: Found,
        operation: Operation,
        *,
        sockets: bool,
        ending: Callable[[int], AbstractContextManager[None]],
    ) -> None:
        self._link = link
        self._launcher = launcher
        self._spec = spec
        self._request = request
        self._report = report
        self._found = found
        self._operation = operation
        # An explicit --port or --on-conflict selects a TCP port. ("ask" is a terminal's default.)
        explicit = request.on_conflict not in {None, "ask"}
        explicit |= spec.on_conflict in {"kill", "fail"}  # also by config.toml
        self._socket = sockets and spec.port is None and not explicit
        # A user who already runs a Jupyter on the default port is asked whether to adopt that.
        occupied = any(server.port == DEFAULT_PORT for server in found.servers)
        if occupied and spec.on_conflict == "ask" and operation.client.interactive:
            self._socket = False
        self.problems: list[Problem] = []
        self._ending = ending

    def run(self, default_env: str | None) -> LaunchSpec | Running:
        """Decide everything.

        Args:
            default_env: of config.toml.

        Returns:
            What to launch; or a server of the user's own that they chose to adopt instead.

        Raises:
            JupymanError: what cannot be decided.
        """
        server_env, kernel_env = self._environments(default_env)
        gpus, visible = self._gpus()
        chosen = self._candidates() if self._socket else self._ports()
        if isinstance(chosen, Running):
            return chosen
        return LaunchSpec(
            name=self._spec.name,
            env=server_env,
            kernel_env=kernel_env,
            dir=self._spec.dir,
            app=self._spec.app,
            ports=chosen,
            sock=self._socket,
            scope=self._report.survival == "scope",
            cuda_visible_devices=visible,
            timeout=self._spec.timeout,
            kernel_name=self._kernel(kernel_env) if kernel_env is not None else None,
            gpus=gpus,
        )

    def _environments(self, default: str | None) -> tuple[Environment, Environment | None]:
        with step(self._operation, "environment", "choosing the environment") as progress:
            server_env, kernel_env = choice.choose(self._report, self._spec.env, default, self._spec.app)
            progress.text = f"environment {label(server_env)}: Jupyter {server_env.jupyter}, Python {server_env.python}"
            if kernel_env is not None:
                from_where = f"Jupyter {server_env.jupyter} from {label(server_env)}"
                progress.text = f"environment {label(kernel_env)}; {from_where}"
            shown = kernel_env or server_env
            verdict = next((v for v in self._report.verdicts if v.env in {shown.name, shown.prefix}), None)
            if verdict is not None and verdict.ok is False:
                progress.warn(f"{progress.text}; {verdict.text}")
                fix = verdict.fix or "see jupyman check for the build that fits"
                self.problems.append(Problem(code="torch-driver", severity="warning", text=verdict.text, fix=fix))
            elif verdict is not None:
                progress.text += f"; {verdict.text}"
        return server_env, kernel_env

    def _gpus(self) -> tuple[list[int] | None, str | None]:
        text = self._spec.gpu
        if text is None:
            return None, None
        with step(self._operation, "gpu", "choosing the GPU") as progress:
            others = (one for one in self._found.records if one.alive and one.name != self._spec.name)
            claimed = {index for one in others for index in one.running.server.gpus or ()}
            choice = gpu_choice.choose(gpu_choice.parse(text), self._report.gpus, claimed)
            progress.text = choice.reason
            if choice.shared is not None:
                progress.warn(f"{choice.reason}; {choice.shared}")
        return choice.indices, choice.visible

    # --- the port ---------------------------------------------------------------------------------------------------

    @staticmethod
    def _candidates() -> list[int]:
        """Return the ports for a server that is too old for a socket; the launch takes the first free one."""
        return list(range(DEFAULT_PORT, DEFAULT_PORT + CANDIDATES))

    def _ports(self) -> list[int] | Running:
        """Choose the candidate ports; a conflict is resolved as the user said."""
        preferred = self._spec.port or DEFAULT_PORT
        policy = self._spec.on_conflict
        where = f"port {preferred} on {self._spec.host}"
        looking = CancellableShell(self._link, self._operation.cancelled)
        with step(self._operation, "port", where) as progress:
            held = {holder.port: holder for holder in ports.who(looking)}
            free = [port for port in range(preferred, min(preferred + CANDIDATES, 65536)) if port not in held]
            holder = held.get(preferred)
            if holder is None:
                progress.text = f"port {preferred} is free on {self._spec.host}"
                return free if policy != "fail" else [preferred]
            record = next((one for one in self._found.records if one.alive and one.pid == holder.pid), None)
            foreign = next((one for one in self._found.servers if one.pid == holder.pid), None)
            server = record or foreign
            what = ports.describe(holder, jupyter=server is not None)
            if policy == "ask":
                answer = self._ask(f"{where} is held by {what}", holder, foreign)
                if answer == "adopt" and foreign is not None:
                    progress.text = f"{where} is your own Jupyter: adopting it"
                    return self._launcher.adopt(foreign, name=self._spec.name)
                policy = _POLICIES[answer]
            if policy == "fail":
                raise errors.PortInUse(f"{where} is taken: {what}", holder=msgspec.to_builtins(holder))
            if policy == "kill" and holder.ours:
                self._end(where, what, holder, server)
                progress.text = f"port {preferred} was held by {what}: ended it"
                return [preferred, *free]
            if not free:
                last = preferred + CANDIDATES - 1
                raise errors.PortInUse(f"ports {preferred} to {last} on {self._spec.host} are all taken")
            note = "" if holder.ours else ", not yours"
            progress.warn(f"port {preferred} is held by {what}{note}: using {free[0]}")
        return free

    def _ask(self, text: str, holder: PortHolder, foreign: UnmanagedServer | None) -> str:
        if not self._operation.client.interactive:
            return "next"
        choices = ["next", "cancel"]
        if holder.ours:
            choices.insert(1, "kill")
        if foreign is not None:
            choices.insert(0, "adopt")
        return self._operation.ask(Prompt(id="", kind="choice", text=text, choices=choices, default=choices[0]))

    def _end(self, where: str, what: str, holder: PortHolder, server: Record | UnmanagedServer | None) -> None:
        """End what holds the port: a Jupyter with its kernels, any other process alone."""
        if server is not None:
            with self._ending(server.pid):
                ended = self._launcher.stop(self._launcher.adopt(server, record=False), force=True)
        else:
            ended = ports.stop_process(self._link, holder, force=True)
        if not ended:
            raise errors.PortInUse(f"{where} could not be freed: {what} does not end")

    @property
    def _confirm(self) -> Confirm | None:
        def confirm(question: str, *, default: Literal["y", "n"] = "n") -> bool:
            prompt = Prompt(id="", kind="confirm", text=question, default=default)
            return self._operation.ask(prompt).lower() in {"y", "yes"}

        return confirm if self._operation.client.interactive else None

    # --- the kernel -------------------------------------------------------------------------------------------------

    def _kernel(self, environment: Environment) -> str | None:
        """Register the working environment as a kernel; return its name."""
        with step(self._operation, "kernel", f"kernel of {label(environment)}") as progress:
            install = specs.may_install(environment, self._request.install, self._confirm)
            if environment.ipykernel is None and not install:
                text = f"environment {label(environment)} has no ipykernel, so it is no kernel yet"
                fix = f"jupyman kernel add {label(environment)} --host {self._spec.host} --install"
                self.problems.append(Problem(code="kernel-missing", severity="warning", text=text, fix=fix))
                progress.warn(text)
                return None
            added = specs.add(
                self._link,
                environment,
                name=None,
                display_name=None,
                install=install,
                replace=False,
                proof=False,
                progress=progress.now,
                cancelled=self._operation.cancelled,
            )
            progress.text = f"kernel {added.kernel.name} runs {environment.prefix}"
            return added.kernel.name


_POLICIES: dict[str, OnConflict] = {"next": "next", "adopt": "next", "kill": "kill", "cancel": "fail"}


def label(environment: Environment) -> str:
    """Return what people call an environment."""
    return environment.name or environment.prefix
