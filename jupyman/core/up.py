"""`up`: make the session exist, step by step."""

from __future__ import annotations

import logging
import threading

import msgspec

from jupyman import errors
from jupyman.api import Operation, Prompt, Up
from jupyman.core import answer, kernels, ports, probe
from jupyman.core.hosts import Hosts
from jupyman.core.launchers import nohup
from jupyman.core.sessions import Live, Sessions
from jupyman.core.steps import step
from jupyman.core.supervisor import Supervisor
from jupyman.model import (
    Environment,
    HostReport,
    LaunchSpec,
    PortHolder,
    Problem,
    Running,
    Session,
    SessionSpec,
    Verdict,
)
from jupyman.ssh.link import Link
from jupyman.tools import gpu_choice

log = logging.getLogger(__name__)

DEFAULT_PORT = 8888
# As many as Jupyter itself would try (ServerApp.port_retries).
CANDIDATES = 50


class UpFlow:
    """One run of `up` for one session.

    Args:
        hosts: to reach the host.
        sessions: where the result is kept.
        request: what the user said; None fields were not said.
        spec: the wish: what was said, then the stored session, then config.toml.
        explicit_name: the user said ``--name``.
    """

    def __init__(
        self, hosts: Hosts, sessions: Sessions, request: Up, spec: SessionSpec, *, explicit_name: bool
    ) -> None:
        self._hosts = hosts
        self._sessions = sessions
        self._request = request
        self._spec = spec
        self._explicit_name = explicit_name
        self._problems: list[Problem] = []

    def run(self, operation: Operation) -> Session:
        """Do it.

        Args:
            operation: whom to show the steps, and who may cancel.

        Returns:
            The running session.

        Raises:
            JupymanError: what stood in the way; nothing half-made is left.
        """
        spec = self._spec
        supervisor = self._hosts.supervisor(spec.host, operation.client)
        with self._sessions.lock:
            live = self._sessions.live.get(spec.name)
            fresh = live is None
            if live is None:
                live = Live(spec=spec, state="starting")
                self._sessions.live[spec.name] = live
        before = live.spec, live.state
        launched: Running | None = None
        link: Link | None = None
        try:
            with step(operation, "connect", f"connecting to {spec.host}") as progress:
                link = supervisor.acquire(operation)
                progress.text = f"connected to {spec.host}"
            running = self._resume(link, live, operation)
            if running is None:
                self._permitted(link, spec)
                report, found = self._look(link, operation)
                running = self._adopt(link, found, operation)
                if running is None:
                    live.state = "starting"
                    running = launched = self._launch(link, supervisor, report, found, operation)
            self._forward(supervisor, live, running, operation)
            self._prove(link, live, running, operation)
        except BaseException:
            if launched is not None and link is not None:
                self._undo(link, launched)
            if fresh:
                self._sessions.remove(spec.name)
                if not self._sessions.wanted(spec.host):
                    supervisor.want(wanted=False)
            else:
                live.spec, live.state = before
            raise
        live.spec = msgspec.structs.replace(
            spec,
            wanted=True,
            pid=running.server.pid,
            local_port=live.listener.local_port if live.listener is not None else None,
        )
        live.problems = self._problems
        live.settled.set()
        supervisor.want(wanted=True)
        self._sessions.save()
        return live.view(supervisor.status)

    # --- the steps ------------------------------------------------------------------------------------------------

    def _resume(self, link: Link, live: Live, operation: Operation) -> Running | None:
        """Return the session's own server where it still runs."""
        if live.running is None:
            return None
        with step(operation, "verify", "looking for the session's server") as progress:
            liveness = nohup.verify(link, live.running)
            if liveness.ok:
                self._unchanged(live, live.running)
                progress.text = f"server runs (pid {live.running.server.pid})"
                return live.running
            progress.warn(f"the session's server is gone: {liveness.text}")
        live.running = None
        return None

    def _unchanged(self, live: Live, running: Running) -> None:
        """Refuse options that the running server does not have."""
        server = running.server
        asked = self._request
        differs: list[str] = []
        if asked.env is not None and not _same_env(asked.env, server.kernel_env or server.env, live.spec.env):
            differs.append(f"--env {asked.env} (it runs {server.kernel_env or server.env})")
        if asked.dir is not None and asked.dir != live.spec.dir and asked.dir != server.root_dir:
            differs.append(f"--dir {asked.dir} (it runs in {server.root_dir})")
        if asked.app is not None and asked.app != server.app:
            differs.append(f"--app {asked.app} (it runs {server.app})")
        if asked.gpu is not None and asked.gpu != live.spec.gpu:
            differs.append(f"--gpu {asked.gpu} (it runs with {live.spec.gpu or 'none set'})")
        if differs:
            raise errors.UsageFault(
                f"session {live.spec.name} already runs otherwise: {'; '.join(differs)}",
                f"leave the option out, use another --name, or jupyman kill {live.spec.name} first",
            )

    def _permitted(self, link: Link, spec: SessionSpec) -> None:
        """Find out before anything is started whether sshd lets us forward."""
        try:
            link.open_channel(("127.0.0.1", spec.port or DEFAULT_PORT)).close()
        except errors.ForwardingRefused as error:
            # Refused by the target is an answer too: sshd let us try.
            if not error.details.get("target_refused"):
                raise

    def _look(self, link: Link, operation: Operation) -> tuple[HostReport, nohup.Found]:
        spec = self._spec
        with step(operation, "probe", "looking at the host") as progress:
            found: list[nohup.Found | BaseException] = []

            def search() -> None:
                try:
                    found.append(nohup.find(link))
                except BaseException as error:  # noqa: BLE001 - raised again below, in the thread that waits
                    found.append(error)

            # Both at once: a probe is a round trip and some 100 ms of shell.
            helper = threading.Thread(target=search, name="find servers", daemon=True)
            helper.start()
            report = probe.probe(link, spec.host, depth="launch", directory=spec.dir)
            helper.join()
            if isinstance(found[0], BaseException):
                raise found[0]
            conda = sum(environment.kind in {"conda", "mamba", "micromamba"} for environment in report.environments)
            progress.text = (
                f"{report.os or 'unknown system'}, {report.user}, {len(report.environments)} environments ({conda} conda)"
            )
        with step(operation, "cuda", "CUDA") as progress:
            progress.text = _cuda_text(report)
        self._problems += [problem for problem in report.problems if problem.severity != "info"]
        return report, found[0]

    def _adopt(self, link: Link, found: nohup.Found, operation: Operation) -> Running | None:
        """Take over a server that already runs: this session's from another computer, or one that is asked for."""
        spec = self._spec
        taken = {
            live.running.server.pid for live in self._sessions.on(spec.host) if live.running and live.spec.name != spec.name
        }
        records = [record for record in found.records if record.alive and record.pid not in taken]
        chosen = next((record for record in records if record.name == spec.name), None)
        if chosen is None and not self._explicit_name and len(records) == 1:
            chosen = records[0]
        if chosen is not None:
            with step(operation, "adopt", "adopting the running server") as progress:
                running = nohup.adopt(link, chosen)
                progress.text = f"adopted the server that runs on {spec.host} (pid {running.server.pid})"
            live = Live(spec=spec, running=running)
            self._unchanged(live, running)
            return running
        asked = self._request
        shaping = (asked.env, asked.dir, asked.app, asked.gpu)
        foreign = [server for server in found.servers if server.pid not in taken]
        wanted = [server for server in foreign if asked.port is not None and server.port == asked.port]
        if not wanted and self._explicit_name and asked.port is None and all(option is None for option in shaping):
            wanted = foreign
        if self._explicit_name and len(wanted) == 1:
            with step(operation, "adopt", "adopting your running server") as progress:
                running = nohup.adopt(link, wanted[0], name=spec.name)
                progress.text = f"adopted your server on port {running.server.port} (pid {running.server.pid})"
            return running
        return None

    def _launch(
        self, link: Link, supervisor: Supervisor, report: HostReport, found: nohup.Found, operation: Operation
    ) -> Running:
        spec = self._spec
        with step(operation, "environment", "choosing the environment") as progress:
            default = self._hosts.entry(spec.host).env or self._hosts.config.defaults.env
            server_env, kernel_env = probe.choose(report, spec.env, default, spec.app)
            progress.text = f"environment {_label(server_env)}: Jupyter {server_env.jupyter}, Python {server_env.python}"
            if kernel_env is not None:
                progress.text = f"environment {_label(kernel_env)}; Jupyter {server_env.jupyter} from {_label(server_env)}"
            shown = kernel_env or server_env
            verdict = next((v for v in report.verdicts if v.env in {shown.name, shown.prefix}), None)
            if verdict is not None and verdict.ok is False:
                progress.warn(f"{progress.text}; {verdict.text}")
                self._problems.append(_unfit(verdict))
        indices, visible = self._gpus(report, operation)
        candidates, adopted = self._ports(link, found, operation)
        if adopted is not None:
            return adopted
        kernel_name = self._kernel(link, kernel_env, operation) if kernel_env is not None else None
        with step(operation, "launch", "starting Jupyter under nohup") as progress:
            running = nohup.launch(
                link,
                LaunchSpec(
                    name=spec.name,
                    env=server_env,
                    kernel_env=kernel_env,
                    dir=spec.dir,
                    app=spec.app,
                    ports=candidates,
                    cuda_visible_devices=visible,
                    timeout=spec.timeout,
                    kernel_name=kernel_name,
                    gpus=indices,
                ),
                progress=progress.now,
                cancelled=operation.cancelled,
            )
            progress.text = f"Jupyter runs on {spec.host} port {running.server.port} (pid {running.server.pid})"
        return running

    def _gpus(self, report: HostReport, operation: Operation) -> tuple[list[int] | None, str | None]:
        text = self._spec.gpu
        if text is None:
            return None, None
        with step(operation, "gpu", "choosing the GPU") as progress:
            indices, visible, reason = gpu_choice.choose(gpu_choice.parse(text), report.gpus)
            progress.text = reason
        return indices, visible

    def _ports(
        self, link: Link, found: nohup.Found, operation: Operation
    ) -> tuple[list[int], Running | None]:
        """Choose the candidate ports; a conflict is settled as the user said."""
        spec = self._spec
        preferred = spec.port or DEFAULT_PORT
        with step(operation, "port", f"port {preferred} on {spec.host}") as progress:
            held = {holder.port: holder for holder in ports.who(link)}
            policy = spec.on_conflict
            free = [port for port in range(preferred, min(preferred + CANDIDATES, 65536)) if port not in held]
            holder = held.get(preferred)
            if holder is None:
                progress.text = f"port {preferred} is free on {spec.host}"
                return (free if policy != "fail" else [preferred]), None
            jupyter = next((server for server in found.servers if server.pid == holder.pid), None)
            record = next((one for one in found.records if one.alive and one.pid == holder.pid), None)
            what = ports.describe(holder, jupyter=jupyter is not None or record is not None)
            if policy == "ask" and operation.client.interactive:
                policy, adopt = self._ask_port(what, holder, operation, adoptable=jupyter is not None)
                if adopt and jupyter is not None:
                    return free, nohup.adopt(link, jupyter, name=spec.name)
            if policy == "fail":
                raise errors.PortInUse(f"port {preferred} on {spec.host} is taken: {what}", holder=msgspec.to_builtins(holder))
            if policy == "kill" and holder.ours:
                if not ports.stop_process(link, holder, force=True):
                    raise errors.PortInUse(f"port {preferred} on {spec.host} could not be freed: {what} does not end")
                progress.text = f"port {preferred} was held by {what}: ended it"
                return [preferred, *free], None
            if not free:
                raise errors.PortInUse(f"ports {preferred} to {preferred + CANDIDATES - 1} on {spec.host} are all taken")
            note = ", not yours" if not holder.ours else ""
            progress.warn(f"port {preferred} is held by {what}{note}: using {free[0]}")
        return free, None

    def _ask_port(
        self, what: str, holder: PortHolder, operation: Operation, *, adoptable: bool
    ) -> tuple[str, bool]:
        choices = ["next", "cancel"]
        if holder.ours:
            choices.insert(1, "kill")
        if adoptable:
            choices.insert(0, "adopt")
        said = operation.ask(
            Prompt(
                id="",
                kind="choice",
                text=f"port {holder.port} on {self._spec.host} is held by {what}",
                choices=choices,
                default=choices[0],
            )
        )
        if said == "cancel":
            return "fail", False
        return (said if said in {"next", "kill"} else "next"), said == "adopt"

    def _kernel(self, link: Link, environment: Environment, operation: Operation) -> str | None:
        """Register the working environment as a kernel; return its name."""
        with step(operation, "kernel", f"kernel of {_label(environment)}") as progress:
            install = self._request.install
            if environment.ipykernel is None and install is None and operation.client.interactive:
                said = operation.ask(
                    Prompt(
                        id="",
                        kind="confirm",
                        text=f"environment {_label(environment)} has no ipykernel. Install it there?",
                        default="y",
                    )
                )
                install = said.lower() in {"y", "yes"}
            if environment.ipykernel is None and not install:
                text = f"environment {_label(environment)} has no ipykernel, so it is no kernel yet"
                self._problems.append(
                    Problem(
                        code="kernel-missing",
                        severity="warning",
                        text=text,
                        fix=f"jupyman kernel add {environment.name} --host {self._spec.host} --install",
                    )
                )
                progress.warn(text)
                return None
            added = kernels.add(
                link, environment, name=None, display_name=None, install=bool(install), replace=False, proof=False,
                progress=progress.now,
            )
            progress.text = f"kernel {added.kernel.name} runs {environment.prefix}"
            return added.kernel.name

    def _forward(self, supervisor: Supervisor, live: Live, running: Running, operation: Operation) -> None:
        spec = self._spec
        port = running.server.port
        if port is None:
            raise errors.InternalError("the server has no port")
        preferred = self._request.local_port or spec.local_port or port
        with step(operation, "forward", f"forwarding to 127.0.0.1:{preferred}") as progress:
            target = ("127.0.0.1", port)
            if live.listener is not None:
                live.listener.retarget(target)
            else:
                live.listener = supervisor.forwarder.listen(preferred, target)
            local = live.listener.local_port
            progress.text = f"forwarded to 127.0.0.1:{local}"
            if local != preferred:
                progress.warn(f"local port {preferred} is taken{live.listener.holder_text}: using {local}")

    def _prove(self, link: Link, live: Live, running: Running, operation: Operation) -> None:
        """The right server answers through the forward, to us and to nobody without the token."""
        assert live.listener is not None  # noqa: S101 - set by _forward
        local = live.listener.local_port
        with step(operation, "verify", "checking the server's identity") as progress:
            # The socket's owner is proven on the host before our token travels there.
            liveness = nohup.verify(link, running)
            if not liveness.ok:
                raise errors.ServerExited(f"the server is gone: {liveness.text}", log=liveness.log)
            live.running = running
            live.verified = True
            live.down_since = None
            if answer.status(local, running.base_url, None) not in {401, 403} and running.token:
                nohup.stop(link, running, force=True)
                raise errors.ServerExited(
                    "the server let a request without a token in, so it was stopped",
                    "look for token or password settings in ~/.jupyter on the host",
                )
            seen = answer.status(local, running.base_url, running.token or None)
            if seen != 200:  # noqa: PLR2004 - HTTP OK
                raise errors.LinkLost(f"the server did not answer through the forward (HTTP status {seen})")
            live.state = "running"
            progress.text = "the right server answers"

    def _undo(self, link: Link, running: Running) -> None:
        try:
            nohup.stop(link, running, force=True)
        except errors.JupymanError:
            log.exception("a server that was started could not be stopped again")


def _label(environment: Environment) -> str:
    return environment.name or environment.prefix


def _same_env(asked: str, prefix: str | None, stored: str | None) -> bool:
    if asked == stored or asked == prefix:
        return True
    return prefix is not None and prefix.rstrip("/").rsplit("/", 1)[-1] == asked


def _cuda_text(report: HostReport) -> str:
    if not report.gpus:
        trouble = next((problem.text for problem in report.problems if problem.code.startswith(("gpu", "nvidia", "driver"))), None)
        return trouble or "no NVIDIA GPU"
    driver = report.driver
    names = ", ".join(sorted({gpu.name or "GPU" for gpu in report.gpus}))
    text = f"{len(report.gpus)} GPU: {names}"
    if driver is not None:
        text += f", driver {driver.version or 'unknown'}, CUDA up to {driver.cuda or 'unknown'}"
    return text


def _unfit(verdict: Verdict) -> Problem:
    return Problem(code="torch-driver", severity="warning", text=verdict.text, fix="see jupyman check for the build that fits")
