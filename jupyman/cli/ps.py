"""`jupyman ps`."""

from __future__ import annotations

from typing import Any

import click

from jupyman import api
from jupyman.cli import terminal
from jupyman.cli.context import Context
from jupyman.cli.options import Host, json_option

# What is over so soon is no trouble, seconds; it is counted all the same.
BLIP = 5.0


@click.command(epilog="Example: jupyman ps -a")
@click.argument("hosts", nargs=-1, type=Host(), metavar="[HOST]...")
@click.option("-a", "--all", "every", is_flag=True, help="also servers that jupyman did not start")
@json_option
@click.pass_obj
def command(context: Context, hosts: tuple[str, ...], every: bool, as_json: bool) -> int:
    """List sessions and forwards."""
    result = context.call(api.PsRequest(hosts=list(hosts), all=every), quiet=as_json)
    missed = result.get("unreachable", [])
    if missed:
        result["error"] = missed[0]["error"]
    if as_json:
        context.dump(result)
        return context.partly(result)
    sessions, forwards, servers = result["sessions"], result["forwards"], result["servers"]
    if sessions:
        heads = ("NAME", "HOST", "STATE", "LINK", "URL", "ENV", "GPU", "PORT", "UPTIME")
        context.out(terminal.table(heads, [_session(one) for one in sessions]))
        for one in sessions:
            if one["held"]:
                again = f"jupyman up {one['name']}; jupyman down --release {one['name']} frees the port"
                context.out(f"{one['name']}: down, {one['held']} stays reserved ({again})")
            for problem in one["problems"]:
                context.out(f"{one['name']}: {problem['text']} ({problem['fix']})")
            for use in one["gpu_use"]:
                what = use["notebook"] or (
                    f"kernel {use['kernel'][:8]}" if use["kernel"] else "a process of its server"
                )
                memory = terminal.size(use["memory"])
                context.out(f"{one['name']}: {memory} of GPU {use['gpu']} held by {what} (pid {use['pid']})")
            trouble = _trouble(one["link"], f"jupyman up {one['name']}")
            if trouble:
                context.out(f"{one['name']}: {trouble}")
    if forwards:
        if sessions:
            context.out()
        columns = ("FORWARD", "HOST", "REMOTE", "STATE", "OPEN", "IN", "OUT")
        context.out(terminal.table(columns, [_forward(one) for one in forwards]))
        shown = {one["host"] for one in sessions}
        for forward in forwards:
            for problem in forward.get("problems", []):
                context.out(f"{forward['local']}: {problem['text']} ({problem['fix']})")
            again = f"jupyman tunnel {forward['local'].rpartition(':')[2]} --host {forward['host']}"
            trouble = _trouble(forward.get("link") or {}, again)
            if trouble and forward["host"] not in shown:
                shown.add(forward["host"])
                context.out(f"{forward['host']}: {trouble}")
    if servers:
        if sessions or forwards:
            context.out()
        found = [
            (s["host"], str(s["pid"]), _text(s["port"]), s["user"], _text(s["root_dir"]), _text(s["started"]))
            for s in servers
        ]
        context.out(terminal.table(("SERVER ON", "PID", "PORT", "USER", "DIRECTORY", "STARTED"), found))
        for server in servers:
            for problem in server["problems"]:
                context.out(f"{server['host']}: {problem['text']} ({problem['fix']})")
    if missed and (sessions or forwards or servers or len(missed) > 1):  # of one alone, the error says it all
        if sessions or forwards or servers:
            context.out()
        rows = [(one["host"], one["error"]["message"]) for one in missed]
        context.out(terminal.table(("NOT REACHED", "WHY"), rows))
    if not (sessions or forwards or servers or missed):
        where = f" on {', '.join(hosts)}" if hosts else ""
        context.note(f"no sessions{where}; make one with jupyman up {hosts[0] if hosts else 'HOST'}")
    return context.partly(result)


def _session(one: dict[str, Any]) -> tuple[str, ...]:
    server = one["server"] or {}
    link = one["link"]
    back = link["reconnects"]
    state = link["state"] + (f" ({back} time{'' if back == 1 else 's'} back)" if back else "")
    env = (server.get("kernel_env") or server.get("env") or "").rstrip("/").rsplit("/", 1)[-1]
    gpus = server.get("gpus")
    return (
        one["name"],
        one["host"],
        one["state"],
        state,
        _text((one["url"] or "").split("?")[0]),  # the token is for `jupyman url`
        _text(env),
        ",".join(map(str, gpus)) if gpus else "-",
        _text(server.get("port")),
        _uptime(None if one["state"] == "exited" else server.get("started")),
    )


def _forward(one: dict[str, Any]) -> tuple[str, ...]:
    carried = (terminal.size(one["bytes_in"]), terminal.size(one["bytes_out"]))
    state = one["state"] + (", shared" if one.get("share") else "")
    return (one["local"], one["host"], one["remote"], state, str(one["open"]), *carried)


def _trouble(link: dict[str, Any], again: str) -> str:
    """Say in one line why a link is not up, and who does what about it; "" where nothing is the matter."""
    state = link.get("state")
    if state in {"needs-auth", "failed"}:
        return f"{link['last_error']} ({again})"
    if state != "reconnecting" or not link["last_error"]:
        return ""
    from datetime import UTC, datetime

    if link.get("silent_since"):
        since = datetime.fromisoformat(link["silent_since"]).astimezone()
        return f"no answer since {since:%H:%M:%S}; the connection is kept for a while"

    if (datetime.now(UTC) - datetime.fromisoformat(link["since"])).total_seconds() < BLIP:
        return ""
    following = ""
    if link["next_attempt"]:
        following = f", next at {datetime.fromisoformat(link['next_attempt']).astimezone():%H:%M:%S}"
    return f"{link['last_error']} (jupyman goes on trying{following})"


def _uptime(started: str | None) -> str:
    if not started:
        return "-"
    from datetime import UTC, datetime

    try:
        return terminal.duration((datetime.now(UTC) - datetime.fromisoformat(started)).total_seconds())
    except (ValueError, TypeError):  # no time, or one without a zone
        return started


def _text(value: Any) -> str:
    return "-" if value in {None, ""} else str(value)
