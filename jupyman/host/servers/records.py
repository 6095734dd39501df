"""The records of servers on a host, and Jupyter's own runtime files: read from scripts' answers, and written."""

from __future__ import annotations

import getpass
import re
import socket
from typing import get_args

import msgspec

from jupyman import errors
from jupyman.host.servers.base import Found, ProcessState, Record, UnmanagedServer
from jupyman.host.shell.script import Facts
from jupyman.model import App, Problem, Running, Server
from jupyman.model.endpoint import Endpoint
from jupyman.model.problem_codes import new_problem
from jupyman.tools.jupyter import server as jupyter

_STATES: dict[str, ProcessState] = {state: state for state in get_args(ProcessState)}
_APPS: dict[str, App] = {app: app for app in get_args(App)}


def read(facts: Facts) -> Found:
    """Read the answer of find.sh, or the single record of launch.sh and adopt.sh."""
    boot_id, node = facts.one("boot_id") or "", facts.one("node") or ""
    records = _records(facts)
    known = {record.pid for record in records if record.alive}
    servers = [server for server in _foreign(facts, boot_id, node) if server.pid not in known]
    elsewhere = [(other.one("node") or "", other.one("name") or "") for other in facts.records("other", "node")]
    return Found(node=node, user=facts.one("user") or "", records=records, servers=servers, elsewhere=elsewhere)


def state(text: str | None) -> ProcessState:
    """Read the state of a server's process.

    Raises:
        RemoteFailed: it is not one.
    """
    if text is None or text not in _STATES:
        raise errors.RemoteFailed(f"the host sent an invalid state of a server: {text!r}")
    return _STATES[text]


def endpoint(text: str) -> Endpoint:
    """Read where a server listens: a port, or the path of a UNIX socket.

    Raises:
        RemoteFailed: it is neither.
    """
    if text.startswith("/"):
        return Endpoint(None, text)
    if re.fullmatch(r"[0-9]{1,5}", text) is None:
        raise errors.RemoteFailed(f"the host sent an invalid address of a server: {text[:60]!r}")
    return Endpoint(None, int(text))


def _records(facts: Facts) -> list[Record]:
    found: list[Record] = []
    user = facts.one("user")  # once: each call searches all lines
    for entry in facts.records("record", "directory"):
        pid, ticks, name = entry.number("pid"), entry.number("start_ticks"), entry.one("name")
        if pid is None or ticks is None or name is None:
            continue  # written by something else
        runtime = jupyter.parse_runtime(entry.one("json") or "")
        gpus = entry.one("gpus")
        server = Server(
            pid=pid,
            port=entry.number("port"),
            version=entry.one("jupyter"),
            app=_APPS.get(entry.one("app") or "", "lab"),
            env=entry.one("env"),
            root_dir=entry.one("root_dir"),
            started=entry.one("started"),
            gpus=[int(index) for index in gpus.split(",") if re.fullmatch(r"[0-9]{1,4}", index)] if gpus else None,
            adopted=entry.one("runtime_file") is not None,
            node=entry.one("node"),
            kernel_env=entry.one("kernel_env"),
        )
        running = Running(
            name=name,
            server=server,
            token=entry.one("token") or (runtime.token if runtime is not None else ""),
            directory=entry.one("directory") or "",
            base_url=jupyter.base_url(entry.one("base_url")),
            boot_id=entry.one("boot_id") or "",
            start_ticks=ticks,
            sock=entry.one("sock"),
            problems=_as_root(user),
        )
        found.append(
            Record(
                running=running,
                state=state(entry.one("state")),
                stopped_by=entry.one("stopped_by"),
                launch_id=entry.one("id"),
                kernels_exposed=tuple(entry.all("kernels")),
            )
        )
    return found


def _foreign(facts: Facts, boot_id: str, node: str) -> list[UnmanagedServer]:
    found: list[UnmanagedServer] = []
    for entry in facts.records("server", "file"):
        runtime = jupyter.parse_runtime(entry.one("json") or "")
        pid, ticks = entry.number("pid"), entry.number("start_ticks")
        if runtime is None or pid is None or ticks is None or runtime.pid != pid:
            continue
        listening = [one for one in map(jupyter.parse_listen, entry.all("listen")) if one is not None]
        own = [one for one in listening if one.port == runtime.port]
        if not own and not runtime.sock:
            continue  # another process has the pid now, or the server is still starting
        found.append(
            UnmanagedServer(
                pid=pid,
                start_ticks=ticks,
                boot_id=boot_id,
                port=runtime.port if any(one.from_loopback for one in own) else None,
                sock=runtime.sock or None,
                base_url=jupyter.base_url(runtime.base_url),
                token=None if runtime.password and not runtime.token else runtime.token,
                root_dir=runtime.directory,
                version=runtime.version,
                app=_APPS.get(entry.one("app") or "", "server"),
                started=entry.one("started"),
                exposed=any(not one.loopback for one in own),
                secure=runtime.secure,
                file=entry.one("file") or "",
                node=node,
                kernels_exposed=tuple(entry.all("kernels")),
            )
        )
    return found


def _as_root(user: str | None) -> list[Problem]:
    if user != "root":
        return []
    return [
        new_problem(
            "server-as-root",
            text="the server runs as root: a mistake in a notebook can damage the host",
            fix="log in as an ordinary user",
        )
    ]


# --- what goes into a record --------------------------------------------------------------------------------------


def lines(values: dict[str, str]) -> str:
    """Write the lines of a record; empty values are left out."""
    # A line break in a value would forge another line.
    return "\n".join(f"{key} {value.replace(chr(10), ' ')}" for key, value in values.items() if value)


def client_name() -> str:
    """Return who writes a record: ``USER@COMPUTER``."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # an account without a passwd entry
        user = "somebody"
    return f"{user}@{socket.gethostname()}"


def identity(running: Running) -> dict[str, str]:
    """Return the values that a script compares to prove that a process is this server."""
    return {
        "NODE": running.server.node or "",
        "PID": str(running.server.pid),
        "TICKS": str(running.start_ticks),
        "BOOT": running.boot_id,
    }


def adopted(running: Running) -> Running:
    """Return the server marked as one that ran before."""
    return msgspec.structs.replace(running, server=msgspec.structs.replace(running.server, adopted=True))
