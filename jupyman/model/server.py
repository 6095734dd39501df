"""Jupyter servers on hosts."""

from __future__ import annotations

from jupyman.model.base import Noun, Problem
from jupyman.model.environment import App, Environment


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
    def endpoint(self) -> tuple[str, int] | str | None:
        """Where forwards lead: the path of its socket, else its port on the host's loopback."""
        if self.sock is not None:
            return self.sock
        return ("127.0.0.1", self.server.port) if self.server.port is not None else None
