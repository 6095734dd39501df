"""Forwards that belong to no session: the verb `tunnel`."""

from __future__ import annotations

import threading

import msgspec

from jupyman import errors, rules
from jupyman.api import Operation, Tunnel
from jupyman.api.results import Forwards
from jupyman.core.links.hosts import Hosts
from jupyman.core.links.supervisor import Supervisor
from jupyman.core.runtime.progress import step
from jupyman.core.sessions import outage_page
from jupyman.core.sessions.forward_view import endpoint
from jupyman.core.sessions.registry import SessionRegistry
from jupyman.host.report import port_owner
from jupyman.model import TunnelSpec
from jupyman.ssh.forward.engine import BoundForward
from jupyman.ssh.link import Link

KNOCK = 2.0  # seconds for a connection that the host has made to this computer to be seen by our listener


def parse(text: str, host: str) -> TunnelSpec:
    """Read ``PORT``, ``PORT:REMOTE_PORT`` or ``PORT:ADDR:REMOTE_PORT``, as `ssh -L` does.

    Args:
        text: what the user wrote.
        host: where it leads.

    Raises:
        UsageFault: it is none of these, or a port is not 1..65535.
    """
    spec = rules.parse_forward(text)
    return TunnelSpec(host=host, local_port=spec.local, address=spec.address, port=spec.remote)


def open_all(request: Tunnel, host: str, hosts: Hosts, sessions: SessionRegistry, operation: Operation) -> Forwards:
    """Open the forwards that are asked for; each that stands already is returned as it is, and all are tried.

    Args:
        request: the verb's arguments; all are read before anything is touched.
        host: the resolved host.
        hosts: to reach it.
        sessions: where the forwards are kept.
        operation: whom to show it.

    Returns:
        The forwards, in the order asked for, and the first failure.

    Raises:
        UsageFault: a forward cannot be read, or would lead to itself.
        JupymanError: no login, as `Supervisor.acquire`.
        ForwardingRefused: sshd does not allow it.
        PortInUse: no local port is free.
        NotOurs: another person listens there on the host, and the user does not say yes.
        The last four only if there is no forward to return; all are tried.
    """
    specs = [parse(text, host) for text in request.specs]
    supervisor = hosts.supervisor(host, operation.client)
    result = []
    failed: list[errors.JupymanError] = []
    for spec in specs:
        standing = next((kept for kept in _asked(spec, sessions) if _target(kept) == _target(spec)), None)
        if standing is not None and (standing, None) not in sessions.forwards(host):
            local = standing.local_port
            _share(standing, request.share, sessions)
            if supervisor.status.state in {"needs-auth", "failed"}:  # only a person can go on, and here is one
                with step(operation, "connect", f"connecting to {host}") as progress:
                    supervisor.acquire(operation)
                    progress.text = f"connected to {host}"
        else:
            try:
                share = standing is not None and standing.share if request.share is None else request.share
                wanted = msgspec.structs.replace(spec, share=share)
                local = _open(wanted, supervisor, sessions, operation, yes=request.yes)
            except (errors.ForwardingRefused, errors.PortInUse, errors.UsageFault, errors.NotOurs) as error:
                failed.append(error)
                continue
            if standing is not None and standing.local_port != local:
                # It waited for its port, which somebody else has had since the daemon's start.
                sessions.drop_forward(host, standing.local_port)
                sessions.save()
        view = next((v for v in sessions.tunnel_views(hosts, host) if v.local.endswith(f":{local}")), None)
        if view is None:
            raise errors.Interrupted(f"the forward of local port {local} was closed meanwhile")
        result.append(view)
    if failed and not result:
        raise failed[0]
    return Forwards(forwards=result, error=failed[0].info() if failed else msgspec.UNSET)


def _asked(spec: TunnelSpec, sessions: SessionRegistry) -> list[TunnelSpec]:
    """Find the forwards that a local port means: the one that has it, then those that got another in its place."""
    kept = [one for one, _ in sessions.forwards(spec.host)]
    has = [one for one in kept if one.local_port == spec.local_port]
    return has + [one for one in kept if one.asked == spec.local_port and one not in has]


def _share(standing: TunnelSpec, share: bool | None, sessions: SessionRegistry) -> None:
    """Open a forward that stands to the other users of this computer, or close it to them."""
    if share is None or share == standing.share:
        return
    sessions.share_forward(standing, share=share)
    sessions.save()


def _target(spec: TunnelSpec) -> tuple[str, int]:
    return spec.address, spec.port


def _open(
    spec: TunnelSpec, supervisor: Supervisor, sessions: SessionRegistry, operation: Operation, *, yes: bool
) -> int:
    target = _target(spec)
    remarks = []
    with step(operation, "tunnel", f"forwarding {spec.local_port} to {endpoint(target)} on {spec.host}") as progress:
        link = supervisor.acquire(operation)
        free = False
        try:
            link.open_channel(target).close()
        except errors.ForwardingRefused as error:
            # Nothing listens there yet: people open TensorBoard's tunnel first and start it afterwards.
            if not isinstance(error, errors.TargetRefused):
                raise
            remarks.append(f"nothing listens on {endpoint(target)} on {spec.host} yet")
            free = True
        else:
            said = port_owner.consent(link, spec.host, *target, yes=yes, operation=operation)
            if said is not None:
                remarks.append(said)
        listener = _listen(spec, link, supervisor, free=free)
        local = listener.local_port
        if local != spec.local_port:
            remarks.append(f"local port {spec.local_port} is taken{listener.holder_text}: using {local}")
        if remarks:
            progress.warn("; ".join(remarks))
        else:
            progress.text = f"127.0.0.1:{local} leads to {endpoint(target)} on {spec.host}"
        listener.respond = outage_page.for_forward(spec, lambda: supervisor.status)
        listener.share = spec.share
        kept = msgspec.structs.replace(spec, local_port=local, asked=spec.local_port)
        sessions.keep_forward(kept, listener)
    sessions.save()
    supervisor.want(wanted=True)
    return local


def _listen(spec: TunnelSpec, link: Link, supervisor: Supervisor, *, free: bool) -> BoundForward:
    """Bind the local port; refuse one that is the very port to which it leads, where the host is this computer.

    Args:
        spec: the forward.
        link: to the host.
        supervisor: of it.
        free: nothing listened at the far end a moment ago. If our own listener comes to listen there, and hears of a
            connection that the host makes, the forward leads to itself.
    """
    if not free:
        return supervisor.forwarder.listen(spec.local_port, _target(spec))
    knocked = threading.Event()

    def shut() -> bool:
        knocked.set()
        return False

    listener: BoundForward = supervisor.forwarder.listen(spec.local_port, _target(spec), gate=shut)
    listener.share = True  # on the host that connection belongs to whoever logged in there; nothing passes the gate
    try:
        try:
            link.open_channel(_target(spec)).close()
        except errors.ForwardingRefused:
            pass
        else:
            if knocked.wait(KNOCK):
                raise errors.UsageFault(
                    f"{endpoint(_target(spec))} on {spec.host} is this forward itself: {spec.host} is this computer",
                    "it needs no forward; start the program there, and open its port",
                )
    except BaseException:
        listener.close()
        raise
    listener.share = spec.share
    listener.gate = None
    supervisor.forwarder.wake()
    return listener


def owner(request: Tunnel, sessions: SessionRegistry) -> str | None:
    """Find the one host that has the forwards which are to be closed; None: none has one, or it cannot be told."""
    hosts = {spec.host for spec, _ in sessions.forwards()}
    count = {host: sum(bool(_asked(parse(text, host), sessions)) for text in request.specs) for host in hosts}
    most = max(count.values(), default=0)
    has = [host for host in hosts if most and count[host] == most]
    return has[0] if len(has) == 1 else None


def close_all(request: Tunnel, host: str, hosts: Hosts, sessions: SessionRegistry) -> Forwards:
    """Close the forwards that are named by their local port, or by the one that was asked for and taken.

    Args:
        request: the verb's arguments; all are tried.
        host: the resolved host.
        hosts: whose link may be let go.
        sessions: where the forwards are kept.

    Returns:
        The forwards that were closed, and what is to be said of those that do not exist.

    Raises:
        UsageFault: none of them exists.
    """
    specs = [parse(text, host) for text in request.specs]
    views = {view.local: view for view in sessions.tunnel_views(hosts, host)}
    chosen: dict[int, None] = {}  # said twice is closed once
    unknown: list[str] = []
    for spec in specs:
        asked = _asked(spec, sessions)
        if asked:
            chosen[asked[0].local_port] = None
        else:
            unknown.append(str(spec.local_port))
    closed = []
    for local in chosen:
        view = views.get(f"127.0.0.1:{local}")
        if view is None:  # it was opened a moment ago, after we looked
            unknown.append(str(local))
            continue
        listener = sessions.drop_forward(host, local)
        if listener is not None:
            listener.close()
        closed.append(view)
    sessions.save()
    supervisor = hosts.known(host)
    if supervisor is not None:
        supervisor.want(wanted=sessions.wanted(host))
    if unknown:
        done = [view.local for view in closed]
        rest = f"; closed: {', '.join(done)}" if done else ""
        text = f"no forward of {host} has local port {' or '.join(unknown)}{rest}"
        fault = errors.UsageFault(text, "see jupyman ps", closed=done)
        if not closed:
            raise fault
        return Forwards(forwards=closed, error=fault.info())
    return Forwards(forwards=closed)
