"""Servers for `ps --all` and `check`, and what is unsafe about them."""

from __future__ import annotations

import re
from collections.abc import Collection

from jupyman.host.servers.base import Found, UnmanagedServer
from jupyman.model import FoundServer, Problem
from jupyman.model.endpoint import LOOPBACK
from jupyman.model.problem_codes import new_problem

_DEBUGGER = re.compile(r"debugger [0-9]{1,10} ([0-9]{1,5})")


def rows(host: str, found: Found) -> list[FoundServer]:
    """Turn what runs on a host into rows of `ps --all`.

    Args:
        host: its name.
        found: from `Launcher.find`.

    Returns:
        Servers with a record that run, those of other machines with the same home, then the user's own; no tokens.
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


def problems(server: UnmanagedServer) -> list[Problem]:
    """Report a server that jupyman did not start and that other machines reach, or that needs no token."""
    found: list[Problem] = []
    if server.exposed:
        where = f" (port {server.port})" if server.port is not None else ""  # without one, loopback does not reach it
        found.append(
            new_problem(
                "server-exposed",
                text=f"the Jupyter server with pid {server.pid} listens beyond loopback{where}",
                fix=f"stop it and start it with jupyman up, or with --ip={LOOPBACK}",
            )
        )
    # Jupyter creates a UNIX socket that only its owner can use (--sock-mode).
    if server.token == "" and server.sock is None:
        found.append(
            new_problem(
                "server-open",
                text=f"the Jupyter server with pid {server.pid} needs no token: any user there can run code in it",
                fix="stop it and start it with jupyman up",
            )
        )
    return found


def exposed_kernels(pid: int, *, seen: Collection[str]) -> list[Problem]:
    """Report that other users can read a server's kernels, or run code in them.

    Args:
        pid: the server's process.
        seen: what the host found: `tcp`, or `debugger PID PORT` (jm_exposed in remote/lib/server.sh).

    Returns:
        One problem for each kind.
    """
    found: list[Problem] = []
    ports = sorted({match[1] for match in map(_DEBUGGER.fullmatch, seen) if match is not None}, key=int)
    if ports:
        several = "s" if len(ports) > 1 else ""
        found.append(
            new_problem(
                "kernels-exposed",
                severity="error",
                text=f"the debugger of a kernel of the server with pid {pid} listens on port{several} "
                f"{', '.join(ports)} and asks for no password: any user of the host can run code as you",
                fix="restart the kernel, and use the debugger only where nobody else has an account "
                "(debugger in config.toml)",
            )
        )
    if any(_DEBUGGER.fullmatch(one) is None for one in seen):
        found.append(
            new_problem(
                "kernels-exposed",
                text=f"kernels of the server with pid {pid} talk over TCP ports: any user of the host can read their "
                "cells and outputs",
                fix="save your notebooks, stop the server and start it with jupyman up: its kernels use private "
                "sockets",
            )
        )
    return found


def _url(port: int | None, base_url: str) -> str | None:
    return f"http://{LOOPBACK}:{port}{base_url}" if port is not None else None
