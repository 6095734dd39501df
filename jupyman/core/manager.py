"""Implements the API: owns the core's parts, and routes each request to its verb."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

from jupyman import api, remote
from jupyman.api import ClientContext, Operation
from jupyman.core.event_feed import EventFeed
from jupyman.core.links.hosts import Hosts
from jupyman.core.links.supervisor import Supervisor
from jupyman.core.links.wakeups import TICK
from jupyman.core.runtime.background import Background
from jupyman.core.runtime.one_time_codes import OneTimeCodes
from jupyman.core.runtime.scheduler import Scheduler
from jupyman.core.sessions.gpu_monitor import GpuMonitor
from jupyman.core.sessions.monitor import SessionMonitor
from jupyman.core.sessions.registry import SessionRegistry, SessionRuntime
from jupyman.core.sessions.store import Store
from jupyman.core.verbs import check, down, host, kernel, kill, logs, ps, request_host, tunnel
from jupyman.core.verbs import open as opening
from jupyman.core.verbs.host_call import HostCall, VerbCall
from jupyman.core.verbs.up_queue import UpQueue
from jupyman.paths import Paths

log = logging.getLogger(__name__)

Verb = Callable[[Any, VerbCall], Any]
HostVerb = Callable[[Any, HostCall], Any]

# Verbs that work on the one host that the request means.
HOST_VERBS: dict[type[api.AnyRequest], HostVerb] = {
    api.Tunnel: tunnel.tunnel,
    api.Check: check.check,
    api.KernelAdd: kernel.add,
    api.KernelLs: kernel.ls,
    api.KernelRm: kernel.rm,
    api.KernelCheck: kernel.check,
    api.HostTrust: host.trust,
}
ENVIRONMENT_REQUESTS: tuple[type[api.AnyRequest], ...] = (
    api.EnvLs,
    api.EnvCreate,
    api.EnvLogs,
    api.EnvRm,
    api.EnvPush,
    api.EnvTarget,
    api.EnvMirrorLs,
    api.EnvMirror,
)


def _environment_verb(request: Any, call: HostCall) -> Any:
    from jupyman.core.verbs import env  # half a megabyte, which a daemon that only forwards can do without

    return env.VERBS[type(request)](request, call)


class Manager:
    """The daemon's core, an `api.Backend`.

    Args:
        paths: where config and state are.

    Raises:
        VersionMismatch: the state file is of a newer jupyman.
    """

    def __init__(self, paths: Paths) -> None:
        remote.preload()
        store = Store(paths.state_file)
        store.load()
        if store.recovered:
            log.warning("%s", store.recovered)
        self.sessions = SessionRegistry(store)
        self._scheduler = Scheduler()
        self.hosts = Hosts(paths.config_file, self._on_up, self._on_down, self._on_change)
        self.events = EventFeed(self.sessions, self.hosts, self._scheduler)
        self._scheduler.every(TICK, self.hosts.awake.tick)
        self._monitor = SessionMonitor(self.hosts, self.sessions, self._restart, self._scheduler)
        self._gpus = GpuMonitor(self.hosts, self.sessions, self._scheduler)
        self._client = ClientContext()  # the newest way to log in
        self._settled_by = time.monotonic() + opening.SETTLE
        self._codes = OneTimeCodes()
        self._ups = UpQueue(self._codes, self._monitor.look)
        self._verbs: dict[type[api.AnyRequest], Verb] = {
            api.Up: self._ups.up,
            api.Down: down.down,
            api.Kill: kill.kill,
            api.PsRequest: self._ps,
            api.Url: opening.url,
            api.OpenCode: lambda request, call: opening.open_(request, call, self._codes),
            api.Logs: logs.logs,
            api.HostLs: host.ls,
            **{request: _on_host(verb) for request, verb in HOST_VERBS.items()},
            **dict.fromkeys(ENVIRONMENT_REQUESTS, _on_host(_environment_verb)),
        }

    # --- api.Backend ----------------------------------------------------------------------------------------------

    def start(self, client: ClientContext) -> None:
        """Bring the wanted sessions and forwards back: listeners at once, links in the background.

        Args:
            client: how the daemon itself would log in: the environment that it was started with.
        """
        self._client = client
        self._scheduler.start()
        self._monitor.start(client)

    def handle(self, request: api.AnyRequest, operation: Operation) -> Any:
        """Do one request: see `api.Backend.handle`."""
        self._client = operation.client
        self._monitor.fresh_client(operation.client)
        return self._verbs[type(request)](request, self._call(operation))

    def redeem(self, code: str) -> str | None:
        """Exchange a one-time code for the session's address with its token; None when unknown, used or expired."""
        name = self._codes.redeem(code)
        session = self.sessions.find(name) if name is not None else None
        return session.url if session is not None else None

    def every(self, seconds: float, call: Callable[[], None]) -> None:
        """Have something done periodically: see `Scheduler.every`."""
        self._scheduler.every(seconds, call)

    def close(self) -> None:
        """End links and listeners; servers on hosts keep running."""
        self._scheduler.close()
        self._monitor.close()
        self._gpus.close()
        self.hosts.close()

    # --- helpers --------------------------------------------------------------------------------------------------

    def _call(self, operation: Operation) -> VerbCall:
        return VerbCall(operation, self.hosts, self.sessions)

    def _ps(self, request: api.PsRequest, call: VerbCall) -> Any:
        self._gpus.soon()
        return ps.ps(request, call, self.events.snapshot, self._settled_by)

    def _restart(self, session: SessionRuntime, why: str) -> None:
        self._ups.restart(session, why, self._call(Background(self._client)))

    def _on_up(self, supervisor: Supervisor) -> None:
        self.sessions.link_up(supervisor.name, supervisor.link)
        self._monitor.on_up(supervisor)

    def _on_down(self, supervisor: Supervisor) -> None:
        self.sessions.link_lost(supervisor.name)

    def _on_change(self, supervisor: Supervisor) -> None:
        self.events.mark_host(supervisor.name)


def _on_host(verb: HostVerb) -> Verb:
    """Return a verb that first finds out which host is meant."""

    def run(request: Any, call: VerbCall) -> Any:
        request, name = request_host.of_request(request, call)
        return verb(request, call.on(name))

    return run
