"""One forwarder as a process of its own, so that its CPU, memory and threads can be measured.

``python -m tests.bench.contender NAME`` reads one line of JSON from its standard input (the SSH configuration, and
the targets of the forwards), prints the local ports, and ends with its input. The names are those of `FORWARDERS`;
OpenSSH's client needs no such program.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import socket
import sys
import threading
from collections.abc import Callable
from typing import Any

from tests.bench.targets import raise_limit

Targets = list[tuple[str, int]]
HOST = "server1"


def main() -> None:
    """Forward until standard input ends."""
    raise_limit()
    logging.disable(logging.CRITICAL)
    asked = json.loads(sys.stdin.readline())
    FORWARDERS[sys.argv[1]](asked)


def _ready(ports: list[int]) -> None:
    print(json.dumps(ports), flush=True)


def _targets(asked: dict[str, Any]) -> Targets:
    return [("127.0.0.1", port) for port in asked["targets"]]


def jupyman(asked: dict[str, Any]) -> None:
    """Forward with this package, as its daemon does."""
    from jupyman.ssh.config import ssh_g
    from jupyman.ssh.forward import engine
    from jupyman.ssh.link import Link
    from jupyman.ssh.login.auth import Credentials, Keyring

    link = Link.open(ssh_g.read(HOST, ssh_config=asked["ssh_config"]), Credentials(), Keyring())
    forwarder = engine.make(HOST)
    forwarder.attach(link)
    _ready([forwarder.listen(0, target).local_port for target in _targets(asked)])
    sys.stdin.read()
    forwarder.close()
    link.close()


def sshtunnel(asked: dict[str, Any]) -> None:
    """Forward with sshtunnel."""
    from sshtunnel import SSHTunnelForwarder

    targets = _targets(asked)
    with SSHTunnelForwarder(
        (asked["address"], asked["port"]),
        ssh_username=asked["user"],
        ssh_pkey=asked["key"],
        ssh_config_file=None,
        allow_agent=False,
        host_pkey_directories=[],
        remote_bind_addresses=targets,
        local_bind_addresses=[("127.0.0.1", 0)] * len(targets),
    ) as tunnel:
        _ready(list(tunnel.local_bind_ports))
        sys.stdin.read()


def fabric(asked: dict[str, Any]) -> None:
    """Forward with fabric."""
    from fabric import Config, Connection
    from paramiko import SSHConfig

    keys = {"key_filename": asked["key"], "allow_agent": False, "look_for_keys": False}
    config = Config(ssh_config=SSHConfig(), lazy=True)
    with contextlib.ExitStack() as stack:
        connection = stack.enter_context(
            Connection(asked["address"], asked["user"], asked["port"], config=config, connect_kwargs=keys)
        )
        ports = []
        for address, port in _targets(asked):
            with socket.create_server(("127.0.0.1", 0)) as probe:
                local = probe.getsockname()[1]
            stack.enter_context(connection.forward_local(local, port, address))
            ports.append(local)
        _ready(ports)
        sys.stdin.read()


def asyncssh(asked: dict[str, Any]) -> None:
    """Forward with asyncssh and AES-GCM."""
    import asyncssh as ssh

    async def run() -> None:
        async with ssh.connect(
            asked["address"],
            asked["port"],
            config=None,
            username=asked["user"],
            client_keys=[asked["key"]],
            known_hosts=asked["known_hosts"],
            agent_path=None,
            encryption_algs=["aes128-gcm@openssh.com"],
        ) as connection:
            ports = []
            for address, port in _targets(asked):
                listener = await connection.forward_local_port("127.0.0.1", 0, address, port)
                ports.append(listener.get_port())
            _ready(ports)
            await _end()

    asyncio.run(run())


async def _end() -> None:
    """Wait for the end of standard input, which may be a pipe or not."""
    loop, ended = asyncio.get_running_loop(), asyncio.Event()

    def watch() -> None:
        sys.stdin.read()
        loop.call_soon_threadsafe(ended.set)

    threading.Thread(target=watch, daemon=True).start()
    await ended.wait()


FORWARDERS: dict[str, Callable[[dict[str, Any]], None]] = {
    "jupyman": jupyman,
    "sshtunnel": sshtunnel,
    "fabric": fabric,
    "asyncssh": asyncssh,
}


if __name__ == "__main__":
    main()
