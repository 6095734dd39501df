"""`jupyman ps`."""

from __future__ import annotations

from collections.abc import Iterator

import click

from jupyman import api, rules
from jupyman.api.results import Ps, Unreachable
from jupyman.cli import terminal
from jupyman.cli.context import Context
from jupyman.cli.options import Host, json_option
from jupyman.model import FoundServer, GpuUse, HostForward, LinkStatus, Problem, Session

# Seconds for which an outage is not reported; it is counted in any case.
BLIP = 5.0


@click.command(epilog="Example: jupyman ps -a")
@click.argument("hosts", nargs=-1, type=Host(), metavar="[HOST]...")
@click.option("-a", "--all", "every", is_flag=True, help="also servers that jupyman did not start")
@json_option
@click.pass_obj
def command(context: Context, hosts: tuple[str, ...], every: bool, as_json: bool) -> int:
    """List sessions and forwards."""
    result = context.call(api.PsRequest(hosts=list(hosts), all=every), quiet=as_json)
    if as_json:
        context.dump(result)
        return context.partly(result)
    parts = list(_parts(result))
    if parts:
        context.out("\n\n".join(parts))
    elif not isinstance(result.unreachable, list):
        where = f" on {', '.join(hosts)}" if hosts else ""
        context.note(f"no sessions{where}; start one with jupyman up {hosts[0] if hosts else 'HOST'}")
    return context.partly(result)


def _parts(result: Ps) -> Iterator[str]:
    """Yield the tables, each with its remarks."""
    if result.sessions:
        yield "\n".join(_sessions(result.sessions))
    if result.forwards:
        yield "\n".join(_forwards(result.forwards, {one.host for one in result.sessions}))
    if result.servers:
        yield "\n".join(_servers(result.servers))
    missed = result.unreachable if isinstance(result.unreachable, list) else []
    # A single unreachable host and nothing else is reported by the error.
    if missed and (result.sessions or result.forwards or result.servers or len(missed) > 1):
        yield _unreachable(missed)


def _sessions(sessions: list[Session]) -> Iterator[str]:
    heads = ("NAME", "HOST", "STATE", "LINK", "URL", "ENV", "GPU", "PORT", "UPTIME")
    yield terminal.table(heads, [_session(one) for one in sessions])
    for one in sessions:
        if one.held:
            again = f"jupyman up {one.name}; jupyman down --release {one.name} frees the port"
            yield f"{one.name}: down, {one.held} stays reserved ({again})"
        yield from _problems(one.name, one.problems)
        for use in one.gpu_use:
            holder = _holder(use)
            yield f"{one.name}: {rules.size(use.memory)} of GPU {use.gpu} held by {holder} (pid {use.pid})"
        trouble = _trouble(one.link, f"jupyman up {one.name}")
        if trouble:
            yield f"{one.name}: {trouble}"


def _session(one: Session) -> tuple[str, ...]:
    server = one.server
    times = one.link.reconnects
    reconnected = f" (reconnected {'once' if times == 1 else f'{times} times'})" if times else ""
    env = (server.kernel_env or server.env or "") if server is not None else ""
    gpus = server.gpus if server is not None else None
    return (
        one.name,
        one.host,
        one.state,
        one.link.state + reconnected,
        (one.url or "").split("?")[0] or "-",  # only `jupyman url` prints the token
        env.rstrip("/").rsplit("/", 1)[-1] or "-",
        ",".join(map(str, gpus)) if gpus else "-",
        _number(server.port if server is not None else None),
        _uptime(server.started if server is not None and one.state != "exited" else None),
    )


def _holder(use: GpuUse) -> str:
    if use.notebook:
        return use.notebook
    return f"kernel {use.kernel[:8]}" if use.kernel else "a process of its server"


def _forwards(forwards: list[HostForward], reported: set[str]) -> Iterator[str]:
    """Yield the table and its remarks.

    Args:
        forwards: the rows.
        reported: hosts whose link is described already.
    """
    yield terminal.table(
        ("FORWARD", "HOST", "REMOTE", "STATE", "OPEN", "IN", "OUT"), [_forward(one) for one in forwards]
    )
    reported = set(reported)
    for one in forwards:
        if isinstance(one.problems, list):
            yield from _problems(one.local, one.problems)
        again = f"jupyman tunnel {one.local.rpartition(':')[2]} --host {one.host}"
        trouble = _trouble(one.link, again) if one.link is not None else ""
        if trouble and one.host not in reported:
            reported.add(one.host)
            yield f"{one.host}: {trouble}"


def _forward(one: HostForward) -> tuple[str, ...]:
    state = one.state + (", shared" if one.share else "")
    sizes = (rules.size(one.bytes_in), rules.size(one.bytes_out))
    return (one.local, one.host, one.remote, state, str(one.open), *sizes)


def _servers(servers: list[FoundServer]) -> Iterator[str]:
    rows = [
        (one.host, _number(one.pid), _number(one.port), one.user, one.root_dir or "-", one.started or "-")
        for one in servers
    ]
    yield terminal.table(("SERVER ON", "PID", "PORT", "USER", "DIRECTORY", "STARTED"), rows)
    for one in servers:
        yield from _problems(one.host, one.problems)


def _unreachable(missed: list[Unreachable]) -> str:
    return terminal.table(("NOT REACHED", "WHY"), [(one.host, one.error.message) for one in missed])


def _problems(where: str, problems: list[Problem]) -> Iterator[str]:
    for problem in problems:
        yield f"{where}: {problem.text} ({problem.fix})"


def _trouble(link: LinkStatus, command: str) -> str:
    """Return in one line why a link is not up and what happens next; "" if it is fine.

    Args:
        link: its status.
        command: what the user runs if jupyman does not try again by itself.
    """
    if link.state in {"needs-auth", "failed"}:
        return f"{link.last_error} ({command})"
    if link.state != "reconnecting" or not link.last_error:
        return ""
    from datetime import UTC, datetime

    if link.silent_since:
        since = datetime.fromisoformat(link.silent_since).astimezone()
        return f"no answer since {since:%H:%M:%S}; the connection is kept for now"
    if link.since and (datetime.now(UTC) - datetime.fromisoformat(link.since)).total_seconds() < BLIP:
        return ""
    following = ""
    if link.next_attempt:
        following = f", next attempt at {datetime.fromisoformat(link.next_attempt).astimezone():%H:%M:%S}"
    return f"{link.last_error} (jupyman keeps trying{following})"


def _uptime(started: str | None) -> str:
    if not started:
        return "-"
    from datetime import UTC, datetime

    try:
        return terminal.duration((datetime.now(UTC) - datetime.fromisoformat(started)).total_seconds())
    except (ValueError, TypeError):  # not a time, or one without a time zone
        return started


def _number(value: int | None) -> str:
    return "-" if value is None else str(value)
