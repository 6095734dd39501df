"""`tunnel`: forwards that belong to no session."""

from __future__ import annotations

import threading

import msgspec

from jupyman import errors, rules
from jupyman.api import Tunnel
from jupyman.api.results import Forwards
from jupyman.core.links.supervisor import Supervisor
from jupyman.core.sessions import outage_page
from jupyman.core.sessions.registry import SessionRegistry
from jupyman.core.sessions.views import endpoint
from jupyman.core.verbs.host_call import HostCall
from jupyman.host.report import port_owner
from jupyman.model import TunnelSpec
from jupyman.ssh.forward.engine import BoundForward
from jupyman.ssh.link import Link

KNOCK = 2.0  # seconds for our listener to see a connection that the host makes to this computer


def parse(text: str, host: str) -> TunnelSpec:
    """Read ``PORT``, ``PORT:REMOTE_PORT`` or ``PORT:ADDR:REMOTE_PORT``, as `ssh -L` does.

    Args:
        text: what the user wrote.
        host: of the remote port.

    Raises:
        UsageFault: it is none of these, or a port is not 1..65535.
    """
    spec = rules.parse_forward(text)
    return TunnelSpec(host=host, local_port=spec.local, address=spec.address, port=spec.remote)


def check(request: Tunnel) -> None:
    """Refuse a request of which a forward cannot be read.

    Raises:
        UsageFault: as `parse`.
    """
    for text in request.specs:
        parse(text, "")


def tunnel(request: Tunnel, call: HostCall) -> Forwards:
    """Open or close forwards: see `_open_all` and `_close_all`; all are tried."""
    specs = [parse(text, call.host) for text in request.specs]
    return _close_all(specs, call) if request.close else _open_all(request, specs, call)


def owner(request: Tunnel, sessions: SessionRegistry) -> str | None:
    """Return the one host whose forwards are to be closed; None if no host has one, or several have equally many."""
    hosts = {spec.host for spec, _ in sessions.forwards()}
    count = {host: sum(bool(_named(parse(text, host), sessions)) for text in request.specs) for host in hosts}
    most = max(count.values(), default=0)
    has = [host for host in hosts if most and count[host] == most]
    return has[0] if len(has) == 1 else None


def _open_all(request: Tunnel, specs: list[TunnelSpec], call: HostCall) -> Forwards:
    """Open forwards; one that exists already is returned as it is.

    Returns:
        The forwards, in the order asked for, and the first failure.

    Raises:
        JupymanError: no login, as `Supervisor.acquire`.
        UsageFault: a forward would lead to itself.
        ForwardingRefused: sshd does not allow it.
        PortInUse: no local port is free.
        NotOurs: another user listens there on the host, and this user does not agree.
        The last four only if there is no forward to return.
    """
    sessions, host = call.sessions, call.host
    supervisor = call.hosts.supervisor(host, call.operation.client)
    result = []
    failed: list[errors.JupymanError] = []
    for spec in specs:
        existing = next((kept for kept in _named(spec, sessions) if _target(kept) == _target(spec)), None)
        if existing is not None and (existing, None) not in sessions.forwards(host):
            local = existing.local_port
            _share(existing, request.share, sessions)
            if supervisor.status.state in {"needs-auth", "failed"}:  # only a person can help, and here is one
                call.connect()
        else:
            try:
                share = existing is not None and existing.share if request.share is None else request.share
                wanted = msgspec.structs.replace(spec, share=share)
                local = _open(wanted, supervisor, call, yes=request.yes)
            except (errors.ForwardingRefused, errors.PortInUse, errors.UsageFault, errors.NotOurs) as error:
                failed.append(error)
                continue
            if existing is not None and existing.local_port != local:
                # It waited for its port, which another program has had since the daemon's start.
                sessions.drop_forward(host, existing.local_port)
                sessions.save()
        view = next((v for v in sessions.tunnel_views(call.hosts, host) if v.local.endswith(f":{local}")), None)
        if view is None:
            raise errors.Interrupted(f"the forward of local port {local} was closed meanwhile")
        result.append(view)
    if failed and not result:
        raise failed[0]
    return Forwards(forwards=result, error=failed[0].info() if failed else msgspec.UNSET)


def _named(spec: TunnelSpec, sessions: SessionRegistry) -> list[TunnelSpec]:
    """Return the forwards that a local port names: the one that has it, then those that got another instead."""
    kept = [one for one, _ in sessions.forwards(spec.host)]
    has = [one for one in kept if one.local_port == spec.local_port]
    return has + [one for one in kept if one.asked == spec.local_port and one not in has]


def _share(existing: TunnelSpec, share: bool | None, sessions: SessionRegistry) -> None:
    """Open a forward to the other users of this computer, or close it to them; None: leave it."""
    if share is None or share == existing.share:
        return
    sessions.share_forward(existing, share=share)
    sessions.save()


def _target(spec: TunnelSpec) -> tuple[str, int]:
    return spec.address, spec.port


def _open(spec: TunnelSpec, supervisor: Supervisor, call: HostCall, *, yes: bool) -> int:
    """Open one forward; return its local port.

    Args:
        spec: the forward.
        supervisor: of its host.
        call: the request under way.
        yes: also to a port on which another user listens on the host.
    """
    target = _target(spec)
    remarks = []
    with call.step("tunnel", f"forwarding {spec.local_port} to {endpoint(target)} on {spec.host}") as progress:
        link = call.link
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
            confirm = call.confirm if call.interactive else None
            remark = port_owner.consent(link, spec.host, *target, yes=yes, confirm=confirm)
            if remark is not None:
                remarks.append(remark)
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
        call.sessions.keep_forward(kept, listener)
    call.sessions.save()
    supervisor.want(wanted=True)
    return local


def _listen(spec: TunnelSpec, link: Link, supervisor: Supervisor, *, free: bool) -> BoundForward:
    """Bind the local port; refuse a forward that leads to itself, when the host is this computer.

    Args:
        spec: the forward.
        link: to the host.
        supervisor: of the host.
        free: nothing listened at the far end a moment ago. If our own listener then receives a connection that the
            host makes to the far end, the forward leads to itself.

    Raises:
        UsageFault: it does.
        PortInUse: no local port is free.
    """
    if not free:
        return supervisor.forwarder.listen(spec.local_port, _target(spec))
    knocked = threading.Event()

    def shut() -> bool:
        knocked.set()
        return False

    listener: BoundForward = supervisor.forwarder.listen(spec.local_port, _target(spec), gate=shut)
    listener.share = True  # that connection belongs to the account on the host; nothing passes the gate
    try:
        try:
            link.open_channel(_target(spec)).close()
        except errors.ForwardingRefused:
            pass
        else:
            if knocked.wait(KNOCK):
                raise errors.UsageFault(
                    f"{endpoint(_target(spec))} on {spec.host} is this forward itself: {spec.host} is this computer",
                    "it needs no forward: start the program, and open its port",
                )
    except BaseException:
        listener.close()
        raise
    listener.share = spec.share
    listener.gate = None
    supervisor.forwarder.wake()
    return listener


def _close_all(specs: list[TunnelSpec], call: HostCall) -> Forwards:
    """Close the forwards that are named by their local port, or by the one that was asked for and was taken.

    Returns:
        The forwards that were closed, and an error about those that do not exist.

    Raises:
        UsageFault: none of them exists.
    """
    sessions, host = call.sessions, call.host
    views = {view.local: view for view in sessions.tunnel_views(call.hosts, host)}
    chosen: dict[int, None] = {}  # one that is named twice is closed once
    unknown: list[str] = []
    for spec in specs:
        named = _named(spec, sessions)
        if named:
            chosen[named[0].local_port] = None
        else:
            unknown.append(str(spec.local_port))
    closed = []
    for local in chosen:
        view = views.get(f"127.0.0.1:{local}")
        if view is None:  # it was opened after `views` was read
            unknown.append(str(local))
            continue
        listener = sessions.drop_forward(host, local)
        if listener is not None:
            listener.close()
        closed.append(view)
    sessions.save()
    call.release_link(host)
    if not unknown:
        return Forwards(forwards=closed)
    done = [view.local for view in closed]
    rest = f"; closed: {', '.join(done)}" if done else ""
    text = f"no forward of {host} has local port {' or '.join(unknown)}{rest}"
    fault = errors.UsageFault(text, "see jupyman ps", closed=done)
    if not closed:
        raise fault
    return Forwards(forwards=closed, error=fault.info())
