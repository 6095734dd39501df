"""What a way of running servers on a host must do, and the nouns it speaks of."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, Protocol

import msgspec

from jupyman.host.shell.script import Shell
from jupyman.model import App, LaunchSpec, Running

ProcessState = Literal["alive", "not-listening", "taken", "exited", "rebooted", "elsewhere"]


@dataclass(frozen=True)
class Record:
    """A launch record on the host.

    Attributes:
        running: the server that it speaks of.
        state: what has become of it.
        stopped_by: time and person, where somebody killed it on purpose.
        launch_id: random, of the launch that wrote it; None for an adopted server.
        kernels_exposed: what lets others into its kernels: `tcp`, or `debugger PID PORT`.
    """

    running: Running
    state: ProcessState
    stopped_by: str | None = None
    launch_id: str | None = None
    kernels_exposed: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The session's name."""
        return self.running.name

    @property
    def pid(self) -> int:
        """The server's process."""
        return self.running.server.pid

    @property
    def port(self) -> int | None:
        """The server's port."""
        return self.running.server.port

    @property
    def alive(self) -> bool:
        """Its process runs, whether or not it listens."""
        return self.state in {"alive", "not-listening", "taken"}


@dataclass(frozen=True)
class UnmanagedServer:
    """A Jupyter server of this account that jupyman did not start.

    Attributes:
        pid, start_ticks, boot_id: its identity.
        port: None where it listens on a UNIX socket, or on no address that 127.0.0.1 reaches.
        sock: path of its UNIX socket.
        exposed: it listens beyond loopback.
        kernels_exposed: what lets others into its kernels: `tcp`, or `debugger PID PORT`.
        file: its runtime file on the host.
        token: "" where it asks for none; None where it wants a password.
    """

    pid: int
    start_ticks: int
    boot_id: str
    port: int | None
    sock: str | None
    base_url: str
    token: str | None
    root_dir: str | None
    version: str | None
    app: App
    started: str | None
    exposed: bool
    secure: bool
    file: str
    node: str
    kernels_exposed: tuple[str, ...] = ()


@dataclass(frozen=True)
class Found:
    """Everything of Jupyter that this account has on a host.

    Attributes:
        node: the machine's name.
        user: the account.
        records: of this node, dead and alive.
        servers: running ones that no record speaks of.
        elsewhere: (node, session) of records of other nodes with the same home; never touched from here.
    """

    node: str
    user: str
    records: list[Record] = field(default_factory=list)
    servers: list[UnmanagedServer] = field(default_factory=list)
    elsewhere: list[tuple[str, str]] = field(default_factory=list)

    def other_node(self, name: str, node: str | None) -> str | None:
        """Return the other machine that has the session's server, None where this is the one.

        Args:
            name: of the session.
            node: where its server was started, as far as is known.
        """
        return node if node not in {None, self.node} and (node, name) in self.elsewhere else None


@dataclass(frozen=True)
class Liveness:
    """Does a server still run, proven by pid, start time, boot and the owner of the port's socket?

    Attributes:
        state: what was seen.
        text: one line for people.
        log: its last lines where it is not alive, tokens blotted out.
        stopped_by: time and person, where somebody killed it on purpose.
        code: of the problem that `ps` shows.
        kernels_exposed: what lets others into its kernels: `tcp`, or `debugger PID PORT`.
        token: that it has now; None where not told.
    """

    state: ProcessState
    text: str
    log: list[str] = field(default_factory=list)
    stopped_by: str | None = None
    code: str = "server-exited"
    kernels_exposed: tuple[str, ...] = ()
    token: str | None = field(default=None, repr=False)

    @property
    def dead(self) -> bool:
        """Its process is proven gone."""
        return self.state in {"exited", "rebooted"}

    def now(self, running: Running) -> Running:
        """Return the server with the token that it has now: another computer may have changed it."""
        return running if self.token is None else msgspec.structs.replace(running, token=self.token)

    @property
    def ok(self) -> bool:
        """The very server, and the port is its own: our token may go there."""
        return self.state == "alive"


class Launcher(Protocol):
    """One way of running servers: `nohup` (a module) is the first."""

    def launch(
        self,
        shell: Shell,
        spec: LaunchSpec,
        *,
        progress: Callable[[str], None] | None = None,
        cancelled: threading.Event | None = None,
    ) -> Running:
        """Start a server and wait until it answers."""

    def find(self, shell: Shell) -> Found:
        """Find what runs; changes nothing."""

    def verify(self, shell: Shell, running: Running) -> Liveness:
        """Prove that the server is still the one we know."""

    def renew(self, shell: Shell, running: Running) -> tuple[Liveness, str | None]:
        """Give it another token, without a restart; None where it cannot."""

    def stop(self, shell: Shell, running: Running, *, force: bool = False) -> bool:
        """End it with its kernels; False: it does not end."""
