"""Servers as plain processes of the account: started under nohup and setsid, found by their records."""

from __future__ import annotations

import dataclasses
import getpass
import logging
import math
import secrets
import socket
import threading
from collections.abc import Callable

import msgspec

from jupyman import errors, remote
from jupyman.host.servers import liveness, records
from jupyman.host.servers.base import Found, Liveness, Record, UnmanagedServer
from jupyman.host.servers.logs import logs
from jupyman.host.servers.records import rows
from jupyman.host.shell import script
from jupyman.host.shell.script import Shell
from jupyman.model import LaunchSpec, Running, Server
from jupyman.tools.envs import activation
from jupyman.tools.host import logind
from jupyman.tools.jupyter import server as jupyter

__all__ = [
    "Found",
    "Liveness",
    "Record",
    "UnmanagedServer",
    "adopt",
    "find",
    "launch",
    "logs",
    "rows",
    "stop",
    "verify",
]

log = logging.getLogger(__name__)

LOOK_TIMEOUT = 30.0  # seconds for a look at /proc and small files, on a slow network home
GRACE = 10  # seconds between SIGTERM and SIGKILL; a server with kernels needs about 3


def launch(
    shell: Shell,
    spec: LaunchSpec,
    *,
    progress: Callable[[str], None] | None = None,
    listening: Callable[[tuple[str, int] | str], None] | None = None,
    cancelled: threading.Event | None = None,
) -> Running:
    """Start a server and wait until it answers; a session that already has one gets that.

    Args:
        shell: the host.
        spec: what to start; `spec.timeout` in seconds.
        progress: told what is being done.
        listening: told where it listens, as soon as the socket there was seen to be its own; it is asked for its
            status on the host then, which takes a moment.
        cancelled: when set, what was started is ended again.

    Returns:
        The server, proven as by `verify`; with `server.adopted` where it ran before.

    Raises:
        ServerExited: it ended, or let strangers in; details["log"] has its last lines.
        LaunchTimedOut: it did not answer in time and was ended.
        PortInUse: no candidate port is free.
        NotOurs: a file or directory on the way belongs to another user.
        RemoteFailed: disk full, no permission, no such directory.
        Interrupted: `cancelled` was set; nothing is left.
    """
    if not jupyter.valid_name(spec.name):
        raise errors.UsageFault(f"{spec.name!r} is no session name", "letters, digits, - . _; not only digits")
    if not spec.ports and not spec.sock:
        raise errors.PortInUse("no port to try")
    launch_id = secrets.token_hex(8)
    limit = max(1, math.ceil(spec.timeout))
    arguments = {
        "SERVER": remote.script("lib/server"),
        "LOCK": remote.script("lib/lock"),
        "CONFIG": remote.program("servers/jupyter_inside")
        + jupyter.configuration(remote.program("servers/jupyter_config"), spec.kernel_name),
        "KERNEL": remote.program("servers/kernel_config"),
        "CHECK": remote.program("servers/server_check"),
        "NEIGHBOURS": remote.script("lib/neighbours"),
        "DEBUGGER": {None: "auto", True: "on", False: "off"}[spec.debugger],
        "ACTIVATE": activation.script(spec.env),
        "NAME": spec.name,
        "ID": launch_id,
        "PYTHON": activation.python(spec.env),
        "PREFIX": spec.env.prefix,
        "ENV": spec.env.name or spec.env.prefix,
        "APP": spec.app,
        "DIR": spec.dir or "",
        "SOCK": "1" if spec.sock else "0",
        "SCOPE": "1" if spec.scope else "0",
        "PORTS": " ".join(str(port) for port in spec.ports),
        "TIMEOUT": str(limit),
        "CUDA_SET": "0" if spec.cuda_visible_devices is None else "1",
        "CUDA": spec.cuda_visible_devices or "",
        "RECORD": _record_lines(spec),
    }

    def told(name: str, value: str) -> None:
        if name == "step" and progress is not None:
            progress(value)
        elif name == "listening" and listening is not None:
            listening(records.endpoint(value))

    try:
        # Twice: it may first wait for another launch of the same session.
        facts = script.run(
            shell, "servers/launch", arguments, timeout=2 * limit + 90, on_fact=told, cancelled=cancelled
        )
    except errors.JupymanError as error:
        if isinstance(error, errors.Interrupted) or "facts" not in error.details:
            # The script notices when its channel is closed, too, but only this way do we know.
            _cancel(shell, spec.name, launch_id)
        _attach_log(error)
        raise
    record = next(iter(records.read(facts).records), None)
    if record is None:
        raise errors.RemoteFailed("the host did not say what it started")
    if not record.alive:  # it answered a moment ago
        _cancel(shell, spec.name, launch_id)
        seen = liveness.judge(record.state, pid=record.pid, log=[])
        raise errors.ServerExited(f"the server is gone again: {seen.text}")
    running = record.running
    if facts.one("existing"):
        return _adopted(running)
    if facts.one("scope") is not None:
        problem = logind.ends_at_logout(facts.one("user") or "")
        running = msgspec.structs.replace(running, problems=[*running.problems, problem])
    if cancelled is not None and cancelled.is_set():
        _cancel(shell, spec.name, launch_id)
        raise errors.Interrupted("interrupted")
    return running


def find(shell: Shell) -> Found:
    """Find every record of this node and every Jupyter server of this account; nothing is changed.

    Args:
        shell: the host.

    Returns:
        What is there; `servers` are those that no living record speaks of.

    Raises:
        LinkLost, RemoteFailed: as `script.run`.
    """
    facts = script.run(shell, "servers/find", {"SERVER": remote.script("lib/server")}, timeout=LOOK_TIMEOUT)
    return records.read(facts)


def adopt(shell: Shell, found: Record | UnmanagedServer, *, name: str | None = None, record: bool = True) -> Running:
    """Take over a server that runs.

    Args:
        shell: the host.
        found: from `find`.
        name: of the session; the record's own where None.
        record: write one for a server of the user's own, so that other computers see whose it is.

    Returns:
        The server with its token; to be proven by `verify` before the token is used.

    Raises:
        UsageFault: 127.0.0.1 does not reach it and it has no socket, or it speaks TLS, or wants a password.
        ServerExited: it is gone.
    """
    if isinstance(found, Record):
        return _adopted(found.running)
    label = name or f"port-{found.port}"
    sock = found.sock if found.port is None else None
    if record and ((found.port is None and sock is None) or found.secure or found.token is None):
        why = "has no port on 127.0.0.1"
        if found.secure or found.token is None:
            why = "speaks TLS" if found.secure else "wants a password"
        raise errors.UsageFault(
            f"the server with pid {found.pid} {why}, so it cannot be taken over",
            "stop it and let jupyman start one, or start it without that setting",
        )
    running = Running(
        name=label,
        server=Server(
            pid=found.pid,
            port=found.port,
            version=found.version,
            app=found.app,
            env=None,
            root_dir=found.root_dir,
            started=found.started,
            adopted=True,
            node=found.node,
        ),
        token=found.token or "",
        directory="",
        base_url=found.base_url,
        boot_id=found.boot_id,
        start_ticks=found.start_ticks,
        sock=sock,
        problems=records.problems(found),
    )
    if not record:
        return running
    if not jupyter.valid_name(label):
        raise errors.UsageFault(f"{label!r} is no session name", "letters, digits, - . _; not only digits")
    lines = {
        "version": "1",
        "name": label,
        "pid": str(found.pid),
        "start_ticks": str(found.start_ticks),
        "port": str(found.port or ""),
        "sock": sock or "",
        "base_url": found.base_url,
        "app": found.app,
        "root_dir": found.root_dir or "",
        "started": found.started or "",
        "jupyter": found.version or "",
        "runtime_file": found.file,
        "client": _me(),
    }
    facts = script.run(
        shell,
        "servers/adopt",
        {
            "SERVER": remote.script("lib/server"),
            "NAME": label,
            "PID": str(found.pid),
            "TICKS": str(found.start_ticks),
            "BOOT": found.boot_id,
            "ENDPOINT": sock or str(found.port),
            "RECORD": _lines(lines),
        },
        timeout=LOOK_TIMEOUT,
    )
    return msgspec.structs.replace(running, directory=facts.one("record.directory") or "")


def verify(shell: Shell, running: Running) -> Liveness:
    """Prove that a server is still the one we know, before any token goes to its port.

    Args:
        shell: the host.
        running: the server.

    Returns:
        What was seen: pid, start time and boot id are compared, and the socket that answers on 127.0.0.1:PORT is
        looked up among the process's own.

    Raises:
        LinkLost, RemoteFailed: as `script.run`.
    """
    facts = script.run(
        shell,
        "servers/verify",
        {
            "SERVER": remote.script("lib/server"),
            **identity(running),
            "ENDPOINT": running.sock or str(running.server.port or ""),
            "DIRECTORY": running.directory,
        },
        timeout=LOOK_TIMEOUT,
    )
    seen = liveness.judge(
        records.state(facts.one("state")),
        pid=running.server.pid,
        log=facts.all("log"),
        oom=facts.one("oom") is not None,
        stopped_by=facts.one("stopped_by"),
        nodes=(running.server.node or "?", facts.one("node") or "?"),
    )
    return dataclasses.replace(
        seen, kernels_exposed=tuple(facts.all("kernels")), token=jupyter.token(facts.one("token"))
    )


def stop(shell: Shell, running: Running, *, force: bool = False, grace: int = GRACE, by: str | None = None) -> bool:
    """End a server with its kernels and what they started; a process that is not the known one is not touched.

    Args:
        shell: the host.
        running: the server.
        force: SIGKILL when it has not ended after `grace` seconds.
        grace: seconds after SIGTERM.
        by: who stops it, for the record; this user and computer where None.

    Returns:
        False when it still runs (only without `force`, or when it is stuck in the kernel).

    Raises:
        LinkLost, RemoteFailed: as `script.run`.
    """
    facts = script.run(
        shell,
        "servers/stop",
        {
            "SERVER": remote.script("lib/server"),
            **identity(running),
            "DIRECTORY": running.directory,
            "GRACE": str(grace),
            "FORCE": "1" if force else "0",
            "BY": by or _me(),
        },
        timeout=grace + LOOK_TIMEOUT,
    )
    return facts.one("state") != "alive"


# --- small things -------------------------------------------------------------------------------------------------


def identity(running: Running) -> dict[str, str]:
    """Return what a script compares before it believes that a process is this server."""
    return {
        "NODE": running.server.node or "",
        "PID": str(running.server.pid),
        "TICKS": str(running.start_ticks),
        "BOOT": running.boot_id,
    }


def _record_lines(spec: LaunchSpec) -> str:
    return _lines(
        {
            "env_name": spec.env.name,
            "kernel_env": spec.kernel_env.prefix if spec.kernel_env is not None else "",
            "kernel_name": spec.kernel_name or "",
            "gpus": "" if spec.gpus is None else ",".join(str(index) for index in spec.gpus) or "none",
            "client": _me(),
        }
    )


def _lines(values: dict[str, str]) -> str:
    # A line break in a value would forge another line.
    return "\n".join(f"{key} {value.replace(chr(10), ' ')}" for key, value in values.items() if value)


def _me() -> str:
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # an account without a passwd entry
        user = "somebody"
    return f"{user}@{socket.gethostname()}"


def _adopted(running: Running) -> Running:
    return msgspec.structs.replace(running, server=msgspec.structs.replace(running.server, adopted=True))


def _attach_log(error: errors.JupymanError) -> None:
    facts = error.details.pop("facts", None)
    if isinstance(facts, list):
        error.details["log"] = [value for name, value in facts if name == "log"]


def _cancel(shell: Shell, name: str, launch_id: str) -> None:
    """End the launch of that id, whether it is under way or done; another launch of the session is left alone."""
    arguments = {
        "SERVER": remote.script("lib/server"),
        "CANCEL": "1",
        "NAME": name,
        "ID": launch_id,
        "GRACE": "5",
        "FORCE": "1",
        "BY": _me(),
        "PID": "",
        "TICKS": "",
        "BOOT": "",
        "DIRECTORY": "",
    }
    try:
        script.run(shell, "servers/stop", arguments, timeout=60)
    except errors.JupymanError as error:
        log.warning("the cancelled launch of %s could not be looked after: %s", name, error.message)
