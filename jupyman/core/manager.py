"""Implements the API: owns the sessions, the hosts, and the store, of which it is the only writer."""

from __future__ import annotations

import logging
import re
import secrets
import threading
import time
from collections.abc import Callable
from typing import Any

import msgspec

from jupyman import api, config, errors
from jupyman.api import ClientContext, Operation
from jupyman.core.links.hosts import Hosts
from jupyman.core.links.supervisor import Supervisor
from jupyman.core.links.wakeups import TICK
from jupyman.core.runtime.background import Background
from jupyman.core.runtime.scheduler import Scheduler
from jupyman.core.runtime.shared_operation import SharedOperation
from jupyman.core.sessions.gpu_monitor import GpuMonitor
from jupyman.core.sessions.monitor import SessionMonitor, link_gone
from jupyman.core.sessions.registry import Live, SessionRegistry
from jupyman.core.sessions.store import Store
from jupyman.core.verbs import check as checkup
from jupyman.core.verbs import host as inquiries
from jupyman.core.verbs import kernel, tunnel, up_plan
from jupyman.core.verbs import kill as ending
from jupyman.core.verbs.up import UpFlow
from jupyman.model import FoundServer, Problem, Ps, SessionSpec, Unreachable
from jupyman.paths import Paths

log = logging.getLogger(__name__)

# `ps` waits until this long after the daemon's start for the wanted sessions to be looked up, seconds.
SETTLE = 5.0
# A one-time code is good for this long, seconds.
CODE_LIFE = 60.0
_ABOUT_ENVIRONMENTS: tuple[type[api.Request], ...] = (
    api.EnvLs,
    api.EnvCreate,
    api.EnvLogs,
    api.EnvRm,
    api.EnvPush,
    api.EnvTarget,
    api.EnvMirror,
)


class Manager:
    """The daemon's core, an `api.Backend`.

    Args:
        paths: where config and state are.

    Raises:
        VersionMismatch: the state file is of a newer jupyman.
    """

    def __init__(self, paths: Paths) -> None:
        store = Store(paths.state_file)
        store.load()
        if store.recovered:
            log.warning("%s", store.recovered)
        self.sessions = SessionRegistry(store)
        self._ticker = Scheduler()
        self.hosts = Hosts(paths.config_file, self._on_up, self._on_down)
        self._ticker.every(TICK, self.hosts.awake.tick)
        self._restorer = SessionMonitor(self.hosts, self.sessions, self._restart, self._ticker)
        self._gpus = GpuMonitor(self.hosts, self.sessions, self._ticker)
        self._client = ClientContext()  # the newest way to log in
        self._settled_by = time.monotonic() + SETTLE
        self._codes: dict[str, tuple[str, float]] = {}
        self._works: dict[str, tuple[api.Up, SharedOperation]] = {}  # the `up` under way (or the last one) by session
        self._lock = threading.Lock()
        self._handlers: dict[type[api.Request], Callable[[Any, Operation], Any]] = {
            api.Up: self._up,
            api.Down: self._down,
            api.Kill: lambda request, operation: ending.kill(request, self.hosts, self.sessions, operation),
            api.PsRequest: self._ps,
            api.Tunnel: self._tunnel,
            api.Url: self._url,
            api.OpenCode: self._open,
            api.Logs: lambda request, operation: inquiries.logs(request, self.hosts, self.sessions, operation),
            api.Check: self._on_host(checkup.check),
            api.KernelAdd: self._on_host(kernel.add),
            api.KernelLs: self._on_host(kernel.ls),
            api.KernelRm: self._on_host(kernel.rm),
            api.KernelCheck: self._kernel_check,
            **dict.fromkeys(_ABOUT_ENVIRONMENTS, self._env),
            api.HostLs: lambda _, operation: inquiries.host_ls(self.hosts, self.sessions, operation),
            api.HostTrust: lambda request, operation: inquiries.host_trust(request, self.hosts, operation),
        }

    # --- api.Backend ----------------------------------------------------------------------------------------------

    def start(self, client: ClientContext) -> None:
        """Bring the wanted sessions and forwards back: listeners at once, links in the background.

        Args:
            client: how the daemon itself would log in: the environment that it was started with.
        """
        self._client = client
        self._ticker.start()
        self._restorer.start(client)

    def handle(self, request: api.AnyRequest, operation: Operation) -> Any:
        """Do one request: see `api.Backend.handle`."""
        self._client = operation.client
        self._restorer.fresh_client(operation.client)
        return self._handlers[type(request)](request, operation)

    def redeem(self, code: str) -> str | None:
        """Trade a one-time code for the session's address with its token; None when unknown, used or old."""
        with self._lock:
            entry = self._codes.pop(code, None)
        if entry is None or time.monotonic() > entry[1]:
            return None
        live = self.sessions.find(entry[0])
        return live.url if live is not None else None

    def every(self, seconds: float, call: Callable[[], None]) -> None:
        """Have something done now and then.

        Args:
            seconds: between two calls.
            call: must not wait.
        """
        self._ticker.every(seconds, call)

    def close(self) -> None:
        """End links and listeners; servers on hosts run on."""
        self._ticker.close()
        self._restorer.close()
        self._gpus.close()
        self.hosts.close()

    # --- verbs ----------------------------------------------------------------------------------------------------

    def _up(self, request: api.Up, operation: Operation) -> Any:
        spec = self._wish(request, interactive=operation.client.interactive)
        with self.sessions.lock:
            same = msgspec.structs.replace(request, open_browser=False)
            work = self._works.get(spec.name)
            if work is None or work[1].ended or work[1].cancelled.is_set() or work[0] != same:
                previous = work[1] if work is not None and not work[1].ended else None
                flow = UpFlow(self.hosts, self.sessions, request, spec, self._restorer.look)
                shared = SharedOperation(_after(previous, flow.run), operation.client)
                self._works[spec.name] = (same, shared)
            else:
                shared = work[1]
        try:
            session = shared.join(operation)
        except errors.Interrupted:
            if operation.cancelled.is_set() or not shared.cancelled.is_set():
                raise
            # The last client before us left just as we joined: that was not our Ctrl-C.
            return self._up(request, operation)
        if request.open_browser:
            operation.emit(api.OpenBrowser(url=f"/go?code={self._code(spec.name)}"))
        return session

    def _restart(self, live: Live, why: str) -> None:
        """Start a server that died again: same port, token and directory."""
        name, last = live.spec.name, live.running
        port = last.server.port if last is not None else None
        request = api.Up(host=live.spec.host, name=name, port=port, timeout=live.spec.timeout)

        def work() -> None:
            try:
                self._up(request, Background(self._client))
            except errors.JupymanError as error:
                text = f"{why}; it could not be started again: {error.message}"
                problem = Problem(code="restart-failed", severity="error", text=text, fix=error.hint)
            else:
                text, fix = f"restarted {len(live.restarts)} times, the last time because {why}", f"jupyman logs {name}"
                problem = Problem(code="server-restarted", severity="info", text=text, fix=fix)
            log.info("session %s: %s", name, problem.text)
            live.problems = [*live.problems, problem]

        threading.Thread(target=work, name=f"restart {name}", daemon=True).start()

    def _wish(self, request: api.Up, *, interactive: bool = False) -> SessionSpec:
        """Merge what was said, the stored session, and config.toml."""
        stored = self.sessions.find(request.name or request.host or "")
        names = {live.spec.name: live.spec.host for live in self.sessions.all()}
        if stored is not None and (request.host is None or request.host in {stored.spec.name, stored.spec.host}):
            host = stored.spec.host
        else:
            host = self.hosts.resolve(request.host, self.sessions.busy(), names.values())
        name = request.name
        if name is None and stored is not None:
            name = stored.spec.name
        if name is None:
            here = [one for one, its_host in names.items() if its_host == host]
            if len(here) > 1:
                raise errors.UsageFault(
                    f"{host} has several sessions: {', '.join(sorted(here))}", "name one: jupyman up HOST --name NAME"
                )
            name = here[0] if here else _session_name(host)
        config.check_name(name, "session")
        live = self.sessions.find(name)
        if live is not None and live.spec.host != host:
            raise errors.UsageFault(
                f"session {name} is on {live.spec.host}, not on {host}", "choose another name with --name"
            )
        entry = self.hosts.entry(host)
        for table, said in self.hosts.config.hosts.items():
            if host in {table, said.ssh}:  # also where the user says the address instead of the name
                up_plan.refuse_slurm(table, said)
        old, ended = (live.spec, live.state == "exited") if live is not None else (None, False)
        defaults = self.hosts.config.defaults
        return up_plan.merge(request, name, host, old, entry, defaults, ended=ended, interactive=interactive)

    def _down(self, request: api.Down, operation: Operation) -> Any:
        lives: list[Live] = []
        first: errors.JupymanError | None = None
        for name in request.sessions:
            try:
                lives.append(self.sessions.get(name))
            except errors.UnknownSession as error:
                if len(request.sessions) > 1:  # of one alone, the error says it
                    operation.emit(api.Step(key=f"down {name}", text=error.message, state="warn"))
                first = first or error
        if first is not None and not lives:
            raise first
        for live in lives:
            with live.binding, self.sessions.lock:
                listener = live.park()
                if request.release:
                    live.spec = msgspec.structs.replace(live.spec, released=True)
                    live.listener, live.port_problems = None, []
            if listener is not None and request.release:
                listener.close()
            elif listener is not None:
                listener.detach()
        self.sessions.save()
        for live in lives:
            supervisor = self.hosts.known(live.spec.host)
            if supervisor is not None:
                supervisor.want(wanted=self.sessions.wanted(live.spec.host))
        failed = {"error": first.info()} if first is not None else {}
        return {"sessions": [self._view(live) for live in lives], **failed}

    def _ps(self, request: api.PsRequest, operation: Operation) -> Ps:
        self._gpus.soon()
        lives = self.sessions.all()
        for live in lives:
            # A question that needs no network is answered from memory: only a daemon just started has to wait, and not
            # for ever where a host is away. One that is down waits for its port alone.
            if live.state != "starting" and not live.settled.is_set():
                live.settled.wait(max(0.0, self._settled_by - time.monotonic()))
        missed: list[Unreachable] = []
        for host in [] if request.all else request.hosts:  # with --all a host is asked, and need not be known
            if not any(live.spec.host == host for live in lives) and self.hosts.known(host) is None:
                try:
                    self._know(host, operation)
                except errors.UnknownHost as error:
                    if len(request.hosts) == 1:
                        raise
                    missed.append(Unreachable(host=host, error=error.info()))
        chosen = [live for live in lives if not request.hosts or live.spec.host in request.hosts]
        forwards = [v for v in self.sessions.tunnel_views(self.hosts) if not request.hosts or v.host in request.hosts]
        servers: list[FoundServer] = []
        if request.all:
            hosts = request.hosts or sorted({*(live.spec.host for live in lives), *(f.host for f in forwards)})
            if not hosts:
                hosts = [self.hosts.resolve(None, (), ())]
            servers, missed = inquiries.servers(hosts, self.hosts, self.sessions, operation)
        shown = [self._view(live) for live in chosen]
        return Ps(sessions=shown, forwards=forwards, servers=servers, unreachable=missed or msgspec.UNSET)

    def _tunnel(self, request: api.Tunnel, operation: Operation) -> Any:
        for text in request.specs:
            tunnel.parse(text, "")
        meant = request.host
        if meant is None and request.close:
            meant = tunnel.owner(request, self.sessions)
        host = self.hosts.resolve(meant, self.sessions.busy(), self.sessions.hosts())
        if request.close:
            return tunnel.close_all(request, host, self.hosts, self.sessions)
        return tunnel.open_all(request, host, self.hosts, self.sessions, operation)

    def _url(self, request: api.Url, operation: Operation) -> Any:
        live = self._forwarded(request.session)
        del operation
        return {"name": live.spec.name, "url": live.url}

    def _open(self, request: api.OpenCode, operation: Operation) -> Any:
        live = self._forwarded(request.session)
        url = f"/go?code={self._code(live.spec.name)}"
        operation.emit(api.OpenBrowser(url=url))
        return {"name": live.spec.name}

    # --- helpers --------------------------------------------------------------------------------------------------

    def _on_up(self, supervisor: Supervisor) -> None:
        self._restorer.on_up(supervisor)

    def _on_down(self, supervisor: Supervisor) -> None:
        link_gone(self.sessions, supervisor.name)

    def _env(self, request: Any, operation: Operation) -> Any:
        from jupyman.core.verbs import env  # half a megabyte, which a daemon that only forwards can do without

        return self._on_host(env.VERBS[type(request)])(request, operation)

    def _on_host(self, verb: Callable[..., Any]) -> Callable[[Any, Operation], Any]:
        """Wrap a verb that works on one host over its link."""

        def call(request: Any, operation: Operation) -> Any:
            host = self.hosts.resolve(request.host, self.sessions.busy(), self.sessions.hosts())
            return verb(request, host, self.hosts, self.sessions, operation)

        return call

    def _kernel_check(self, request: api.KernelCheck, operation: Operation) -> Any:
        """Check kernels; one word may be a kernel's name or, as with `kernel ls`, a host's."""
        word = request.name if request.host is None else None
        if word is not None and (word in self.sessions.hosts() or self._configured(word, operation)):
            request = msgspec.structs.replace(request, host=word)
        return self._on_host(kernel.check)(request, operation)

    def _configured(self, host: str, operation: Operation) -> bool:
        return host in self.hosts.config.hosts or inquiries.in_ssh_config(host, self.hosts, operation)

    def _know(self, host: str, operation: Operation) -> None:
        if not self._configured(host, operation):
            raise errors.UnknownHost(f"no session is on a host called {host!r}")

    def _view(self, live: Live) -> Any:
        return self.sessions.view(live, inquiries.link_status(self.hosts, live.spec.host))

    def _forwarded(self, name: str | None) -> Live:
        live = self.sessions.only(name)
        if not live.settled.is_set() and live.spec.wanted:
            live.settled.wait(SETTLE)
        if live.url is None:
            raise errors.LinkLost(
                f"session {live.spec.name} is not forwarded now (state {live.state})", f"jupyman up {live.spec.name}"
            )
        return live

    def _code(self, session: str) -> str:
        code = secrets.token_urlsafe(24)
        with self._lock:
            instant = time.monotonic()
            self._codes = {key: entry for key, entry in self._codes.items() if entry[1] > instant}
            self._codes[code] = (session, instant + CODE_LIFE)
        return code


def _after(previous: SharedOperation | None, work: Callable[[Operation], Any]) -> Callable[[Operation], Any]:
    """One `up` at a time for a session: wait for the one before, whatever its end."""
    if previous is None:
        return work

    def wait_then_work(operation: Operation) -> Any:
        operation.emit(api.Step(key="wait", text="waiting for another up of this session", state="run"))
        # Also where the client leaves meanwhile: else the next one would find nothing under way.
        previous.wait()
        return work(operation)

    return wait_then_work


def _session_name(host: str) -> str:
    """Make a session's name of a host: the alias, or the machine's name in ``user@host:port``."""
    bare = host.rsplit("@", 1)[-1]
    bare = re.sub(r":[0-9]+$", "", bare)
    name = re.sub(r"[^A-Za-z0-9._-]", "-", bare).lstrip(".-")[:63]
    if not name or name.isdigit():
        raise errors.UsageFault(f"{host!r} gives no name for the session", "choose one with --name")
    return name
