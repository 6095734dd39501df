"""Sessions, servers, links and forwards: what the user wants, and what `ps` lists."""

from __future__ import annotations

from typing import Literal

import msgspec

from jupyman.model.base import Noun, Problem
from jupyman.model.endpoint import Endpoint
from jupyman.model.environment import App, Environment
from jupyman.model.gpu import GpuUse

OnConflict = Literal["next", "ask", "kill", "fail"]
Restart = Literal["never", "always"]
ServerState = Literal["queued", "starting", "running", "lost", "exited"]
LinkState = Literal["idle", "connecting", "up", "reconnecting", "needs-auth", "failed"]
ForwardState = Literal["up", "waiting"]


class Server(Noun, frozen=True, kw_only=True):
    """A Jupyter Server process on a host."""

    pid: int
    port: int | None
    version: str | None
    app: App
    env: str | None
    root_dir: str | None
    started: str | None
    gpus: list[int] | None = None
    adopted: bool = False
    node: str | None = None
    kernel_env: str | None = None


class FoundServer(Noun, frozen=True, kw_only=True):
    """A server on a host that no session owns (`ps --all`)."""

    host: str
    pid: int | None  # None: it runs on another node, whose processes cannot be seen from here
    port: int | None
    user: str
    root_dir: str | None
    started: str | None
    url: str | None = None
    node: str | None = None
    version: str | None = None
    session: str | None = None  # the name in its launch record if jupyman started it
    problems: list[Problem] = []


class LaunchSpec(Noun, frozen=True, kw_only=True):
    """What to start on the host. Never printed."""

    name: str
    env: Environment
    kernel_env: Environment | None
    dir: str | None
    app: App
    ports: list[int]  # candidates in order of preference; unused when the server listens on a socket
    cuda_visible_devices: str | None
    timeout: float  # seconds
    kernel_name: str | None = None  # the default kernel
    sock: bool = False  # listen on a private UNIX socket if the server supports it
    scope: bool = False  # run in a systemd user scope, which survives the logout
    gpus: list[int] | None = None
    debugger: bool | None = None  # JupyterLab's; None: only if nobody else has an account on the host


class Running(Noun, frozen=True, kw_only=True):
    """A server that has answered, with everything that proves that it is ours. Never printed: it has the token."""

    name: str
    server: Server
    token: str
    directory: str  # on the host: record, log, token
    base_url: str
    boot_id: str
    start_ticks: int
    sock: str | None = None  # path of the UNIX socket that it listens on instead of a port
    problems: list[Problem] = []

    @property
    def endpoint(self) -> Endpoint | None:
        """Where it listens: on its socket, else on its port; None when nothing that can be forwarded leads to it."""
        address = self.sock if self.sock is not None else self.server.port
        return Endpoint(self.server.node, address) if address is not None else None


class LinkStatus(Noun, frozen=True, kw_only=True):
    """State of the one SSH connection to a host.

    `silent_since` is set while the connection still exists but the host does not respond; `state` is then
    "reconnecting".
    """

    state: LinkState = "idle"
    since: str | None = None
    reconnects: int = 0
    last_error: str | None = None
    next_attempt: str | None = None
    silent_since: str | None = None


class Forward(Noun, frozen=True, kw_only=True):
    """A local endpoint tied to a remote endpoint."""

    local: str
    remote: str
    state: ForwardState
    open: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    share: bool = False  # other users of this computer may connect too


class HostForward(Forward, frozen=True, kw_only=True):
    """A forward that belongs to no session (the verb `tunnel`)."""

    host: str
    link: LinkStatus | None = None
    problems: list[Problem] | msgspec.UnsetType = msgspec.UNSET  # absent when there are none


class Session(Noun, frozen=True, kw_only=True):
    """What `up` makes: one server on a host plus its forwards."""

    name: str
    host: str
    state: ServerState
    link: LinkStatus
    server: Server | None = None
    url: str | None = None
    forwards: list[Forward] = []
    held: str | None = None  # the local endpoint that stays reserved while the session is down
    job: None = None
    problems: list[Problem] = []
    gpu_use: list[GpuUse] = []


class SessionSpec(Noun, frozen=True, kw_only=True):
    """What the user wants of a session. Stored on disk, never printed."""

    name: str
    host: str
    env: str | None = None
    dir: str | None = None
    app: App = "lab"
    gpu: str | None = None
    port: int | None = None
    local_port: int | None = None  # the port that was bound; it never changes again
    on_conflict: OnConflict = "next"
    restart: Restart = "never"
    timeout: float = 120.0  # seconds
    wanted: bool = True
    pid: int | None = None  # of the last known server: tells `exited` from "never started"
    node: str | None = None  # the machine it runs on: one alias may lead to several machines with the same home
    adopted: bool = False  # that server was taken over, not launched
    said: list[str] | None = None  # the fields that a command line named; None: 0.1.0 did not record it
    released: bool = False  # `down --release`: the local port is not reserved while the session is not wanted
    heard: bool = False  # another user had its local port and may know its token, which has not been changed since


class TunnelSpec(Noun, frozen=True, kw_only=True):
    """A forward that the user wants. Stored on disk, never printed."""

    host: str
    local_port: int  # the port that was bound; it never changes again
    address: str
    port: int
    asked: int | None = None  # the local port that was requested
    share: bool = False  # other users of this computer may connect too
