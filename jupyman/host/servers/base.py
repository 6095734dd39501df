"""What a launcher does, and the facts about servers that it returns."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, Protocol

import msgspec

from jupyman.host.shell.script import Shell
from jupyman.model import App, LaunchSpec, Running
from jupyman.model.endpoint import Endpoint

GRACE = 10  # seconds between SIGTERM and SIGKILL; a server with kernels needs about 3
ProcessState = Literal["alive", "not-listening", "taken", "exited", "rebooted", "elsewhere"]


@dataclass(frozen=True)
class Record:
    """A launch record on the host.

    Attributes:
        running: the server that it describes.
        state: of the server's process.
        stopped_by: time and person, when somebody stopped it on purpose.
        launch_id: random, of the launch that wrote it; None for an adopted server.
        kernels_exposed: what opens its kernels to other users: `tcp`, or `debugger PID PORT`.
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
        """Whether its process runs; it need not listen."""
        return self.state in {"alive", "not-listening", "taken"}


@dataclass(frozen=True)
class UnmanagedServer:
    """A Jupyter server of this account that jupyman did not start.

    Attributes:
        pid, start_ticks, boot_id: its identity.
        port: None when it listens on a UNIX socket, or on no address that loopback reaches.
        sock: path of its UNIX socket.
        exposed: it listens beyond loopback.
        kernels_exposed: what opens its kernels to other users: `tcp`, or `debugger PID PORT`.
        file: its runtime file on the host.
        token: "" if it requires none; None if it requires a password.
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
        servers: running ones without a record.
        elsewhere: (node, session) of records of other nodes with the same home; never touched from here.
    """

    node: str
    user: str
    records: list[Record] = field(default_factory=list)
    servers: list[UnmanagedServer] = field(default_factory=list)
    elsewhere: list[tuple[str, str]] = field(default_factory=list)

    def other_node(self, name: str, node: str | None) -> str | None:
        """Return the other machine that has the session's server, None when this machine has it.

        Args:
            name: of the session.
            node: where its server was started; None: not known.
        """
        return node if node not in {None, self.node} and (node, name) in self.elsewhere else None


@dataclass(frozen=True)
class Liveness:
    """Whether a server still runs, proven by pid, start time, boot id and the owner of its listening socket.

    Attributes:
        state: what was seen.
        text: one line for people.
        log: its last lines when it is not alive, tokens redacted.
        stopped_by: time and person, when somebody stopped it on purpose.
        code: of the problem that `ps` shows.
        kernels_exposed: what opens its kernels to other users: `tcp`, or `debugger PID PORT`.
        token: its token now; None when the host did not send it.
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
        """Whether its process is proven gone."""
        return self.state in {"exited", "rebooted"}

    def now(self, running: Running) -> Running:
        """Return the server with its present token, which another computer may have changed."""
        return running if self.token is None else msgspec.structs.replace(running, token=self.token)

    @property
    def ok(self) -> bool:
        """The known server, and the socket is its own: our token may go there."""
        return self.state == "alive"


class Launcher(Protocol):
    """One way of running servers, on one host: as plain processes, or as jobs of a scheduler.

    A launcher is made for a shell on the machine that the SSH login reaches, and lives as long as that shell; what it
    knows about servers is on the host. It finds its own way to the machine on which a server runs.

    All methods raise LinkLost or RemoteFailed as `script.run` does.
    """

    def launch(
        self,
        spec: LaunchSpec,
        *,
        progress: Callable[[str], None] | None = None,
        listening: Callable[[Endpoint], None] | None = None,
        cancelled: threading.Event | None = None,
    ) -> Running:
        """Start a server and wait until it answers; a session that already has one gets that one.

        Args:
            spec: what to start; `spec.timeout` in seconds.
            progress: called with a text for each step.
            listening: called as soon as the server's socket is proven to be its own; the server is then still being
                asked for its status on its own machine.
            cancelled: when set, whatever was started is ended again.

        Returns:
            The server, proven as by `verify`; `server.adopted` is true when it ran before.

        Raises:
            UsageFault: the session's name is not valid.
            ServerExited: it ended, or accepts requests without a token; details["log"] has its last lines.
            LaunchTimedOut: it did not answer in time and was ended.
            PortInUse: no candidate port is free.
            NotOurs: a file or directory that is needed belongs to another user.
            RemoteFailed: disk full, no permission, no such directory.
            Interrupted: `cancelled` was set; nothing is left.
        """

    def find(self) -> Found:
        """Find every record of this node and every Jupyter server of this account; nothing is changed."""

    def adopt(self, found: Record | UnmanagedServer, *, name: str | None = None, record: bool = True) -> Running:
        """Take over a running server.

        Args:
            found: from `find`.
            name: of the session; the record's own when None.
            record: write a record for a server that jupyman did not start, so that other computers see whose it is.

        Returns:
            The server with its token; it must be proven by `verify` before the token is used.

        Raises:
            UsageFault: loopback does not reach it and it has no socket, or it uses TLS, or requires a password.
            ServerExited: it is gone.
        """

    def verify(self, running: Running) -> Liveness:
        """Prove that a server is still the known one, before any token goes to its endpoint.

        The process id, its start time and the boot id are compared, and the listening socket of the endpoint must be
        one of the process's own.
        """

    def renew(self, running: Running) -> tuple[Liveness, str | None]:
        """Give a server another token without a restart: the old one, and the cookies it gave, no longer work.

        Returns:
            What was seen of the server, as by `verify`; and the new token, proven on the host. None: nothing was
            changed, because the server is gone (see the first) or cannot do it (the user or an older jupyman started
            it).

        Raises:
            RemoteFailed: disk full, no permission, or the server did not answer; it keeps its old token then.
            NotOurs: a file or directory that is needed belongs to another user.
            LinkLost: whether the token was changed is for `verify` to find out.
        """

    def stop(self, running: Running, *, force: bool = False, grace: int = GRACE) -> bool:
        """End a server with its kernels and what they started; a process that is not the known one is not touched.

        Args:
            running: the server.
            force: send SIGKILL when it has not ended after `grace` seconds.
            grace: seconds after SIGTERM.

        Returns:
            False when it still runs (only without `force`, or when it is stuck in the kernel).
        """

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
        """Read a server's log with its tokens redacted.

        Args:
            name: the session.
            directory: the session's directory on the host; None: it is found by the session's name.
            lines: how many of the last.
            follow: go on until `cancelled`.
            on_line: called with each line.
            cancelled: ends it.

        Raises:
            UsageFault: there is no log.
            Interrupted: `cancelled` was set.
        """

    def where(self, running: Running) -> Endpoint | None:
        """Return where a server listens; None when nothing that can be forwarded leads to it."""

    def shell(self, running: Running) -> Shell:
        """Return the shell that reaches the machine on which a server runs."""


LauncherFactory = Callable[[Shell], Launcher]
