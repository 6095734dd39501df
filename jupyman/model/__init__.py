"""The nouns: frozen structs that every part of jupyman may use. The results of verbs are in api/results.py."""

from jupyman.model.base import Noun
from jupyman.model.environment import App, Environment, EnvState
from jupyman.model.gpu import (
    DeepCheck,
    Driver,
    Gpu,
    GpuProcess,
    GpuUse,
    MigInstance,
    Toolkit,
    Torch,
    Verdict,
)
from jupyman.model.host import Disk, HostReport, PortHolder
from jupyman.model.kernel import KernelSpec, Repair
from jupyman.model.problem import ErrorInfo, Problem, Severity
from jupyman.model.session import (
    Forward,
    ForwardState,
    FoundServer,
    HostForward,
    LaunchSpec,
    LinkState,
    LinkStatus,
    OnConflict,
    Restart,
    Running,
    Server,
    ServerState,
    Session,
    SessionSpec,
    TunnelSpec,
)

__all__ = [
    "App",
    "DeepCheck",
    "Disk",
    "Driver",
    "EnvState",
    "Environment",
    "ErrorInfo",
    "Forward",
    "ForwardState",
    "FoundServer",
    "Gpu",
    "GpuProcess",
    "GpuUse",
    "HostForward",
    "HostReport",
    "KernelSpec",
    "LaunchSpec",
    "LinkState",
    "LinkStatus",
    "MigInstance",
    "Noun",
    "OnConflict",
    "PortHolder",
    "Problem",
    "Repair",
    "Restart",
    "Running",
    "Server",
    "ServerState",
    "Session",
    "SessionSpec",
    "Severity",
    "Toolkit",
    "Torch",
    "TunnelSpec",
    "Verdict",
]
