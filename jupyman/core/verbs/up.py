"""`up`: start or adopt a session's server and forward it, step by step.

Over 300 lines because its steps use what earlier ones found and made, and undo it together.
"""

from __future__ import annotations

import logging
import posixpath
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import msgspec

from jupyman import errors
from jupyman.api import Operation, Up
from jupyman.core.links.hosts import Hosts
from jupyman.core.links.supervisor import Supervisor
from jupyman.core.runtime.progress import go_on, step
from jupyman.core.sessions import token_exposure
from jupyman.core.sessions.monitor import now, own_server, trouble
from jupyman.core.sessions.registry import SessionRegistry, SessionRuntime
from jupyman.core.sessions.session_forward import DEFAULT_PORT, SessionForward
from jupyman.core.sessions.state import (
    Absent,
    Answered,
    Doubted,
    Launching,
    NotUsable,
    SessionState,
    UpFailed,
    UpStarted,
    Wanted,
)
from jupyman.core.verbs.up_prepare import Preparation
from jupyman.host.report import probe
from jupyman.host.servers.base import Found, Record
from jupyman.host.servers.listing import exposed_kernels
from jupyman.host.shell.script import CancellableShell, Shell
from jupyman.model import HostReport, LaunchSpec, Problem, Running, Session, SessionSpec
from jupyman.model.endpoint import Endpoint
from jupyman.ssh.link import Link

log = logging.getLogger(__name__)


class UpFlow:
    """One run of `up` for one session.

    It reports what it finds to the registry as events; `UpStarted` begins and `Wanted` or `UpFailed` ends them.

    Args:
        hosts: to reach the host.
        sessions: where the result is kept.
        request: the options of the command line; a field is None if its option was not given.
        spec: what is wanted: the given options, then the stored session, then config.toml.
        suspect: called later if the host refuses a connection to the server; must not wait.
        downs: what the session's `downs` was when this was requested: a later `down` stands.
        session: the only one for which this may be done, for a restart; None: the one of that name, or a new one.
    """

    def __init__(
        self,
        hosts: Hosts,
        sessions: SessionRegistry,
        request: Up,
        spec: SessionSpec,
        suspect: Callable[[], None],
        *,
        downs: int,
        session: SessionRuntime | None,
    ) -> None:
        self._hosts = hosts
        self._sessions = sessions
        self._request = request
        self._spec = spec
        self._suspect = suspect
        self._downs = downs
        self._session = session
        self._launcher = hosts.launcher(spec.host)  # makes the session's launcher for a shell
        self._fresh = False  # a new session may adopt a server; a known one gets its own back, or a new one
        self._explicit_name = request.name is not None
        self._problems: list[Problem] = []
        self._port_problems: list[Problem] = []
        self._exposed: list[Problem] = []  # problems of its kernels; a server that was just started has none
        self._proven = False  # the server was proven on the host a moment ago
        self._ready: LaunchSpec | None = None  # what was launched
        self._launched: Running | None = None  # to be stopped again if a later step fails

    def run(self, operation: Operation) -> Session:
        """Do it.

        Args:
            operation: shows the steps, and may be cancelled.

        Returns:
            The running session.

        Raises:
            JupymanError: why it failed; nothing half-made is left.
        """
        spec = self._spec
        supervisor = self._hosts.supervisor(spec.host, operation.client)
        session, self._fresh = (self._session, False) if self._session is not None else self._sessions.enter(spec)
        if self._fresh:
            self._downs = 0
        try:
            session.current.require_kept(self._downs)
            with step(operation, "connect", f"connecting to {spec.host}") as progress:
                link = supervisor.acquire(operation, renew=True)
                progress.text = f"connected to {spec.host}"
                if later := self._hosts.later(spec.host):
                    progress.warn(f"{progress.text}; config.toml has changed: {'; '.join(later)}")
            self._serve(link, supervisor, session, operation)
        except BaseException:
            if self._fresh:
                self._sessions.remove(session)
                supervisor.want(wanted=self._sessions.wanted(spec.host))
            raise
        event = Wanted(spec=spec, problems=tuple(self._problems), port_problems=tuple(self._port_problems))
        self._sessions.apply(session, event)
        supervisor.want(wanted=self._sessions.wanted(spec.host))
        self._sessions.save()
        session.current.require_kept(self._downs)
        return self._sessions.view(session.current, supervisor.status)

    def _serve(self, link: Link, supervisor: Supervisor, session: SessionRuntime, operation: Operation) -> None:
        """Bring about server and forward; what this run made of them is undone if it fails."""
        running = self._resume(link, session, operation)
        self._proven = running is not None
        had = None if self._fresh else session.current.spec.local_port
        forward = SessionForward(
            self._sessions,
            supervisor,
            link,
            session,
            asked=self._request.local_port,
            usual=self._spec.local_port,
            had=had,
            downs=self._downs,
            share=self._hosts.share(self._spec.host),
            suspect=self._suspect,
        )
        self._sessions.apply(session, UpStarted(downs=self._downs))
        exposed = session.current.token_exposed
        try:
            session.current.require_kept(self._downs)
            if running is None:
                # For the launch: its shell starts while the host is looked at.
                with link.shell_ahead() as shell:
                    report, found = self._look(link, operation)
                    self._same_node(session.current, found)
                    running = self._adopt(link, session.current, found, operation)
                    if running is None:
                        self._sessions.apply(session, Launching())
                        running = self._launch(link, shell, supervisor, forward, report, found, operation)
            forward.forward(running, operation)
            if exposed or session.current.token_exposed or forward.other_user is not None:
                running, self._port_problems = token_exposure.renew_in_up(
                    self._launcher(link), self._sessions, session, running, operation, port=had, user=forward.other_user
                )
                self._launched = running if self._launched is not None else None
            if not self._prove(link, forward, running, operation):
                # sshd leads to no UNIX socket: again, on a port.
                supervisor.sockets, self._launched = False, None
                forward.clear()
                self._undo(link, session, running)
                running = self._start(link, forward, operation)
                forward.forward(running, operation)
                self._prove(link, forward, running, operation)
            session.current.require_kept(self._downs)
            go_on(operation)  # no step follows that would notice a cancellation
            self._sessions.apply(session, Answered())
            forward.keep()
        except BaseException:
            if self._launched is not None:
                self._undo(link, session, self._launched)
            self._sessions.apply(session, UpFailed(undone=self._launched is not None))
            forward.undo()
            raise
        finally:
            forward.close()

    # --- the steps ------------------------------------------------------------------------------------------------

    def _resume(self, link: Link, session: SessionRuntime, operation: Operation) -> Running | None:
        """Return the session's own server if it still runs."""
        state, running = session.current, session.current.running
        if running is None:
            return None
        with step(operation, "verify", "looking for the session's server") as progress:
            liveness = self._launcher(link).verify(running)
            progress.text = f"session {state.name}: its server runs (pid {running.server.pid})"
            if self._request.port not in {None, running.server.port}:
                there = f"port {running.server.port}" if running.server.port else "a private socket"
                progress.warn(f"{progress.text} on {there}: --port counts for the next one, after jupyman kill")
            if not liveness.ok:
                progress.warn(f"the session's server is gone: {liveness.text}")
        if liveness.ok:
            self._unchanged(running, state.spec)
            self._exposed = exposed_kernels(running.server.pid, seen=liveness.kernels_exposed)
            return liveness.now(running)
        if liveness.state == "elsewhere":
            raise self._other_machine(liveness.text)
        problem = trouble(state, liveness)
        if liveness.dead:
            self._sessions.apply(session, Absent(problem=problem, at=time.monotonic(), restartable=False))
        else:
            self._sessions.apply(session, NotUsable(problem=problem))
        return None

    def _unchanged(self, running: Running, stored: SessionSpec | None) -> None:
        """Refuse options that differ from the running server's.

        Args:
            running: the server.
            stored: what this computer asked for when it was made; None: another computer made it.
        """
        server, asked = running.server, self._request
        works_in = server.kernel_env or server.env
        differs: list[str] = []
        if asked.env is not None and not _same_env(asked.env, works_in) and not (stored and stored.env == asked.env):
            differs.append(f"--env {asked.env} (it runs {works_in or 'another'})")
        if asked.dir is not None and not _same_dir(asked.dir, running) and not (stored and stored.dir == asked.dir):
            differs.append(f"--dir {asked.dir} (it runs in {server.root_dir})")
        if asked.app is not None and asked.app != server.app:
            differs.append(f"--app {asked.app} (it runs {server.app})")
        if asked.gpu is not None and stored is not None and asked.gpu != stored.gpu:
            differs.append(f"--gpu {asked.gpu} (it runs with {stored.gpu or 'none set'})")
        if differs:
            name = self._spec.name
            raise errors.UsageFault(
                f"session {name} is already running with other settings: {'; '.join(differs)}",
                f"leave the option out, use another --name, or jupyman kill {name} first",
            )

    def _same_node(self, state: SessionState, found: Found) -> None:
        if (node := found.other_node(state.name, state.spec.node)) is not None:
            raise self._other_machine(f"it runs on {node}, and this login reached {found.node}")

    def _other_machine(self, text: str) -> errors.UsageFault:
        host, name = self._spec.host, self._spec.name
        return errors.UsageFault(
            f"{host} leads to several machines, and the server of session {name} is on another one: {text}",
            "name that machine itself in ~/.ssh/config, or start another server with --name",
        )

    def _look(self, link: Link, operation: Operation) -> tuple[HostReport, Found]:
        spec = self._spec
        shell = CancellableShell(link, operation.cancelled)
        with step(operation, "probe", "looking at the host") as progress:
            named = [spec.env] if spec.env is not None and spec.env.startswith(("/", "~/")) else []
            # At the same time: each is a round trip, two of them some 100 ms of shell.
            with ThreadPoolExecutor(3) as pool:
                # Before anything is started: does sshd allow forwarding at all?
                allowed = pool.submit(link.may_forward, Endpoint(None, spec.port or DEFAULT_PORT).target)
                finding = pool.submit(self._launcher(shell).find)
                probing = pool.submit(probe.probe, shell, spec.host, depth="launch", directory=spec.dir, extra=named)
                allowed.result()
                report, found = probing.result(), finding.result()
            conda = sum(environment.kind in {"conda", "mamba", "micromamba"} for environment in report.environments)
            count = len(report.environments)
            environments = f"{count} environment{'' if count == 1 else 's'} ({conda} conda)"
            progress.text = f"{report.os or 'unknown system'}, {report.user}, {environments}"
        with step(operation, "cuda", "CUDA") as progress:
            progress.text = _cuda_text(report)
        # Problems of torch in other environments are for `check`; the chosen one's are reported when it is chosen.
        reported = (
            problem for problem in report.problems if problem.severity != "info" and problem.code != "torch-driver"
        )
        self._problems += reported
        return report, found

    def _adopt(self, link: Link, state: SessionState, found: Found, operation: Operation) -> Running | None:
        """Adopt a server that already runs: this session's from another computer, or one that is asked for."""
        spec = self._spec
        taken = self._sessions.taken(state)
        records = [record for record in found.records if record.alive and record.pid not in taken]
        chosen = own_server(found, state.spec, taken)
        if isinstance(chosen, Record) and not chosen.alive:
            chosen = None
        if chosen is None and self._fresh and not self._explicit_name and len(records) == 1:
            chosen = records[0]
        if chosen is not None:
            with step(operation, "adopt", "adopting the running server") as progress:
                running = state.recognised(self._launcher(link).adopt(chosen, name=spec.name))
                progress.text = f"adopted the server that runs on {spec.host} (pid {running.server.pid})"
            self._unchanged(running, state.spec if running.server.pid == state.spec.pid else None)
            return running
        if not (self._fresh and self._explicit_name):
            return None
        asked = self._request
        shaping = (asked.env, asked.dir, asked.app, asked.gpu)
        foreign = [server for server in found.servers if server.pid not in taken]
        wanted = [server for server in foreign if asked.port is not None and server.port == asked.port]
        if not wanted and asked.port is None and all(option is None for option in shaping):
            wanted = foreign
        if len(wanted) == 1:
            with step(operation, "adopt", "adopting your running server") as progress:
                running = self._launcher(link).adopt(wanted[0], name=spec.name)
                progress.text = f"adopted your server on port {running.server.port} (pid {running.server.pid})"
            return running
        ports = sorted(server.port for server in wanted if server.port is not None)
        if len(ports) > 1:
            with step(operation, "adopt", "looking for your running server") as progress:
                there = ", ".join(map(str, ports))
                progress.warn(f"{len(ports)} servers of yours run there: --port adopts one of them ({there})")
        return None

    def _launch(
        self,
        link: Link,
        shell: Shell,
        supervisor: Supervisor,
        forward: SessionForward,
        report: HostReport,
        found: Found,
        operation: Operation,
    ) -> Running:
        entry, defaults = self._hosts.entry(self._spec.host), self._hosts.config.defaults
        default = entry.env or defaults.env
        preparation = Preparation(
            link,
            self._launcher(link),
            self._spec,
            self._request,
            report,
            found,
            operation,
            sockets=supervisor.sockets,
            ending=self._ending,
        )
        ready = preparation.run(default)
        self._problems += preparation.problems
        if isinstance(ready, Running):
            return ready
        self._ready = msgspec.structs.replace(ready, debugger=self._hosts.debugger(self._spec.host))
        return self._start(shell, forward, operation)

    def _start(self, shell: Shell, forward: SessionForward, operation: Operation) -> Running:
        """Launch what is ready; the second time on a port, because no connection reached its socket."""
        ready = self._ready
        assert ready is not None  # noqa: S101 - set by `_launch`
        self._ready = msgspec.structs.replace(ready, sock=False)
        with step(operation, "launch", "starting Jupyter") as progress:
            running = self._launcher(shell).launch(
                ready, progress=progress.now, listening=forward.listening, cancelled=operation.cancelled
            )
            # A server that another launch had started is verified as any server that was found.
            self._proven = not running.server.adopted
            self._launched = running if self._proven else None
            where = f"port {running.server.port}" if running.sock is None else "a private socket"
            progress.text = f"Jupyter runs on {self._spec.host}, {where} (pid {running.server.pid})"
            if not ready.sock and not running.server.adopted and running.server.port != ready.ports[0]:
                # No listener was seen there: an outgoing connection may have it.
                progress.warn(f"port {ready.ports[0]} could not be used: {progress.text}")
        return running

    def _prove(self, link: Link, forward: SessionForward, running: Running, operation: Operation) -> bool:
        """Check that the right server answers through the forward, and only to requests with the token.

        Returns:
            False if we launched it on a UNIX socket and sshd does not forward to that.
        """
        with step(operation, "verify", "checking the server's identity") as progress:
            # The socket's owner is proven on the host before our token travels there.
            if not self._proven:
                liveness = self._launcher(link).verify(running)
                if not liveness.ok:
                    raise errors.ServerExited(f"the server is gone: {liveness.text}", log=liveness.log)
                running = liveness.now(running)
                self._exposed = exposed_kernels(running.server.pid, seen=liveness.kernels_exposed)
            self._problems += self._exposed
            forward.proven(running, at=now(), exposed=tuple(self._exposed))
            without_token, seen = forward.ask(running)
            if self._launched is not None and running.sock is not None and seen is None and forward.refused:
                progress.warn("sshd does not forward UNIX sockets: starting again on a port")
                return False
            if seen != 200 or (running.token and without_token is None):
                status = without_token if seen == 200 else seen
                raise errors.LinkLost(
                    f"the server did not answer through the forward (HTTP status {status})",
                    "run it again; if that fails too, jupyman daemon logs may show the reason",
                )
            if running.token and without_token not in {401, 403}:
                text = "the server accepts requests without a token"
                fix = "look for token or password settings in ~/.jupyter on the host"
                if self._launched is not None:
                    raise errors.ServerExited(f"{text}, so it was stopped", fix)
                self._problems.append(Problem(code="server-open", severity="error", text=text, fix=fix))
            progress.text = "the right server answers"
        return True

    @contextmanager
    def _ending(self, pid: int) -> Iterator[None]:
        """Close the gate of the session, if any, whose server is ended; that is looked at afterwards."""
        doubted = self._sessions.doubt(self._spec.host, pid)
        try:
            yield
        finally:
            if doubted:
                self._suspect()

    def _undo(self, link: Link, session: SessionRuntime, running: Running) -> None:
        self._sessions.apply(session, Doubted())
        try:
            self._launcher(link).stop(running, force=True)
        except errors.JupymanError:
            log.exception("a server that was started could not be stopped again")


def _same_env(asked: str, prefix: str | None) -> bool:
    """Tell whether an environment's name or prefix means the one of that prefix."""
    if prefix is None:
        return False
    if asked == "base":
        return "/envs/" not in prefix
    return asked.rstrip("/") in {prefix.rstrip("/"), posixpath.basename(prefix.rstrip("/"))}


def _same_dir(asked: str, running: Running) -> bool:
    """Tell whether a directory, as the user writes it, is the one in which the server runs."""
    home = running.directory.partition("/.local/state/jupyman/")[0]
    below = asked[2:] if asked.startswith("~/") else "" if asked == "~" else asked
    return posixpath.normpath(posixpath.join(home, below)) == posixpath.normpath(running.server.root_dir or "/")


def _cuda_text(report: HostReport) -> str:
    if not report.gpus:
        trouble = next(
            (problem.text for problem in report.problems if problem.code.startswith(("gpu", "nvidia", "driver"))), None
        )
        return trouble or "no NVIDIA GPU"
    driver = report.driver
    names = ", ".join(sorted({gpu.name or "GPU" for gpu in report.gpus}))
    text = f"{len(report.gpus)} GPU{'' if len(report.gpus) == 1 else 's'}: {names}"
    if driver is not None:
        text += f", driver {driver.version or 'unknown'}, CUDA up to {driver.cuda or 'unknown'}"
    return text
