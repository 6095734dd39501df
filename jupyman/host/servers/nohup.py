"""Servers as plain processes of the account: started under nohup and setsid, found by their records."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

import msgspec

from jupyman import errors
from jupyman.host.servers import launch as launching
from jupyman.host.servers import listing, liveness, records, token_renewal
from jupyman.host.servers.base import GRACE, Found, Liveness, Record, UnmanagedServer
from jupyman.host.shell import script
from jupyman.host.shell.script import Shell
from jupyman.model import LaunchSpec, Running, Server
from jupyman.model.endpoint import Endpoint
from jupyman.tools.jupyter import server as jupyter

_FOLLOW_TIMEOUT = 30 * 24 * 3600.0  # seconds


@dataclass(frozen=True)
class NohupLauncher:
    """A `Launcher` whose servers run on the machine that the login reaches.

    Attributes:
        login: the shell on that machine.
        client: who launches and stops, for the records.
    """

    login: Shell
    client: str = field(default_factory=records.client_name)

    def launch(
        self,
        spec: LaunchSpec,
        *,
        progress: Callable[[str], None] | None = None,
        listening: Callable[[Endpoint], None] | None = None,
        cancelled: threading.Event | None = None,
    ) -> Running:
        """Start a server: see `Launcher.launch`."""
        return launching.launch(
            self.login, spec, self.client, progress=progress, listening=listening, cancelled=cancelled
        )

    def find(self) -> Found:
        """Find every record and every server: see `Launcher.find`."""
        facts = script.run(self.login, "servers/find", {}, timeout=script.LOOK_TIMEOUT)
        return records.read(facts)

    def adopt(self, found: Record | UnmanagedServer, *, name: str | None = None, record: bool = True) -> Running:
        """Take over a running server: see `Launcher.adopt`."""
        if isinstance(found, Record):
            return records.adopted(found.running)
        running = _running(found, name or f"port-{found.port}")
        if not record:
            return running
        _refuse_unusable(found)
        if not jupyter.valid_name(running.name):
            raise errors.UsageFault(
                f"{running.name!r} is not a session name", "letters, digits, - . _; not only digits"
            )
        facts = script.run(
            self.login,
            "servers/adopt",
            {
                **records.identity(running),
                "NAME": running.name,
                "ENDPOINT": self._address(running),
                "RECORD": _record(found, running, self.client),
            },
            timeout=script.LOOK_TIMEOUT,
        )
        return msgspec.structs.replace(running, directory=facts.one("record.directory") or "")

    def verify(self, running: Running) -> Liveness:
        """Prove that a server is still the known one: see `Launcher.verify`."""
        facts = script.run(
            self.login,
            "servers/verify",
            {
                **records.identity(running),
                "ENDPOINT": self._address(running),
                "DIRECTORY": running.directory,
            },
            timeout=script.LOOK_TIMEOUT,
        )
        seen = liveness.judge(
            records.state(facts.one("state")),
            pid=running.server.pid,
            log=facts.all("log"),
            oom=facts.one("oom") is not None,
            stopped_by=facts.one("stopped_by"),
            nodes=(running.server.node or "?", facts.one("node") or "?"),
        )
        return dataclasses.replace(
            seen, kernels_exposed=tuple(facts.all("kernels")), token=jupyter.token(facts.one("token"))
        )

    def renew(self, running: Running) -> tuple[Liveness, str | None]:
        """Give a server another token: see `Launcher.renew`."""
        if not running.directory or self.where(running) is None:
            return liveness.judge("alive", pid=running.server.pid, log=[]), None
        return token_renewal.renew(self.login, running, self._address(running))

    def stop(self, running: Running, *, force: bool = False, grace: int = GRACE) -> bool:
        """End a server with its kernels: see `Launcher.stop`."""
        facts = script.run(
            self.login,
            "servers/stop",
            {
                **records.identity(running),
                "DIRECTORY": running.directory,
                "GRACE": str(grace),
                "FORCE": "1" if force else "0",
                "BY": self.client,
            },
            timeout=grace + script.LOOK_TIMEOUT,
        )
        return facts.one("state") != "alive"

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
        """Read a server's log: see `Launcher.logs`."""
        if not jupyter.valid_name(name):
            raise errors.UsageFault(f"{name!r} is not a session name", "see jupyman ps")

        def on_fact(key: str, value: str) -> None:
            if key == "line":
                on_line(value)

        script.run(
            self.login,
            "servers/logs",
            {
                "NAME": name,
                "DIRECTORY": directory or "",
                "LINES": str(max(0, lines)),
                "FOLLOW": "1" if follow else "0",
            },
            timeout=_FOLLOW_TIMEOUT if follow else script.LOOK_TIMEOUT,
            on_fact=on_fact,
            cancelled=cancelled,
        )

    def where(self, running: Running) -> Endpoint | None:
        """Return where a server listens: see `Launcher.where`."""
        return running.endpoint

    def shell(self, running: Running) -> Shell:  # noqa: ARG002 - every server runs where the login is
        """Return the shell of the login."""
        return self.login

    def _address(self, running: Running) -> str:
        """Return the port or path by which a script finds the server's listening socket; "" for neither."""
        where = self.where(running)
        return str(where.address) if where is not None else ""


def _refuse_unusable(found: UnmanagedServer) -> None:
    """Refuse a server that no forward can use."""
    if found.secure:
        why = "uses TLS"
    elif found.token is None:
        why = "requires a password"
    elif found.port is None and found.sock is None:
        why = "listens neither on loopback nor on a UNIX socket"
    else:
        return
    raise errors.UsageFault(
        f"the server with pid {found.pid} {why}, so it cannot be adopted",
        "stop it and let jupyman start one, or start it without that setting",
    )


def _running(found: UnmanagedServer, name: str) -> Running:
    return Running(
        name=name,
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
        sock=found.sock if found.port is None else None,
        problems=listing.problems(found),
    )


def _record(found: UnmanagedServer, running: Running, client: str) -> str:
    return records.lines(
        {
            "version": "1",
            "name": running.name,
            "pid": str(found.pid),
            "start_ticks": str(found.start_ticks),
            "port": str(found.port or ""),
            "sock": running.sock or "",
            "base_url": found.base_url,
            "app": found.app,
            "root_dir": found.root_dir or "",
            "started": found.started or "",
            "jupyter": found.version or "",
            "runtime_file": found.file,
            "client": client,
        }
    )
