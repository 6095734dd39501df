"""The nouns: frozen structs that cross the API, go to disk, and are printed by ``--json``.

Times are RFC 3339 UTC strings, sizes are bytes, ports are integers; a value not known is None, never 0 or "".
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from jupyman.model.gpu import DeepCheck as DeepCheck
from jupyman.model.gpu import Driver as Driver
from jupyman.model.gpu import Gpu as Gpu
from jupyman.model.gpu import GpuProcess as GpuProcess
from jupyman.model.gpu import GpuUse as GpuUse
from jupyman.model.gpu import MigInstance as MigInstance
from jupyman.model.gpu import Toolkit as Toolkit
from jupyman.model.gpu import Torch as Torch
from jupyman.model.gpu import Verdict as Verdict

App = Literal["lab", "notebook", "server"]
OnConflict = Literal["next", "ask", "kill", "fail"]
Restart = Literal["never", "always"]
ServerState = Literal["queued", "starting", "running", "lost", "exited"]
LinkState = Literal["idle", "connecting", "up", "reconnecting", "needs-auth", "failed"]
ForwardState = Literal["up", "waiting"]
Severity = Literal["info", "warning", "error"]
# `incomplete`: its making was broken off, and nothing is run from it; `installing`: it is under way.
EnvState = Literal["ready", "installing", "incomplete"]


class Noun(msgspec.Struct, frozen=True, kw_only=True):
    """Base of every struct here: immutable, built by keyword."""


class ErrorInfo(Noun, frozen=True, kw_only=True):
    """An error as it crosses the API: see errors.py."""

    code: str
    message: str
    hint: str
    details: dict[str, Any] = {}


class Problem(Noun, frozen=True, kw_only=True):
    """A finding that does not stop the work."""

    code: str
    severity: Severity
    text: str
    fix: str


# --- sessions -----------------------------------------------------------------------------------------------------


class LinkStatus(Noun, frozen=True, kw_only=True):
    """State of the one SSH connection to a host.

    `silent_since` is set while the connection still stands and the host gives no sign of life; `state` is
    "reconnecting" then.
    """

    state: LinkState = "idle"
    since: str | None = None
    reconnects: int = 0
    last_error: str | None = None
    next_attempt: str | None = None
    silent_since: str | None = None


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


class Forward(Noun, frozen=True, kw_only=True):
    """A local endpoint tied to a remote endpoint."""

    local: str
    remote: str
    state: ForwardState
    open: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    share: bool = False  # other users of this computer may connect, too


class HostForward(Forward, frozen=True, kw_only=True):
    """A forward that belongs to no session (the verb `tunnel`)."""

    host: str
    link: LinkStatus | None = None
    problems: list[Problem] | msgspec.UnsetType = msgspec.UNSET  # not there where there is none


class Session(Noun, frozen=True, kw_only=True):
    """What `up` makes: one server on a host plus its forwards."""

    name: str
    host: str
    state: ServerState
    link: LinkStatus
    server: Server | None = None
    url: str | None = None
    forwards: list[Forward] = []
    held: str | None = None  # the local endpoint that stays ours while the session is down
    job: None = None
    problems: list[Problem] = []
    gpu_use: list[GpuUse] = []


class FoundServer(Noun, frozen=True, kw_only=True):
    """A server on a host that no session owns (`ps --all`)."""

    host: str
    pid: int | None  # None: it was started on another node, of whose processes nothing is known here
    port: int | None
    user: str
    root_dir: str | None
    started: str | None
    url: str | None = None
    node: str | None = None
    version: str | None = None
    session: str | None = None  # the name in its launch record, where jupyman started it
    problems: list[Problem] = []


class Unreachable(Noun, frozen=True, kw_only=True):
    """A host that could not be asked for its servers (`ps --all`), or that nobody knows."""

    host: str
    error: ErrorInfo


class Ps(Noun, frozen=True, kw_only=True):
    """The answer of `ps`."""

    sessions: list[Session] = []
    forwards: list[HostForward] = []
    servers: list[FoundServer] = []
    unreachable: list[Unreachable] | msgspec.UnsetType = msgspec.UNSET  # not there where there is none


# --- the host report ----------------------------------------------------------------------------------------------


class Environment(Noun, frozen=True, kw_only=True):
    """A prefix with a Python."""

    name: str
    prefix: str
    kind: Literal["conda", "mamba", "micromamba", "venv", "uv", "system"]
    python: str | None  # its version
    jupyter: str | None  # jupyter_server's (or notebook 6's) version, None where Jupyter cannot run from here
    ipykernel: str | None
    torch: Torch | None
    apps: list[App] = []  # which of lab, notebook, server can run
    root: str | None = None  # the conda root that it belongs to
    executable: str | None = None  # its python
    lodger: bool = False  # another user made it in a shared folder: it is chosen only where it is named
    real: str | None = None  # the prefix with all links followed
    state: EnvState = "ready"
    cudnn: str | None = None  # of its conda package or wheel
    torch_by: Literal["conda", "pip"] | None = None  # what installed torch
    torch_foreign: bool = False  # it has torch, and its folder is another user's, or everybody may write there
    torch_with: list[str] = []  # packages that go with one torch release only: torchvision, torchaudio


class PortHolder(Noun, frozen=True, kw_only=True):
    """A listening TCP socket on the host."""

    port: int
    address: str
    uid: int | None
    user: str | None
    pid: int | None
    command: str | None
    ours: bool  # the socket belongs to the account that we logged in with
    start_ticks: int | None = None  # field 22 of /proc/PID/stat, for the check just before a signal
    boot_id: str | None = None  # of the host when it was looked at, likewise


class Disk(Noun, frozen=True, kw_only=True):
    """Room in the home directory, bytes."""

    path: str
    total: int | None
    free: int | None
    quota: int | None = None
    quota_used: int | None = None
    filesystem: str | None = None


class HostReport(Noun, frozen=True, kw_only=True):
    """What one probe saw (`check --json`)."""

    host: str
    os: str | None
    user: str
    shell: str | None
    gpus: list[Gpu] = []
    driver: Driver | None = None
    cuda_toolkits: list[Toolkit] = []
    cudnn: str | None = None
    environments: list[Environment] = []
    jupyter: list[FoundServer] = []
    ports: list[PortHolder] = []
    disk: Disk | None = None
    slurm: str | None = None
    verdicts: list[Verdict] = []
    deep: list[DeepCheck] = []
    problems: list[Problem] = []
    home: str | None = None
    node: str | None = None
    uid: int | None = None
    boot_id: str | None = None
    survival: Literal["plain", "scope", "logout"] = "plain"  # how a server outlives the login (tools/host/logind.py)


class KernelSpec(Noun, frozen=True, kw_only=True):
    """Jupyter's kernel.json entry."""

    name: str
    display_name: str
    prefix: str | None
    argv: list[str]
    ok: bool | None
    problem: str | None
    directory: str | None = None
    environment: str | None = None  # the name of the one that it runs in
    seen_by: list[str] | None = None  # environments whose servers show it; None: every server does
    ipywidgets: str | None = None  # the version in its environment (`kernel check`)


class Repair(Noun, frozen=True, kw_only=True):
    """A command on the host that mends a problem, by the environment's own tool."""

    prefix: str
    packages: list[str]
    command: list[str]
    state: Literal["proposed", "declined", "done"]


class Kernels(Noun, frozen=True, kw_only=True):
    """The answer of `kernel ls` and `kernel check`; only the latter knows of problems and repairs."""

    kernels: list[KernelSpec]
    problems: list[Problem] = []
    repairs: list[Repair] = []


class KernelAdded(Noun, frozen=True, kw_only=True):
    """The answer of `kernel add`: the spec and the interpreter that it really ran."""

    kernel: KernelSpec
    executable: str
    python: str | None
    refreshed: bool
    problems: list[Problem] = []


class Environments(Noun, frozen=True, kw_only=True):
    """The answer of `env ls`."""

    environments: list[Environment]


class KnownHost(Noun, frozen=True, kw_only=True):
    """A row of `host ls`."""

    name: str
    ssh: str
    source: Literal["config", "ssh_config", "session"]
    link: LinkStatus | None = None


class KnownHosts(Noun, frozen=True, kw_only=True):
    """The answer of `host ls`."""

    hosts: list[KnownHost]


# --- what the core works with; never printed, the token never leaves memory except in `url` -----------------------


class SessionSpec(Noun, frozen=True, kw_only=True):
    """What the user wants: kept on disk."""

    name: str
    host: str
    env: str | None = None
    dir: str | None = None
    app: App = "lab"
    gpu: str | None = None
    port: int | None = None
    local_port: int | None = None  # the one that was bound; kept for good
    on_conflict: OnConflict = "next"
    restart: Restart = "never"
    timeout: float = 120.0
    wanted: bool = True
    pid: int | None = None  # the server we last knew: to tell `exited` from "never started"
    node: str | None = None  # the machine on which it runs: an alias may lead to several with the same home
    adopted: bool = False  # that server was taken over, not launched
    said: list[str] | None = None  # the fields that a command line named; None: 0.1.0 did not note it
    released: bool = False  # `down --release`: while it is not wanted, its local port is not kept either
    heard: bool = False  # another user had its local port, and may know its token, which was not changed since


class TunnelSpec(Noun, frozen=True, kw_only=True):
    """A forward that the user wants: kept on disk."""

    host: str
    local_port: int  # the one that was bound; kept for good
    address: str
    port: int
    asked: int | None = None  # the local port that was asked for
    share: bool = False  # other users of this computer may connect, too


class LaunchSpec(Noun, frozen=True, kw_only=True):
    """What to start on the host."""

    name: str
    env: Environment
    kernel_env: Environment | None
    dir: str | None
    app: App
    ports: list[int]  # candidates, in order of preference; unused where it listens on a socket
    cuda_visible_devices: str | None
    timeout: float
    kernel_name: str | None = None  # the default kernel
    sock: bool = False  # on a private UNIX socket, where the server can
    scope: bool = False  # in a scope of the user's own systemd, which outlives the login
    gpus: list[int] | None = None
    debugger: bool | None = None  # JupyterLab's; None: where nobody else has an account on the host


class Running(Noun, frozen=True, kw_only=True):
    """A server that has answered, with all that proves it is ours."""

    name: str
    server: Server
    token: str
    directory: str  # on the host: record, log, token
    base_url: str
    boot_id: str
    start_ticks: int
    sock: str | None = None  # path of the UNIX socket that it listens on, instead of a port
    problems: list[Problem] = []

    @property
    def endpoint(self) -> tuple[str, int] | str | None:
        """Where forwards lead: the path of its socket, else its port on the host's loopback."""
        if self.sock is not None:
            return self.sock
        return ("127.0.0.1", self.server.port) if self.server.port is not None else None
