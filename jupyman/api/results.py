"""The result of each request: what the daemon returns, the client decodes, and ``--json`` prints.

A field of type `UnsetType` is absent from the JSON when it is not set. In the results of verbs that have several
targets, `error` is the first failure: the other fields hold what was done in spite of it.
"""

from __future__ import annotations

from typing import Literal

import msgspec
from msgspec import UNSET, UnsetType

from jupyman.model import (
    App,
    Environment,
    ErrorInfo,
    FoundServer,
    HostForward,
    KernelSpec,
    LinkStatus,
    Noun,
    Problem,
    Repair,
    Session,
)

# --- sessions -----------------------------------------------------------------------------------------------------


class Unreachable(Noun, frozen=True, kw_only=True):
    """A host that is unknown, or whose servers could not be listed (`ps --all`)."""

    host: str
    error: ErrorInfo


class Ps(Noun, frozen=True, kw_only=True):
    """The result of `ps`."""

    sessions: list[Session] = []
    forwards: list[HostForward] = []
    servers: list[FoundServer] = []
    unreachable: list[Unreachable] | UnsetType = UNSET
    error: ErrorInfo | UnsetType = UNSET


class Downed(Noun, frozen=True, kw_only=True):
    """The result of `down`."""

    sessions: list[Session]
    error: ErrorInfo | UnsetType = UNSET


class Killed(Noun, frozen=True, kw_only=True):
    """One server, process or kernel that was stopped; `kernel` and `memory` (bytes) are set for kernels only."""

    target: str
    session: str | None = None
    host: str | None = None
    pid: int | None = None
    port: int | None = None
    kernel: str | UnsetType = UNSET
    memory: int | UnsetType | None = UNSET


class Kills(Noun, frozen=True, kw_only=True):
    """The result of `kill`."""

    killed: list[Killed]
    error: ErrorInfo | UnsetType = UNSET


class Forwards(Noun, frozen=True, kw_only=True):
    """The result of `tunnel`."""

    forwards: list[HostForward]
    error: ErrorInfo | UnsetType = UNSET


class SessionUrl(Noun, frozen=True, kw_only=True):
    """The result of `url`."""

    name: str
    url: str


class SessionName(Noun, frozen=True, kw_only=True):
    """The result of `logs`: the session whose log it was."""

    name: str


class Opened(Noun, frozen=True, kw_only=True):
    """The result of `open`; the command line adds whether a browser was opened."""

    name: str
    opened: bool | UnsetType = UNSET


# --- kernels ------------------------------------------------------------------------------------------------------


class Kernels(Noun, frozen=True, kw_only=True):
    """The result of `kernel ls` and `kernel check`; only the latter has problems and repairs."""

    kernels: list[KernelSpec]
    problems: list[Problem] = []
    repairs: list[Repair] = []


class KernelAdded(Noun, frozen=True, kw_only=True):
    """The result of `kernel add`: the kernel spec, and the interpreter that its kernel really ran."""

    kernel: KernelSpec
    executable: str
    python: str | None
    refreshed: bool
    problems: list[Problem] = []


class KernelRemoved(Noun, frozen=True, kw_only=True):
    """The result of `kernel rm`."""

    removed: str
    directory: str


# --- environments -------------------------------------------------------------------------------------------------


class Environments(Noun, frozen=True, kw_only=True):
    """The result of `env ls`."""

    environments: list[Environment]


class StepResult(Noun, frozen=True, kw_only=True):
    """One step of an installation with its command; `state` and `seconds` are None if it was not run."""

    key: str
    text: str
    command: list[str]
    state: str | None = None
    seconds: float | None = None


class EnvCreated(Noun, frozen=True, kw_only=True):
    """The result of `env create`; `environment` and `kernel` are None until they exist."""

    name: str
    prefix: str
    tool: str
    state: Literal["planned", "installing", "done"]
    steps: list[StepResult]
    environment: Environment | None = None
    kernel: KernelAdded | None = None
    problems: list[Problem] = []


class EnvLog(Noun, frozen=True, kw_only=True):
    """The result of `env logs`: the state of the installation whose log it was."""

    name: str
    state: str
    prefix: str | None


class EnvRemoved(Noun, frozen=True, kw_only=True):
    """The result of `env rm`; `size` in bytes, None if it was not known in time."""

    name: str
    prefix: str
    size: int | None
    kernels: list[str]


class EnvPushed(Noun, frozen=True, kw_only=True):
    """The result of `env push`; `bytes` is the size of the files."""

    name: str
    prefix: str
    files: list[str]
    bytes: int
    steps: list[StepResult]


class WheelTarget(Noun, frozen=True, kw_only=True):
    """The wheels that fit an environment: its Python (major and minor) and the platform tags of its host."""

    prefix: str
    python: str
    machine: str
    platforms: list[str]


class MirrorStatus(Noun, frozen=True, kw_only=True):
    """A mirror as the host reaches it: seconds until its answer, None if there was none."""

    name: str
    conda: str | None
    pip: str | None
    own: bool
    conda_seconds: float | None
    pip_seconds: float | None


class Mirrors(Noun, frozen=True, kw_only=True):
    """The result of `env mirror ls`; `used` are those that the host's files name now."""

    mirrors: list[MirrorStatus]
    used: list[str]
    fastest: str | None


class MirrorsWritten(Noun, frozen=True, kw_only=True):
    """The result of `env mirror use` and `reset`: the files that were changed."""

    mirror: str | None
    changed: list[str]


# --- hosts and the daemon -----------------------------------------------------------------------------------------


class KnownHost(Noun, frozen=True, kw_only=True):
    """A row of `host ls`."""

    name: str
    ssh: str
    source: Literal["config", "ssh_config", "session"]
    link: LinkStatus | None = None


class KnownHosts(Noun, frozen=True, kw_only=True):
    """The result of `host ls`."""

    hosts: list[KnownHost]


class HostAdded(Noun, frozen=True, kw_only=True, omit_defaults=True):
    """The output of `host add`: the keys that were written."""

    host: str
    ssh: str | None = None
    env: str | None = None
    dir: str | None = None
    gpu: str | None = None
    app: App | None = None
    port: int | None = None
    local_port: int | None = None


class HostRemoved(Noun, frozen=True, kw_only=True):
    """The output of `host rm`."""

    host: str


class HostTrusted(Noun, frozen=True, kw_only=True):
    """The result of `host trust`; `written` is the file, None if the key was known already."""

    host: str
    fingerprint: str
    written: str | None


class DaemonInfo(Noun, frozen=True, kw_only=True):
    """The result of `daemon status`: seconds of uptime, bytes of memory; the command line adds the config file."""

    pid: int
    version: str
    port: int
    started: str
    uptime: float
    threads: int
    memory: int
    log: str
    config: str | UnsetType = UNSET


class DaemonStopped(Noun, frozen=True, kw_only=True):
    """The result of `daemon stop`; the command line prints no pid. Not `stopped`: see `DaemonStop.if_idle`."""

    stopped: bool
    pid: int | UnsetType = UNSET


# --- output of the command line only ------------------------------------------------------------------------------


class ErrorReport(Noun, frozen=True, kw_only=True):
    """What ``--json`` prints for a command that failed."""

    error: ErrorInfo


Result = msgspec.Struct
# Results of verbs that try each of several targets.
PartialResult = Ps | Downed | Kills | Forwards
