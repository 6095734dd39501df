"""A launcher whose servers are objects of this process: what it promises is what `NohupLauncher` does on a host."""

from __future__ import annotations

import contextlib
import itertools
import secrets
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import msgspec

from jupyman import errors
from jupyman.host.servers import liveness
from jupyman.host.servers.base import GRACE, Found, Liveness, ProcessState, Record, UnmanagedServer
from jupyman.host.servers.records import identity
from jupyman.host.shell.script import Shell
from jupyman.model import LaunchSpec, Running, Server
from jupyman.model.endpoint import LOOPBACK, Endpoint
from jupyman.tools.jupyter.server import valid_name


@dataclass
class FakeProcess:
    """A server: it answers `/api/status` on a port of this computer, with its token only."""

    pid: int
    token: str
    alive: bool = True
    log: list[str] = field(default_factory=lambda: ["Serving notebooks", "Use Control-C to stop this server"])

    def __post_init__(self) -> None:
        process = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                known = self.headers.get("Authorization") == f"token {process.token}"
                self.send_response(200 if known else 403)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:
                process.log.append(format % args)

        self._http = ThreadingHTTPServer((LOOPBACK, 0), Handler)
        self._http.daemon_threads = True
        self.port = self._http.server_address[1]
        threading.Thread(target=self._http.serve_forever, args=(0.01,), daemon=True).start()

    def end(self) -> None:
        if self.alive:
            self.alive = False
            self._http.shutdown()
            self._http.server_close()


@dataclass
class FakeHost:
    """One machine: its processes by pid, the records of its sessions by name, and servers started by hand."""

    node: str = "node-a"
    boot_id: str = "boot-1"
    processes: dict[int, FakeProcess] = field(default_factory=dict)
    records: dict[str, Record] = field(default_factory=dict)
    by_hand: list[UnmanagedServer] = field(default_factory=list)
    pids: Iterator[int] = field(default_factory=lambda: itertools.count(100))

    def start(self) -> FakeProcess:
        process = FakeProcess(next(self.pids), secrets.token_hex(24))
        self.processes[process.pid] = process
        return process

    def kill(self, pid: int) -> None:
        self.processes[pid].end()

    def close(self) -> None:
        for process in self.processes.values():
            process.end()

    def state(self, running: Running) -> ProcessState:
        process = self.processes.get(running.server.pid)
        if running.boot_id != self.boot_id:
            return "rebooted"
        if process is None or not process.alive or running.start_ticks != ticks(process.pid):
            return "exited"
        return "alive" if process.port == running.server.port else "not-listening"


def ticks(pid: int) -> int:
    return 1000 + pid


@dataclass(frozen=True)
class FakeLauncher:
    """A `Launcher` on a `FakeHost`."""

    host: FakeHost
    login: Shell
    client: str = "tester@here"

    def launch(
        self,
        spec: LaunchSpec,
        *,
        progress: Callable[[str], None] | None = None,
        listening: Callable[[Endpoint], None] | None = None,
        cancelled: threading.Event | None = None,
    ) -> Running:
        if not valid_name(spec.name):
            raise errors.UsageFault(f"{spec.name!r} is not a session name")
        if not spec.ports and not spec.sock:
            raise errors.PortInUse("no port to try")
        standing = self.host.records.get(spec.name)
        if standing is not None and self.host.state(standing.running) == "alive":
            return self.adopt(standing)
        if progress is not None:
            progress("starting")
        if cancelled is not None and cancelled.is_set():
            raise errors.Interrupted("interrupted")
        process = self.host.start()
        running = Running(
            name=spec.name,
            server=Server(
                pid=process.pid,
                port=process.port,
                version="2.0.0",
                app=spec.app,
                env=spec.env.prefix,
                root_dir=spec.dir or "/home/tester",
                started="2026-01-02T03:04:05Z",
                gpus=spec.gpus,
                node=self.host.node,
            ),
            token=process.token,
            directory=f"/home/tester/.local/state/jupyman/{self.host.node}/{spec.name}",
            base_url="/",
            boot_id=self.host.boot_id,
            start_ticks=ticks(process.pid),
        )
        self.host.records[spec.name] = Record(running, "alive", launch_id=secrets.token_hex(8))
        if listening is not None:
            listening(Endpoint(None, process.port))
        return running

    def find(self) -> Found:
        records = [replace(one, state=self.host.state(one.running)) for one in self.host.records.values()]
        recorded = {one.pid for one in records}
        servers = [one for one in self.host.by_hand if one.pid not in recorded and self.host.processes[one.pid].alive]
        return Found(node=self.host.node, user="tester", records=records, servers=servers)

    def adopt(self, found: Record | UnmanagedServer, *, name: str | None = None, record: bool = True) -> Running:
        if isinstance(found, Record):
            running = found.running
            return msgspec.structs.replace(running, server=msgspec.structs.replace(running.server, adopted=True))
        if record and (found.secure or found.token is None or found.port is None):
            raise errors.UsageFault("it cannot be taken over")
        running = Running(
            name=name or f"port-{found.port}",
            server=Server(
                pid=found.pid,
                port=found.port,
                version=found.version,
                app=found.app,
                env=None,
                root_dir=found.root_dir,
                started=found.started,
                adopted=True,
                node=found.node,
            ),
            token=found.token or "",
            directory="",
            base_url=found.base_url,
            boot_id=found.boot_id,
            start_ticks=found.start_ticks,
        )
        if record:
            running = msgspec.structs.replace(running, directory=f"/home/tester/{running.name}")
            self.host.records[running.name] = Record(running, "alive")
        return running

    def verify(self, running: Running) -> Liveness:
        state, record = self.host.state(running), self.host.records.get(running.name)
        process = self.host.processes.get(running.server.pid)
        return replace(
            liveness.judge(
                state,
                pid=running.server.pid,
                log=process.log if process is not None and state != "alive" else [],
                stopped_by=record.stopped_by if record is not None else None,
            ),
            token=process.token if process is not None and state == "alive" else None,
        )

    def renew(self, running: Running) -> tuple[Liveness, str | None]:
        seen = self.verify(running)
        record = self.host.records.get(running.name)
        if not seen.ok or record is None or record.launch_id is None:
            return seen, None
        token = self.host.processes[running.server.pid].token = secrets.token_hex(24)
        self.host.records[running.name] = replace(record, running=msgspec.structs.replace(running, token=token))
        return seen, token

    def stop(self, running: Running, *, force: bool = False, grace: int = GRACE) -> bool:
        del force, grace
        record = self.host.records.get(running.name)
        known = self.host.state(running) in {"alive", "not-listening"}
        if record is not None and identity(record.running) == identity(running):
            self.host.records[running.name] = replace(record, stopped_by=f"2026-01-02T03:04:05Z {self.client}")
        if known:
            self.host.processes[running.server.pid].log.append("received signal 15, stopping")
            self.host.kill(running.server.pid)
        return True

    def logs(
        self,
        name: str,
        directory: str | None,
        *,
        lines: int,
        follow: bool,
        on_line: Callable[[str], None],
        cancelled: threading.Event | None = None,
    ) -> None:
        del directory
        record = self.host.records.get(name)
        if record is None:
            raise errors.UsageFault(f"session {name} has no log on this host")
        log = self.host.processes[record.pid].log
        for line in log[max(0, len(log) - lines) :]:
            on_line(line)
        if follow and cancelled is not None:
            cancelled.wait(60)
            raise errors.Interrupted("interrupted")

    def where(self, running: Running) -> Endpoint | None:
        return Endpoint(running.server.node, running.server.port) if running.server.port is not None else None

    def shell(self, running: Running) -> Shell:
        del running
        return self.login


@contextlib.contextmanager
def fake_host() -> Iterator[FakeHost]:
    made = FakeHost()
    try:
        yield made
    finally:
        made.close()
