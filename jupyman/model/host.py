"""What one probe finds on a host."""

from __future__ import annotations

from typing import Literal

from jupyman.model.base import Noun, Problem
from jupyman.model.environment import Environment
from jupyman.model.gpu import DeepCheck, Driver, Gpu, Toolkit, Verdict
from jupyman.model.session import FoundServer


class PortHolder(Noun, frozen=True, kw_only=True):
    """A listening TCP socket on the host."""

    port: int
    address: str
    uid: int | None
    user: str | None
    pid: int | None
    command: str | None
    ours: bool  # the socket belongs to the account that we are logged in as
    start_ticks: int | None = None  # field 22 of /proc/PID/stat; checked again right before a signal
    boot_id: str | None = None  # of the host at that moment; likewise


class Disk(Noun, frozen=True, kw_only=True):
    """Space in the home directory, in bytes."""

    path: str
    total: int | None
    free: int | None
    quota: int | None = None
    quota_used: int | None = None
    filesystem: str | None = None


class HostReport(Noun, frozen=True, kw_only=True):
    """What one probe found (`check --json`)."""

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
    survival: Literal["plain", "scope", "logout"] = "plain"  # how a server survives the logout (tools/host/logind.py)
