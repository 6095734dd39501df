"""Looks periodically at the GPUs of the sessions: what their notebooks hold, and whether others use them too."""

from __future__ import annotations

import logging
import time

from jupyman import errors, remote
from jupyman.core.links.hosts import Hosts
from jupyman.core.runtime.per_host_pool import PerHostPool
from jupyman.core.runtime.scheduler import Scheduler
from jupyman.core.sessions.registry import SessionRegistry, SessionRuntime
from jupyman.core.sessions.state import GpusSeen
from jupyman.host.gpus import report as gpu_facts
from jupyman.host.kernels.notebooks import paths
from jupyman.host.shell import script
from jupyman.model import Gpu, GpuUse, Problem, Running
from jupyman.ssh.link import Link
from jupyman.tools.gpu import choose, nvidia_smi

log = logging.getLogger(__name__)

AT_ONCE = 4  # hosts
EVERY = 60.0  # seconds between looks at a host; without persistence mode each wakes its driver for a second or two
SOON = 10.0  # seconds; `ps` brings the next look forward if the last one is older than this
GIVEN_UP = 900.0  # seconds until a host whose nvidia-smi hung is looked at again: each look may leave a process there
GPU_TIMEOUT = 5
TIMEOUT = 30.0


class GpuMonitor:
    """Keeps what `ps` shows of GPUs fresh, for running sessions that were given some.

    Args:
        hosts: their links.
        sessions: the registry.
        scheduler: calls the looks.
    """

    def __init__(self, hosts: Hosts, sessions: SessionRegistry, scheduler: Scheduler) -> None:
        self._hosts = hosts
        self._sessions = sessions
        self._pool = PerHostPool(self._look_at, AT_ONCE)
        self._next: dict[str, float] = {}  # monotonic, by host
        self._last: dict[str, float] = {}
        self._soon = scheduler.every(SOON, self._tour)

    def soon(self) -> None:
        """Bring the next look forward, unless the last was a moment ago or the host's nvidia-smi hangs; never waits."""
        now = time.monotonic()
        for host, last in list(self._last.items()):
            if now - last >= SOON and self._next.get(host, 0.0) - now <= EVERY:
                self._next[host] = now
        if self._wanted():
            self._soon()

    def close(self) -> None:
        """Begin no further look."""
        self._pool.close()

    def _wanted(self) -> dict[str, list[SessionRuntime]]:
        """Return the running sessions with GPUs, by host."""
        found: dict[str, list[SessionRuntime]] = {}
        for session in self._sessions.runtimes():
            current = session.current
            if current.state == "running" and current.running is not None and current.running.server.gpus:
                found.setdefault(current.spec.host, []).append(session)
        return found

    def _tour(self) -> None:
        for host in self._wanted():
            if time.monotonic() >= self._next.get(host, 0.0):
                self._pool.ask(host, again=False)

    def _look_at(self, host: str) -> None:
        supervisor = self._hosts.known(host)
        link = supervisor.link if supervisor is not None else None
        sessions = self._wanted().get(host)
        if supervisor is None or link is None or supervisor.silent or not sessions:
            return
        try:
            self._look(host, link, sessions)
        except errors.JupymanError as error:
            log.info("the GPUs of %s could not be looked at: %s", host, error.message)

    def _look(self, host: str, link: Link, sessions: list[SessionRuntime]) -> None:
        self._last[host] = time.monotonic()
        self._next[host] = self._last[host] + EVERY
        arguments = {"GPUS": remote.script("lib/gpus"), "GPU_TIMEOUT": str(GPU_TIMEOUT)}
        facts = script.run(link, "gpus/usage", arguments, timeout=TIMEOUT)
        trouble = nvidia_smi.problem(facts.number("gpu.status"), facts.all("gpu.row"))
        if trouble is not None and trouble.code == "nvidia-smi-hangs":
            self._next[host] = self._last[host] + GIVEN_UP
        states = [(session, session.current.running) for session in sessions]
        servers = {running.server.pid: session.name for session, running in states if running is not None}
        seen = gpu_facts.attribute(gpu_facts.read(facts), gpu_facts.tree(facts), servers)
        for session, running in states:
            if running is None:
                continue
            notebooks = {}
            current = session.current  # as of now: the token goes there
            same = current.proven_over is link and current.running == running
            if same and holds_kernels(seen, running.server.pid):
                notebooks = paths(link, running)
            self._sessions.apply(session, observed(running, seen, notebooks, trouble))


def holds_kernels(seen: list[Gpu], server: int) -> bool:
    """Tell whether kernels of a server hold a GPU: only then its notebooks are looked up."""
    return any(one.server == server and one.kernel is not None for gpu in seen for one in gpu.processes)


def observed(running: Running, seen: list[Gpu], notebooks: dict[str, str], trouble: Problem | None) -> GpusSeen:
    """Return what was seen of a session's GPUs.

    Args:
        running: its server.
        seen: the GPUs of its host, each process with its server and kernel.
        notebooks: paths by kernel, of this server.
        trouble: why the GPUs could not be seen.
    """
    server = running.server
    use = [
        GpuUse(
            gpu=gpu.index,
            pid=one.pid,
            memory=one.memory,
            kernel=one.kernel,
            notebook=notebooks.get(one.kernel) if one.kernel is not None else None,
        )
        for gpu in seen
        for one in gpu.processes
        if one.server == server.pid
    ]
    own = [gpu for gpu in seen if gpu.index in (server.gpus or ())]
    problems = [trouble] if trouble is not None else []
    for gpu in own:
        others = choose.others(gpu)
        if others:
            who = ", ".join(choose.held(one) for one in others[:3]) + (" and others" if len(others) > 3 else "")
            fix = "ask them, or restart the session on another GPU: jupyman check shows which are free"
            text = f"GPU {gpu.index} of this session is used by others too: {who}"
            problems.append(Problem(code="gpu-shared", severity="warning", text=text, fix=fix))
    lost = sorted(set(server.gpus or ()) - {gpu.index for gpu in own})
    if lost and trouble is None and seen:
        text = f"GPU {', '.join(map(str, lost))} of this session is not there any more"
        problems.append(Problem(code="gpu-gone", severity="error", text=text, fix="jupyman check shows what is left"))
    return GpusSeen(pid=server.pid, use=tuple(use), problems=tuple(problems))
