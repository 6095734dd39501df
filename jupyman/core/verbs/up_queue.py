"""`up`, one at a time for a session: equal requests share one run, a differing one waits for the one before.

Threads: `up` runs in the thread of each request; the work itself runs in a thread of its `SharedOperation`. `_lock`
guards `_latest` and is never held while anything waits.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any, NamedTuple

import msgspec

from jupyman import api, errors
from jupyman.api import Operation
from jupyman.core.runtime.one_time_codes import OneTimeCodes
from jupyman.core.runtime.shared_operation import SharedOperation
from jupyman.core.sessions.registry import SessionRuntime
from jupyman.core.sessions.state import ProblemSeen
from jupyman.core.verbs import open as opening
from jupyman.core.verbs import request_host, up_plan
from jupyman.core.verbs.host_call import VerbCall
from jupyman.core.verbs.up import UpFlow
from jupyman.model import Session, SessionSpec
from jupyman.model.problem_codes import new_problem

log = logging.getLogger(__name__)


def wanted(request: api.Up, call: VerbCall) -> SessionSpec:
    """Merge the given options, the stored session, and config.toml; nothing else merges them.

    Raises:
        UsageFault: the session or its host cannot be determined.
        ConfigFault: config.toml asks for a Slurm job.
    """
    host, name = request_host.of_up(request, call)
    config = call.hosts.config
    for table, entry in config.hosts.items():
        if host in {table, entry.ssh}:  # also when the user names the address instead of the table
            up_plan.refuse_slurm(table, entry)
    session = call.sessions.find(name)
    return up_plan.merge(
        request,
        name,
        host,
        session.spec if session is not None else None,
        call.hosts.entry(host),
        config.defaults,
        ended=session is not None and session.state == "exited",
        interactive=call.interactive,
    )


class _Key(NamedTuple):
    """What two requests must have in common to share a run: see `UpFlow`."""

    request: api.Up
    downs: int
    session: SessionRuntime | None


class UpQueue:
    """Runs `up`.

    Args:
        codes: for the browser that is opened on a session.
        suspect: called when a host refused a connection to a server; must not wait.
    """

    def __init__(self, codes: OneTimeCodes, suspect: Callable[[], None]) -> None:
        self._codes = codes
        self._suspect = suspect
        self._lock = threading.Lock()
        self._latest: dict[str, tuple[_Key, SharedOperation]] = {}  # by session: under way, or the last one

    def up(self, request: api.Up, call: VerbCall) -> Session:
        """Start, adopt or find a session's server, and forward it.

        Raises:
            JupymanError: see `UpFlow.run`.
        """
        spec = wanted(request, call)
        known = call.sessions.find(spec.name)
        shared = self._shared(request, spec, call, downs=known.downs if known is not None else 0)
        try:
            session: Session = shared.join(call.operation)
        except errors.Interrupted:
            if call.cancelled.is_set() or not shared.cancelled.is_set():
                raise
            # The last client before this one left just as this one joined: that was not this client's Ctrl-C.
            return self.up(request, call)
        if request.open_browser:
            opening.send_browser(spec.name, call, self._codes)
        return session

    def restart(self, session: SessionRuntime, why: str, call: VerbCall) -> None:
        """Start a server that died again, in a thread of its own: same port, token and directory.

        A `down` or `kill` that comes first, or meanwhile, stands.

        Args:
            session: whose server it was.
            why: how it ended.
            call: nobody waits for it.
        """
        before = session.current
        name, spec = before.name, before.spec
        if not spec.wanted:
            return
        port = before.running.server.port if before.running is not None else None
        request = api.Up(host=spec.host, name=name, port=port, timeout=spec.timeout)

        def work() -> None:
            try:
                self._shared(request, wanted(request, call), call, downs=before.downs, session=session).join(
                    call.operation
                )
            except errors.JupymanError as error:
                if session.current.killed or session.current.downs != before.downs:
                    log.info("session %s: not restarted: %s", name, error.message)
                    return
                text = f"{why}; it could not be started again: {error.message}"
                problem = new_problem("restart-failed", text, error.hint)
            else:
                count = len(session.current.restarts)
                times = "once" if count == 1 else f"{count} times"
                text = f"restarted {times}, the last time because {why}"
                problem = new_problem("server-restarted", text, f"jupyman logs {name}")
            log.info("session %s: %s", name, problem.text)
            call.sessions.apply(session, ProblemSeen(problem=problem))

        threading.Thread(target=work, name=f"restart {name}", daemon=True).start()

    def _shared(
        self, request: api.Up, spec: SessionSpec, call: VerbCall, *, downs: int, session: SessionRuntime | None = None
    ) -> SharedOperation:
        """Return the run that serves the request: the one under way for an equal request, else a new one."""
        # An `up` after a `down` is not served by the run before it, and none by a restart, which makes no session.
        same = _Key(msgspec.structs.replace(request, open_browser=False), downs, session)
        with self._lock:
            latest, shared = self._latest.get(spec.name, (None, None))
            if shared is None or shared.ended or shared.cancelled.is_set() or latest != same:
                flow = UpFlow(call.hosts, call.sessions, request, spec, self._suspect, downs=downs, session=session)
                shared = SharedOperation(_after(shared, flow.run), call.operation.client)
                self._latest[spec.name] = (same, shared)
        return shared


def _after(previous: SharedOperation | None, work: Callable[[Operation], Any]) -> Callable[[Operation], Any]:
    """Return work that first waits for the one before, however that ends."""
    if previous is None or previous.ended:
        return work

    def wait_then_work(operation: Operation) -> Any:
        operation.emit(api.Step(key="wait", text="waiting for another up of this session", state="run"))
        # Also when the client leaves meanwhile: the next one would find nothing under way.
        previous.wait()
        return work(operation)

    return wait_then_work
