"""A backend without hosts behind the real daemon server, and a command line without a terminal."""

from __future__ import annotations

import io
import json
import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jupyman import __version__, api, model, paths
from jupyman.api import results
from jupyman.cli.context import Context
from jupyman.cli.main import main
from jupyman.daemon import web_server
from jupyman.daemon.server import Service
from jupyman.local import build
from jupyman.local import daemon_file as address

TOKEN = "the-token-of-the-fake-daemon"
SECRET_URL = "http://127.0.0.1:8888/lab?token=a-secret"
SESSION = model.Session(
    name="server1",
    host="server1",
    state="running",
    link=model.LinkStatus(state="up", since="2026-01-02T03:04:05Z"),
    server=model.Server(
        pid=4121,
        port=8888,
        version="2.21.1",
        app="lab",
        env="/opt/conda/envs/lab",
        kernel_env="/opt/conda/envs/pytorch",
        root_dir="/home/alice",
        started="2026-01-02T03:04:05Z",
        gpus=[0, 1],
    ),
    url=SECRET_URL,
    forwards=[model.Forward(local="127.0.0.1:8888", remote="127.0.0.1:8888", state="up")],
)
TUNNEL = model.HostForward(host="server1", local="127.0.0.1:6006", remote="127.0.0.1:6006", state="up")
ENVIRONMENT = model.Environment(
    name="pytorch",
    prefix="/opt/conda/envs/pytorch",
    kind="conda",
    python="3.12.4",
    jupyter=None,
    ipykernel="6.29",
    torch=model.Torch(version="2.4.0", cuda="12.4"),
)
REPORT = model.HostReport(
    host="server1",
    os="Debian GNU/Linux 12",
    user="alice",
    shell="/bin/bash",
    gpus=[model.Gpu(index=0, uuid="GPU-1", name="A100", memory_total=80 << 30, memory_used=None, utilization=None)],
    driver=model.Driver(version="550.54", cuda="12.4"),
    cuda_toolkits=[model.Toolkit(version="12.4", path="/usr/local/cuda-12.4")],
    environments=[ENVIRONMENT],
    verdicts=[model.Verdict(env="pytorch", ok=True, text="torch 2.4.0 fits")],
    disk=model.Disk(path="/home/alice", total=1 << 40, free=1 << 30),
    problems=[model.Problem(code="disk-low", severity="warning", text="the disk is full", fix="remove something")],
)
KERNEL = model.KernelSpec(
    name="pytorch", display_name="Python (pytorch)", prefix=ENVIRONMENT.prefix, argv=["python"], ok=True, problem=None
)
ANSWERS: dict[type[api.AnyRequest], Any] = {
    api.Up: SESSION,
    api.Down: results.Downed(sessions=[SESSION]),
    api.Kill: results.Kills(
        killed=[results.Killed(target="server1", session="server1", host="server1", pid=4121, port=8888)]
    ),
    api.PsRequest: results.Ps(sessions=[SESSION], forwards=[TUNNEL]),
    api.Tunnel: results.Forwards(forwards=[TUNNEL]),
    api.Url: results.SessionUrl(name="server1", url=SECRET_URL),
    api.OpenCode: results.Opened(name="server1"),
    api.Logs: results.SessionName(name="server1"),
    api.Check: REPORT,
    api.KernelAdd: results.KernelAdded(kernel=KERNEL, executable="/opt/x/bin/python", python="3.12.4", refreshed=False),
    api.KernelLs: results.Kernels(kernels=[KERNEL]),
    api.KernelCheck: results.Kernels(kernels=[KERNEL]),
    api.KernelRm: results.KernelRemoved(removed="pytorch", directory="/home/alice/x"),
    api.EnvLs: results.Environments(environments=[ENVIRONMENT]),
    api.EnvCreate: results.EnvCreated(
        name="new",
        prefix="/opt/x",
        tool="conda",
        state="done",
        steps=[results.StepResult(key="make", text="Python", command=["/c", "a b"])],
        environment=ENVIRONMENT,
    ),
    api.EnvLogs: results.EnvLog(name="new", state="done", prefix="/opt/x"),
    api.EnvRm: results.EnvRemoved(name="new", prefix="/opt/x", size=1, kernels=["new"]),
    api.EnvPush: results.EnvPushed(name="new", prefix="/opt/x", files=["a.whl"], bytes=1, steps=[]),
    api.EnvTarget: results.WheelTarget(prefix="/opt/x", python="3.12", machine="x86_64", platforms=["linux_x86_64"]),
    api.EnvMirrorLs: results.Mirrors(
        mirrors=[results.MirrorStatus(name="m", conda="u", pip=None, own=True, conda_seconds=0.5, pip_seconds=None)],
        used=["m"],
        fastest="m",
    ),
    api.EnvMirror: results.MirrorsWritten(mirror="m", changed=["/home/alice/.condarc"]),
    api.HostLs: results.KnownHosts(hosts=[results.KnownHost(name="server1", ssh="server1", source="config")]),
    api.HostTrust: results.HostTrusted(host="server1", fingerprint="SHA256:x", written=None),
}

Script = Callable[[Any, api.Operation], Any]


@dataclass
class FakeBackend:
    """An `api.Backend` that answers from a table, or by a script of the test."""

    answers: dict[type[api.AnyRequest], Any] = field(default_factory=lambda: dict(ANSWERS))
    scripts: dict[type[api.AnyRequest], Script] = field(default_factory=dict)
    requests: list[Any] = field(default_factory=list)
    clients: list[api.ClientContext] = field(default_factory=list)
    codes: dict[str, str] = field(default_factory=dict)

    def handle(self, request: Any, operation: api.Operation) -> Any:
        self.requests.append(request)
        self.clients.append(operation.client)
        script = self.scripts.get(type(request))
        answer = script(request, operation) if script is not None else self.answers[type(request)]
        if isinstance(answer, BaseException):
            raise answer
        return answer

    def redeem(self, code: str) -> str | None:
        return self.codes.pop(code, None)

    def close(self) -> None:
        pass


class Screen(io.StringIO):
    """A stream that may be a terminal."""

    def __init__(self, text: str = "", *, tty: bool = False, encoding: str = "utf-8") -> None:
        super().__init__(text)
        self._tty = tty
        self._encoding = encoding

    def isatty(self) -> bool:
        return self._tty

    @property
    def encoding(self) -> str:  # type: ignore[override]  # the base's is read-only, and None
        return self._encoding


@dataclass
class Result:
    """What a command printed and returned."""

    status: int
    stdout: str
    stderr: str
    browsed: list[str]

    @property
    def json(self) -> Any:
        return json.loads(self.stdout)


def run(
    home: Path,
    *words: str,
    stdin: str = "",
    tty: bool = False,
    environ: dict[str, str] | None = None,
    browser: bool = True,
) -> Result:
    """Run the command line in this process.

    Args:
        home: becomes JUPYMAN_HOME.
        words: the arguments.
        stdin: what is typed.
        tty: whether all three streams are a terminal.
        environ: further variables.
        browser: whether there is one; without, opening it raises.
    """
    browsed: list[str] = []

    def browse(url: str) -> bool:
        if not browser:
            raise RuntimeError("no browser")
        browsed.append(url)
        return True

    typed = Screen(stdin, tty=tty)
    context = Context(
        stdin=typed,
        stdout=Screen(tty=tty),
        stderr=Screen(tty=tty),
        environ={"JUPYMAN_HOME": str(home), **(environ or {})},
        browse=browse,
        read_secret=lambda text, stream: (stream.write(text), typed.readline().rstrip("\n"))[1],
    )
    status = main(words, context)
    assert isinstance(context.stdout, Screen)
    assert isinstance(context.stderr, Screen)
    return Result(status, context.stdout.getvalue(), context.stderr.getvalue(), browsed)


@dataclass
class Served:
    """The daemon's server with a fake backend."""

    backend: FakeBackend
    home: Path
    port: int
    stopped: threading.Event

    @property
    def base(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def run(self, *words: str, **world: Any) -> Result:
        return run(self.home, *words, **world)

    def reset(self) -> None:
        """Forget what a test did, so that the next can use the same server."""
        self.backend.answers = dict(ANSWERS)
        self.backend.scripts.clear()
        self.backend.requests.clear()
        self.backend.clients.clear()
        (self.home / "config.toml").unlink(missing_ok=True)

    @property
    def last(self) -> Any:
        return self.backend.requests[-1]


@contextmanager
def serving(home: Path, version: str = __version__) -> Iterator[Served]:
    """Serve a fake backend on a port of its own, described by a daemon.json under `home`.

    Args:
        home: JUPYMAN_HOME.
        version: what daemon.json says.
    """
    where = paths.find({"JUPYMAN_HOME": str(home)})
    where.make()
    backend = FakeBackend()
    stopped = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        server = web_server.server(Service(backend, TOKEN, lambda: port, stopped.set, where.log_file).app)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        here = address.DaemonAddress(
            pid=os.getpid(), create_time=0.0, port=port, token=TOKEN, version=version, stamp=build.stamp()
        )
        address.write(where.daemon_file, here)
        try:
            yield Served(backend, home, port, stopped)
        finally:
            server.should_exit = True
            thread.join(10)
            assert not thread.is_alive()
