"""Forwards that belong to no session: the verb `tunnel`."""

from __future__ import annotations

import re

from jupyman import errors
from jupyman.api import Operation, Tunnel
from jupyman.core.hosts import Hosts
from jupyman.core.sessions import Sessions, endpoint
from jupyman.core.steps import step
from jupyman.core.supervisor import Supervisor
from jupyman.model import HostForward, TunnelSpec

_SPEC = re.compile(r"^(?P<local>[0-9]+)(?::(?:(?P<address>\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._-]+):)?(?P<remote>[0-9]+))?$")


def parse(text: str, host: str) -> TunnelSpec:
    """Read ``PORT``, ``PORT:REMOTE_PORT`` or ``PORT:ADDR:REMOTE_PORT``, as `ssh -L` does.

    Args:
        text: what the user wrote.
        host: where it leads.

    Raises:
        UsageFault: it is none of these, or a port is not 1..65535.
    """
    match = _SPEC.match(text)
    if match is None:
        raise errors.UsageFault(f"{text!r} is not a forward", "write PORT, PORT:REMOTE_PORT or PORT:ADDR:REMOTE_PORT")
    local = int(match["local"])
    remote = int(match["remote"] or match["local"])
    for port in (local, remote):
        if not 1 <= port <= 65535:  # noqa: PLR2004 - TCP's range
            raise errors.UsageFault(f"port {port} is not between 1 and 65535", "choose another port")
    address = (match["address"] or "127.0.0.1").strip("[]")
    return TunnelSpec(host=host, local_port=local, address=address, port=remote)


def open_all(request: Tunnel, host: str, hosts: Hosts, sessions: Sessions, operation: Operation) -> list[HostForward]:
    """Open the forwards that are asked for; each that stands already is returned as it is.

    Args:
        request: the verb's arguments; all are read before anything is touched.
        host: the resolved host.
        hosts: to reach it.
        sessions: where the forwards are kept.
        operation: whom to show it.

    Returns:
        The forwards, in the order asked for.

    Raises:
        UsageFault: a forward cannot be read.
        ForwardingRefused: sshd does not allow it.
        PortInUse: no local port is free.
    """
    specs = [parse(text, host) for text in request.specs]
    supervisor = hosts.supervisor(host, operation.client)
    result = []
    for spec in specs:
        with sessions.lock:
            standing = sessions.tunnels.get((host, spec.local_port))
        if standing is not None and (standing[0].address, standing[0].port) == (spec.address, spec.port):
            local = spec.local_port
        else:
            local = _open(spec, supervisor, sessions, operation)
        result.append(next(v for v in sessions.tunnel_views(hosts) if v.host == host and v.local.endswith(f":{local}")))
    return result


def _open(spec: TunnelSpec, supervisor: Supervisor, sessions: Sessions, operation: Operation) -> int:
    target = (spec.address, spec.port)
    with step(operation, "tunnel", f"forwarding {spec.local_port} to {endpoint(target)} on {spec.host}") as progress:
        link = supervisor.acquire(operation)
        try:
            link.open_channel(target).close()
        except errors.ForwardingRefused as error:
            # Nothing listens there yet: people open TensorBoard's tunnel first and start it afterwards.
            if not error.details.get("target_refused"):
                raise
            progress.warn(f"nothing listens on {endpoint(target)} on {spec.host} yet")
        listener = supervisor.forwarder.listen(spec.local_port, target)
        local = listener.local_port
        if local != spec.local_port:
            progress.warn(f"local port {spec.local_port} is taken{listener.holder_text}: using {local}")
        elif progress.state == "done":
            progress.text = f"127.0.0.1:{local} leads to {endpoint(target)} on {spec.host}"
        kept = TunnelSpec(host=spec.host, local_port=local, address=spec.address, port=spec.port)
        with sessions.lock:
            sessions.tunnels[(spec.host, local)] = (kept, listener)
    sessions.save()
    supervisor.want(wanted=True)
    return local


def close_all(request: Tunnel, host: str, hosts: Hosts, sessions: Sessions) -> list[HostForward]:
    """Close the forwards that are named by their local port.

    Args:
        request: the verb's arguments; all are looked up before one is closed.
        host: the resolved host.
        hosts: whose link may be let go.
        sessions: where the forwards are kept.

    Returns:
        The forwards that were closed.

    Raises:
        UsageFault: one of them does not exist.
    """
    specs = [parse(text, host) for text in request.specs]
    views = {view.local: view for view in sessions.tunnel_views(hosts) if view.host == host}
    for spec in specs:
        if (host, spec.local_port) not in sessions.tunnels:
            raise errors.UsageFault(f"no forward of {host} has local port {spec.local_port}", "see jupyman ps")
    closed = []
    for spec in specs:
        with sessions.lock:
            _, listener = sessions.tunnels.pop((host, spec.local_port))
        if listener is not None:
            listener.close()
        closed.append(views[f"127.0.0.1:{spec.local_port}"])
    sessions.save()
    supervisor = hosts.known(host)
    if supervisor is not None:
        supervisor.want(wanted=sessions.wanted(host))
    return closed
