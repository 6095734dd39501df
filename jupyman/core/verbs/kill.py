"""`kill`: stop servers, or the listener of a port; never a process of another user, and never the wrong one."""

from __future__ import annotations

import re

import msgspec

from jupyman import errors, rules
from jupyman.api import Kill
from jupyman.api.results import Killed, Kills
from jupyman.core.sessions.monitor import own_server
from jupyman.core.sessions.registry import SessionRegistry, SessionRuntime
from jupyman.core.sessions.state import Doubted
from jupyman.core.verbs import kill_orphans, request_host
from jupyman.core.verbs.host_call import HostCall, VerbCall
from jupyman.host.kernels import notebooks
from jupyman.host.report import ports
from jupyman.host.servers.base import Record, UnmanagedServer
from jupyman.model import Running
from jupyman.ssh.link import Link

NAMED = 5  # busy kernels that a question names

_PORT = re.compile(r"^(?:(?P<host>.+):)?(?P<port>[0-9]+)$")


def kill(request: Kill, call: VerbCall) -> Kills:
    """Stop each target; all are tried.

    Returns:
        What was stopped, and the first failure.

    Raises:
        UsageFault: no such target, or it is ambiguous; or a question must be answered, and there is no terminal.
        NotOurs: the process belongs to another user.
        Interrupted: the question was answered with no.
        All of these only if nothing was stopped.
    """
    if request.orphans is not None:
        return _orphans(request, call.on(request.orphans))
    targets = request.targets or [_only(call.sessions)]
    killed: list[Killed] = []
    first: errors.JupymanError | None = None
    for target in targets:
        try:
            killed.append(_one(target, request, call))
        except errors.JupymanError as error:
            if isinstance(error, errors.Interrupted) and not isinstance(error, errors.Declined):
                raise  # Ctrl-C ends all, a "no" only the target in question
            if len(targets) > 1:
                call.report(f"kill {target}", f"{target}: {error.message}", "warn")
            first = first or error
    if first is not None and not killed:
        raise first
    return Kills(killed=killed, error=first.info() if first is not None else msgspec.UNSET)


def _orphans(request: Kill, call: HostCall) -> Kills:
    if request.targets:
        raise errors.UsageFault("--orphans ends kernels, not sessions or ports", "leave out one of them")
    ended = kill_orphans.kill(request, call)
    host = call.host
    return Kills(
        killed=[Killed(target=host, host=host, pid=one.pid, kernel=one.kernel, memory=one.memory) for one in ended]
    )


def _only(sessions: SessionRegistry) -> str:
    names = sorted(one.name for one in sessions.all())
    if len(names) == 1:
        return names[0]
    raise errors.UsageFault("kill what?", f"name a session or a port; sessions here: {', '.join(names) or 'none'}")


def _one(target: str, request: Kill, call: VerbCall) -> Killed:
    if (state := call.sessions.find(target)) is not None:
        session = call.sessions.runtime(target)
        # A session that was named needs no question; the only one does.
        if not request.targets:
            _confirm(request, call, f"Stop session {target} with its kernels on {state.spec.host}?")
        return _session(session, request, call.on(state.spec.host), asked=not request.targets)
    match = _PORT.match(target)
    if match is None:
        call.sessions.get(target)  # raises, naming the sessions
        raise AssertionError(target)
    port = int(match["port"])
    rules.check_port(port, "name a session or a port; see jupyman ps")
    return _port(target, port, request, call.on(request_host.only(match["host"] or request.host, call)))


def _session(session: SessionRuntime, request: Kill, call: HostCall, *, asked: bool) -> Killed:
    """Stop a session's server and forget the session.

    Args:
        session: it.
        request: the verb's arguments.
        call: on its host.
        asked: the user has agreed to its end already.
    """
    state = session.current
    name, host = state.name, state.spec.host
    with call.step(f"kill {name}", f"stopping {name} on {host}") as progress:
        try:
            link = call.link
        except (errors.HostUnreachable, errors.UsageFault) as error:
            if not request.force:
                raise
            # A machine that is gone for good must not stay in the list for ever.
            progress.warn(f"{name}: forgotten; whether its server on {host} still runs is not known ({error.message})")
            return _forget(session, call)
        launcher = call.launcher
        running = session.current.running
        if running is None:
            found = launcher.find()
            if (node := found.other_node(name, state.spec.node)) is not None:
                raise errors.RemoteFailed(
                    f"the server of {name} runs on {node}, and this login reached {found.node}",
                    f"name {node} itself in ~/.ssh/config, then jupyman kill it there",
                )
            server = own_server(found, state.spec, call.sessions.taken(state))
            running = launcher.adopt(server, record=False) if server is not None else None
        seen = launcher.verify(running) if running is not None else None
        lives = seen is not None and not seen.dead
        if running is not None and seen is not None and seen.ok:
            running = seen.now(running)  # another computer may have changed the token
        if running is not None and seen is not None and lives and not asked:
            _protect_busy_kernels(name, link, running, request, call, proven=seen.ok)
        progress.text = f"{name}: no server runs on {host} any more"
        if running is not None:
            call.sessions.apply(session, Doubted())
            # Also if it is dead: its kernels and files may still be there.
            ended = launcher.stop(running, force=request.force)
            if not ended:
                question = f"the server of {name} (pid {running.server.pid}) does not end. Kill it (SIGKILL)?"
                if not call.interactive:
                    raise errors.RemoteFailed(
                        f"the server of {name} (pid {running.server.pid}) does not end", f"jupyman kill --force {name}"
                    )
                _confirm(request, call, question)
                launcher.stop(running, force=True)
            if lives:
                progress.text = f"{name}: server stopped (pid {running.server.pid})"
    _forget(session, call)
    pid = running.server.pid if running is not None and lives else None
    port = running.server.port if running is not None and lives else None
    return Killed(target=name, session=name, host=host, pid=pid, port=port)


def _protect_busy_kernels(
    name: str, link: Link, running: Running, request: Kill, call: VerbCall, *, proven: bool
) -> None:
    """Ask before busy kernels are ended.

    Args:
        name: of the session.
        link: to its host.
        running: its server, which runs.
        request: the verb's arguments.
        call: asks the question.
        proven: the server was proven a moment ago to be the session's: its token may be sent there.

    Raises:
        UsageFault: there are some, and there is no terminal.
        Interrupted: the answer was no.
    """
    if request.yes or request.force:
        return
    busy = notebooks.busy(link, running) if proven else None
    if busy is None:
        with call.step(f"kernels {name}", f"asking the server of {name} for its kernels") as asking:
            asking.warn(f"{name}: its server does not report whether kernels are busy")
    if not busy:
        return
    listed = ", ".join(one.text for one in busy[:NAMED])
    if len(busy) > NAMED:
        listed += f" and {len(busy) - NAMED} more"
    if not call.interactive:
        raise errors.UsageFault(
            f"kernels of session {name} are busy: {listed}; it was not stopped",
            "-y stops it anyway",
            busy=msgspec.to_builtins(busy),
        )
    _confirm(request, call, f"Kernels of session {name} are busy: {listed}. Stop it anyway?")


def _forget(session: SessionRuntime, call: VerbCall) -> Killed:
    """Remove a session from the registry; its host is not contacted."""
    name, host = session.name, session.current.spec.host
    call.sessions.remove(session)
    call.release_link(host)
    return Killed(target=name, session=name, host=host)


def _port(target: str, port: int, request: Kill, call: HostCall) -> Killed:
    host, link = call.host, call.link
    with call.step(f"kill {target}", f"looking who listens on port {port} of {host}") as progress:
        holder = next(iter(ports.who(link, [port])), None)
        if holder is None:
            raise errors.UsageFault(f"nothing listens on port {port} of {host}", f"see jupyman check {host}")
        what = ports.describe(holder)
        progress.text = f"port {port} of {host} is held by {what}"
    if not holder.ours:
        raise errors.NotOurs(f"port {port} of {host} is held by {what}: not yours, so it was not stopped")
    for session in call.sessions.runtimes(host):
        running = session.current.running
        if running is not None and running.server.pid == holder.pid:
            _confirm(request, call, f"Port {port} is the server of session {session.name}. Stop it?")
            return _session(session, request, call, asked=True)
    _confirm(request, call, f"End {what} on {host}?")
    with call.step(f"end {target}", f"ending pid {holder.pid}") as progress:
        launcher = call.launcher
        found = launcher.find()
        servers: list[Record | UnmanagedServer] = [*found.records, *found.servers]
        server = next((one for one in servers if one.pid == holder.pid), None)
        if server is not None:
            call.sessions.doubt(host, server.pid)  # a session may have found it meanwhile
            ended = launcher.stop(launcher.adopt(server, record=False), force=request.force)
        else:
            ended = ports.stop_process(link, holder, force=request.force)
        if not ended:
            raise errors.RemoteFailed(f"pid {holder.pid} on {host} does not end", f"jupyman kill --force {target}")
        progress.text = f"ended {what}"
    return Killed(target=target, host=host, pid=holder.pid, port=port)


def _confirm(request: Kill, call: VerbCall, question: str) -> None:
    if not request.yes and not call.confirm(question):
        raise errors.Declined("nothing was stopped")
