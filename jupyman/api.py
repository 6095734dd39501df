"""The contract between the daemon and its clients, defined once.

Every verb is one request struct. A client POSTs it to ``/v1/run`` and reads events, one JSON object a line, until
`Done` or `Failed`. A prompt is answered by ``POST /v1/answer``. Closing the connection cancels the operation.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, Literal, Protocol

import msgspec

from jupyman.model import App, ErrorInfo, OnConflict, Restart


class ClientContext(msgspec.Struct, frozen=True, kw_only=True):
    """What the daemon must know of the caller: a daemon that runs for weeks has an old environment."""

    ssh_auth_sock: str | None = None
    ssh_config: str | None = None
    interactive: bool = False  # stdin is a terminal: prompts can be answered


# --- requests -----------------------------------------------------------------------------------------------------


class Request(msgspec.Struct, frozen=True, kw_only=True, tag_field="op"):
    """Base of the requests."""


class Up(Request, tag="up", frozen=True, kw_only=True):
    """Make the session exist. None means: not said on the command line."""

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
    timeout: float = 120.0
    install: bool | None = None  # ipykernel missing: True installs, False does not, None asks
    open_browser: bool = False  # the daemon answers with an `Open` event as soon as the identity is proven


class Down(Request, tag="down", frozen=True, kw_only=True):
    """Stop forwarding; the servers run on, and the local ports stay bound."""

    sessions: list[str]
    release: bool = False  # free the local ports, too


class Kill(Request, tag="kill", frozen=True, kw_only=True):
    """Stop servers, or the listener of a port."""

    targets: list[str]
    host: str | None = None
    yes: bool = False
    force: bool = False
    orphans: str | None = None


class PsRequest(Request, tag="ps", frozen=True, kw_only=True):
    """List sessions and forwards; with `all` also servers that no session owns."""

    hosts: list[str] = []
    all: bool = False


class Tunnel(Request, tag="tunnel", frozen=True, kw_only=True):
    """Open or close forwards: each `PORT`, `PORT:REMOTE` or `PORT:ADDR:REMOTE`."""

    specs: list[str]
    host: str | None = None
    close: bool = False
    share: bool | None = None  # other users of this computer may connect; None: as it is
    yes: bool = False  # also to a port that another person has on the host


class Url(Request, tag="url", frozen=True, kw_only=True):
    """The session's URL with its token."""

    session: str | None = None


class OpenCode(Request, tag="open", frozen=True, kw_only=True):
    """A one-time address on this computer that leads a browser to the session, without the token on any argv."""

    session: str | None = None


class Logs(Request, tag="logs", frozen=True, kw_only=True):
    """Lines of the server's log, as `Output` events."""

    session: str | None = None
    lines: int = 100
    follow: bool = False


class Check(Request, tag="check", frozen=True, kw_only=True):
    """Look at a host; with `deep` compute something with the torch of its environments."""

    host: str | None = None
    env: str | None = None
    deep: bool = False


class KernelAdd(Request, tag="kernel-add", frozen=True, kw_only=True):
    """Register an environment as a Jupyter kernel and prove that it runs."""

    env: str
    host: str | None = None
    name: str | None = None
    display_name: str | None = None
    install: bool | None = None
    replace: bool = False


class KernelLs(Request, tag="kernel-ls", frozen=True, kw_only=True):
    """List the kernel specs."""

    host: str | None = None


class KernelCheck(Request, tag="kernel-check", frozen=True, kw_only=True):
    """Start kernels to see that they work, find what is wrong with them, and mend it where `fix` says so."""

    name: str | None = None  # a kernel; where no host is said, a known host's name means the host
    host: str | None = None
    fix: bool = False
    yes: bool = False


class KernelRm(Request, tag="kernel-rm", frozen=True, kw_only=True):
    """Remove a kernel spec."""

    name: str
    host: str | None = None
    yes: bool = False


class EnvLs(Request, tag="env-ls", frozen=True, kw_only=True):
    """List the environments of a host."""

    host: str | None = None


class EnvCreate(Request, tag="env-create", frozen=True, kw_only=True):
    """Make an environment with its kernel; None means: not said."""

    name: str
    host: str | None = None
    python: str | None = None
    torch: str | None = None  # "auto", a release, or release+build
    cuda: str | None = None  # a build: "cu124", "cpu"
    packages: list[str] = []
    pyg: bool = False
    source_name: str | None = None  # of the file on the command line; its kind is told by its name
    source: str | None = None  # what stands in it
    channels: list[str] = []
    mirror: str | None = None
    torch_index: str | None = None
    tool: str | None = None
    dir: str | None = None
    kernel: str | None = None
    replace: bool = False
    dry_run: bool = False
    detach: bool = False


class EnvLogs(Request, tag="env-logs", frozen=True, kw_only=True):
    """Lines of an installation's log, as `Output` events."""

    name: str
    host: str | None = None
    lines: int = 100
    follow: bool = False


class EnvRm(Request, tag="env-rm", frozen=True, kw_only=True):
    """Remove an environment with its kernel specs."""

    env: str
    host: str | None = None
    yes: bool = False
    force: bool = False


class EnvPush(Request, tag="env-push", frozen=True, kw_only=True):
    """Upload package files and install them."""

    files: list[str]  # absolute paths on this computer
    env: str
    host: str | None = None


class EnvTarget(Request, tag="env-target", frozen=True, kw_only=True):
    """Which wheels fit an environment of a host."""

    env: str
    host: str | None = None


class EnvMirror(Request, tag="env-mirror", frozen=True, kw_only=True):
    """List the mirrors, write one into the host's configuration, or restore what was there."""

    action: Literal["ls", "use", "reset"]
    name: str | None = None
    host: str | None = None
    yes: bool = False


class HostLs(Request, tag="host-ls", frozen=True, kw_only=True):
    """List the hosts that are known."""


class HostTrust(Request, tag="host-trust", frozen=True, kw_only=True):
    """Show a host's key, ask, and write it to known_hosts."""

    host: str
    yes: bool = False


class DaemonStatus(Request, tag="daemon-status", frozen=True, kw_only=True):
    """Version, pid, uptime, hosts, threads."""


class DaemonStop(Request, tag="daemon-stop", frozen=True, kw_only=True):
    """End the daemon; servers run on."""


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


# --- events -------------------------------------------------------------------------------------------------------


class Event(msgspec.Struct, frozen=True, kw_only=True, tag_field="event"):
    """Base of the events."""


class Step(Event, tag="step", frozen=True, kw_only=True):
    """Progress: the same `key` first with state `run`, later with `done`, `warn` or `skip` and its seconds."""

    key: str
    text: str
    state: Literal["run", "done", "warn", "skip"]
    seconds: float | None = None


class Prompt(Event, tag="prompt", frozen=True, kw_only=True):
    """A question for the caller's terminal. Answered by `Answer` with the same id."""

    id: str
    kind: Literal["secret", "text", "confirm", "choice"]
    text: str
    choices: list[str] = []
    default: str | None = None


class Output(Event, tag="output", frozen=True, kw_only=True):
    """A line of data (logs)."""

    line: str


class OpenBrowser(Event, tag="open-browser", frozen=True, kw_only=True):
    """Open this address now: one-time, without the token."""

    url: str


class Done(Event, tag="done", frozen=True, kw_only=True):
    """The result: the struct that the verb's ``--json`` prints."""

    result: Any = None


class Failed(Event, tag="failed", frozen=True, kw_only=True):
    """The operation failed."""

    error: ErrorInfo


AnyEvent = Step | Prompt | Output | OpenBrowser | Done | Failed


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """The body of ``POST /v1/answer``; `value` None means: the user gave up."""

    id: str
    value: str | None


# --- the seam between daemon/server.py and core/manager.py --------------------------------------------------------


class Operation(Protocol):
    """One request under way: how the core talks to the client that waits for it."""

    client: ClientContext
    cancelled: threading.Event

    def emit(self, event: AnyEvent) -> None:
        """Send an event; never blocks, never raises after the client went away."""

    def ask(self, prompt: Prompt, timeout: float = 300.0) -> str:
        """Ask the caller's terminal and wait.

        Returns:
            The answer.

        Raises:
            Interrupted: the client went away or gave up, or `timeout` seconds passed.
        """

    def on_cancel(self, callback: Callable[[], None]) -> None:
        """Call `callback` once when the operation is cancelled (at once if it already is)."""


class Backend(Protocol):
    """What the daemon serves: implemented by core/manager.py and by fakes in tests."""

    def handle(self, request: AnyRequest, operation: Operation) -> Any:
        """Do one request; runs in a thread of its own.

        Returns:
            The result for `Done`.

        Raises:
            JupymanError: what the user is told.
        """

    def redeem(self, code: str) -> str | None:
        """Trade a one-time code for the address with the token; None when unknown or used."""

    def close(self) -> None:
        """Release links and listeners; servers on hosts run on."""
