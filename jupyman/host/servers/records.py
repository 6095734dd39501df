"""Read what the scripts say of servers: launch records, Jupyter's runtime files, and rows of `ps --all`."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import get_args

from jupyman import errors
from jupyman.host.servers.base import Found, ProcessState, Record, UnmanagedServer
from jupyman.host.shell.script import Facts
from jupyman.model import App, FoundServer, Problem, Running, Server
from jupyman.tools.jupyter import server as jupyter

_STATES: dict[str, ProcessState] = {state: state for state in get_args(ProcessState)}
_DEBUGGER = re.compile(r"debugger [0-9]{1,10} ([0-9]{1,5})")
_APPS: dict[str, App] = {app: app for app in get_args(App)}


def read(facts: Facts) -> Found:
    """Read the answer of find.sh, or the one record that launch.sh and adopt.sh show."""
    boot_id, node = facts.one("boot_id") or "", facts.one("node") or ""
    records = _records(facts)
    known = {record.pid for record in records if record.alive}
    servers = [server for server in _foreign(facts, boot_id, node) if server.pid not in known]
    elsewhere = [(other.one("node") or "", other.one("name") or "") for other in facts.records("other", "node")]
    return Found(node=node, user=facts.one("user") or "", records=records, servers=servers, elsewhere=elsewhere)


def state(text: str | None) -> ProcessState:
    """Read a state.

    Raises:
        RemoteFailed: the host said something else.
    """
    if text is None or text not in _STATES:
        raise errors.RemoteFailed(f"the host answered {text!r} about a server")
    return _STATES[text]


def endpoint(text: str) -> tuple[str, int] | str:
    """Read where a server listens: a port, or the path of a UNIX socket.

    Raises:
        RemoteFailed: the host said something else.
    """
    if text.startswith("/"):
        return text
    if re.fullmatch(r"[0-9]{1,5}", text) is None:
        raise errors.RemoteFailed(f"the host answered {text[:60]!r} about where a server listens")
    return "127.0.0.1", int(text)


def rows(host: str, found: Found) -> list[FoundServer]:
    """Turn what runs on a host into rows of `ps --all`.

    Args:
        host: its name.
        found: from `find`.

    Returns:
        Living servers of records, those of other machines with the same home, then the user's own; no tokens.
    """
    listed = [
        FoundServer(
            host=host,
            pid=record.pid,
            port=record.port,
            user=found.user,
            root_dir=record.running.server.root_dir,
            started=record.running.server.started,
            url=_url(record.port, record.running.base_url),
            node=found.node,
            version=record.running.server.version,
            session=record.name,
            problems=[*record.running.problems, *exposed_kernels(record.pid, seen=record.kernels_exposed)],
        )
        for record in found.records
        if record.alive
    ]
    listed += [
        FoundServer(
            host=host,
            pid=None,
            port=None,
            user=found.user,
            root_dir=None,
            started=None,
            node=node,
            session=name,
        )
        for node, name in found.elsewhere
    ]
    listed += [
        FoundServer(
            host=host,
            pid=server.pid,
            port=server.port,
            user=found.user,
            root_dir=server.root_dir,
            started=server.started,
            url=_url(server.port, server.base_url),
            node=server.node,
            version=server.version,
            problems=[*problems(server), *exposed_kernels(server.pid, seen=server.kernels_exposed)],
        )
        for server in found.servers
    ]
    return listed


def _records(facts: Facts) -> list[Record]:
    found: list[Record] = []
    user = facts.one("user")  # not for each: it is looked for in all lines
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
            continue  # the pid was given to another process, or the server is only starting
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


def problems(server: UnmanagedServer) -> list[Problem]:
    """Say what is dangerous about a server that the user started: reachable from other machines, or without a token."""
    found: list[Problem] = []
    if server.exposed:
        where = f" (port {server.port})" if server.port is not None else ""  # None: loopback does not reach it
        found.append(
            Problem(
                code="server-exposed",
                severity="warning",
                text=f"the Jupyter server with pid {server.pid} listens beyond loopback{where}",
                fix="stop it and start it with jupyman up, or with --ip=127.0.0.1",
            )
        )
    # Jupyter makes a UNIX socket for its owner alone (--sock-mode).
    if server.token == "" and server.sock is None:
        found.append(
            Problem(
                code="server-open",
                severity="error",
                text=f"the Jupyter server with pid {server.pid} asks for no token: any user there may run code in it",
                fix="stop it and start it with jupyman up",
            )
        )
    return found


def exposed_kernels(pid: int, *, seen: Collection[str]) -> list[Problem]:
    """Say that others can read kernels of a server, or run code in them.

    Args:
        pid: the server's process.
        seen: what the host said of it: `tcp`, or `debugger PID PORT` (jm_exposed in remote/lib/server.sh).

    Returns:
        A problem for each kind; none where nothing was seen.
    """
    found: list[Problem] = []
    ports = sorted({match[1] for match in map(_DEBUGGER.fullmatch, seen) if match is not None}, key=int)
    if ports:
        several = "s" if len(ports) > 1 else ""
        found.append(
            Problem(
                code="kernels-exposed",
                severity="error",
                text=f"the debugger of a kernel of the server with pid {pid} listens on port{several} "
                f"{', '.join(ports)} and asks for no password: any user of the host can run code as you",
                fix="restart the kernel, and use the debugger only where nobody else has an account "
                "(debugger in config.toml)",
            )
        )
    if any(_DEBUGGER.fullmatch(one) is None for one in seen):
        found.append(
            Problem(
                code="kernels-exposed",
                severity="warning",
                text=f"kernels of the server with pid {pid} talk over TCP ports: any user of the host can read their "
                "cells and outputs",
                fix="save your notebooks, stop the server and start it with jupyman up: its kernels use private "
                "sockets",
            )
        )
    return found


def _as_root(user: str | None) -> list[Problem]:
    if user != "root":
        return []
    return [
        Problem(
            code="server-as-root",
            severity="warning",
            text="the server runs as root: a mistake in a notebook can damage the host",
            fix="log in as an ordinary user",
        )
    ]


def _url(port: int | None, base_url: str) -> str | None:
    return f"http://127.0.0.1:{port}{base_url}" if port is not None else None
