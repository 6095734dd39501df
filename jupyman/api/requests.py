"""The requests: one struct a verb, which names the type of its result.

A client sends a `Call` by ``POST /v1/run`` and reads events, one JSON object a line, until `Done` or `Failed`. Closing
the connection cancels the operation.
"""

from __future__ import annotations

from typing import Generic, Literal, TypeVar, get_args

import msgspec

from jupyman.api import results
from jupyman.model import App, HostReport, OnConflict, Restart, Session

R = TypeVar("R", bound=msgspec.Struct)
R_co = TypeVar("R_co", bound=msgspec.Struct, covariant=True)


class ClientContext(msgspec.Struct, frozen=True, kw_only=True):
    """The caller's environment, because that of a daemon that has run for weeks is out of date."""

    ssh_auth_sock: str | None = None
    ssh_config: str | None = None
    interactive: bool = False  # stdin is a terminal: prompts can be answered


class Request(msgspec.Struct, Generic[R_co], frozen=True, kw_only=True, tag_field="op"):
    """Base of the requests; its type argument is the type of the result."""


class Up(Request[Session], tag="up", frozen=True, kw_only=True):
    """Start, adopt or find a session's server. A field is None if the command line does not have the option."""

    host: str | None = None
    name: str | None = None
    env: str | None = None
    dir: str | None = None
    app: App | None = None
    gpu: str | None = None
    port: int | None = None
    local_port: int | None = None
    on_conflict: OnConflict | None = None
    restart: Restart | None = None
    timeout: float = 120.0  # seconds
    install: bool | None = None  # whether to install a missing ipykernel; None: ask
    open_browser: bool = False  # send an `OpenBrowser` event as soon as the server's identity is proven


class Down(Request[results.Downed], tag="down", frozen=True, kw_only=True):
    """Stop forwarding. The servers keep running, and the local ports stay bound."""

    sessions: list[str]
    release: bool = False  # free the local ports as well


class Kill(Request[results.Kills], tag="kill", frozen=True, kw_only=True):
    """Stop servers, or the listener of a port."""

    targets: list[str]
    host: str | None = None
    yes: bool = False
    force: bool = False
    orphans: str | None = None


class PsRequest(Request[results.Ps], tag="ps", frozen=True, kw_only=True):
    """List sessions and forwards; with `all` also the servers that no session owns."""

    hosts: list[str] = []
    all: bool = False


class Tunnel(Request[results.Forwards], tag="tunnel", frozen=True, kw_only=True):
    """Open or close forwards: each `PORT`, `PORT:REMOTE` or `PORT:ADDR:REMOTE`."""

    specs: list[str]
    host: str | None = None
    close: bool = False
    share: bool | None = None  # whether other users of this computer may connect; None: no change
    yes: bool = False  # also to a port that another user listens on


class Url(Request[results.SessionUrl], tag="url", frozen=True, kw_only=True):
    """Return the session's URL with its token."""

    session: str | None = None


class OpenCode(Request[results.Opened], tag="open", frozen=True, kw_only=True):
    """Open the session in a browser by a one-time local URL, so that the token is in no command line."""

    session: str | None = None


class Logs(Request[results.SessionName], tag="logs", frozen=True, kw_only=True):
    """Send lines of the server's log as `Output` events."""

    session: str | None = None
    lines: int = 100
    follow: bool = False


class Check(Request[HostReport], tag="check", frozen=True, kw_only=True):
    """Inspect a host; with `deep` also run a small torch program in its environments."""

    host: str | None = None
    env: str | None = None
    deep: bool = False


class KernelAdd(Request[results.KernelAdded], tag="kernel-add", frozen=True, kw_only=True):
    """Register an environment as a Jupyter kernel, and check that the kernel runs."""

    env: str
    host: str | None = None
    name: str | None = None
    display_name: str | None = None
    install: bool | None = None
    replace: bool = False


class KernelLs(Request[results.Kernels], tag="kernel-ls", frozen=True, kw_only=True):
    """List the kernel specs."""

    host: str | None = None


class KernelCheck(Request[results.Kernels], tag="kernel-check", frozen=True, kw_only=True):
    """Start kernels to check that they work; with `fix` repair what does not."""

    name: str | None = None  # of a kernel; without `host`, the name of a known host means that host
    host: str | None = None
    fix: bool = False
    yes: bool = False


class KernelRm(Request[results.KernelRemoved], tag="kernel-rm", frozen=True, kw_only=True):
    """Remove a kernel spec."""

    name: str
    host: str | None = None
    yes: bool = False


class EnvLs(Request[results.Environments], tag="env-ls", frozen=True, kw_only=True):
    """List the environments of a host."""

    host: str | None = None


class EnvCreate(Request[results.EnvCreated], tag="env-create", frozen=True, kw_only=True):
    """Create an environment with its kernel. A field is None if the command line does not have the option."""

    name: str
    host: str | None = None
    python: str | None = None
    torch: str | None = None  # "auto", a release, or release+build
    cuda: str | None = None  # a build: "cu124", "cpu"
    packages: list[str] = []
    pyg: bool = False
    source_name: str | None = None  # of the file on the command line; it determines the format
    source: str | None = None  # its content
    channels: list[str] = []
    mirror: str | None = None
    torch_index: str | None = None
    tool: str | None = None
    dir: str | None = None
    kernel: str | None = None
    replace: bool = False
    dry_run: bool = False
    detach: bool = False


class EnvLogs(Request[results.EnvLog], tag="env-logs", frozen=True, kw_only=True):
    """Send lines of an installation's log as `Output` events."""

    name: str
    host: str | None = None
    lines: int = 100
    follow: bool = False


class EnvRm(Request[results.EnvRemoved], tag="env-rm", frozen=True, kw_only=True):
    """Remove an environment with its kernel specs."""

    env: str
    host: str | None = None
    yes: bool = False
    force: bool = False


class EnvPush(Request[results.EnvPushed], tag="env-push", frozen=True, kw_only=True):
    """Upload package files and install them."""

    files: list[str]  # absolute paths on this computer
    env: str
    host: str | None = None


class EnvTarget(Request[results.WheelTarget], tag="env-target", frozen=True, kw_only=True):
    """Return which wheels fit an environment of a host."""

    env: str
    host: str | None = None


class EnvMirrorLs(Request[results.Mirrors], tag="env-mirror-ls", frozen=True, kw_only=True):
    """List the mirrors, and how fast the host reaches each."""

    host: str | None = None


class EnvMirror(Request[results.MirrorsWritten], tag="env-mirror", frozen=True, kw_only=True):
    """Write a mirror into the host's configuration, or restore what was there before."""

    action: Literal["use", "reset"]
    name: str | None = None
    host: str | None = None
    yes: bool = False


class HostLs(Request[results.KnownHosts], tag="host-ls", frozen=True, kw_only=True):
    """List the known hosts."""


class HostTrust(Request[results.HostTrusted], tag="host-trust", frozen=True, kw_only=True):
    """Show a host's key, ask, and write it to known_hosts."""

    host: str
    yes: bool = False


class DaemonStatus(Request[results.DaemonInfo], tag="daemon-status", frozen=True, kw_only=True):
    """Describe the running daemon."""


class DaemonStop(Request[results.DaemonStopped], tag="daemon-stop", frozen=True, kw_only=True):
    """Stop the daemon. Servers keep running.

    With `if_idle` it is not stopped while commands wait for it; one of 0.1.0 does not know this field.
    """

    if_idle: bool = False


AnyRequest = (
    Up
    | Down
    | Kill
    | PsRequest
    | Tunnel
    | Url
    | OpenCode
    | Logs
    | Check
    | KernelAdd
    | KernelLs
    | KernelCheck
    | KernelRm
    | EnvLs
    | EnvCreate
    | EnvLogs
    | EnvRm
    | EnvPush
    | EnvTarget
    | EnvMirrorLs
    | EnvMirror
    | HostLs
    | HostTrust
    | DaemonStatus
    | DaemonStop
)


class Call(msgspec.Struct, frozen=True, kw_only=True):
    """The body of ``POST /v1/run``."""

    request: AnyRequest
    client: ClientContext = ClientContext()


def result_of(kind: type[Request[R]]) -> type[R]:
    """Return the struct that the result of a request is decoded to: the type argument of its class."""
    found: type[R] = get_args(vars(kind)["__orig_bases__"][0])[0]
    return found
