"""`jupyman ps`."""

from __future__ import annotations

from typing import Any

import click

from jupyman import api
from jupyman.cli import terminal
from jupyman.cli.context import Context
from jupyman.cli.options import Host, json_option


@click.command(epilog="Example: jupyman ps -a")
@click.argument("hosts", nargs=-1, type=Host(), metavar="[HOST]...")
@click.option("-a", "--all", "every", is_flag=True, help="also servers that jupyman did not start")
@json_option
@click.pass_obj
def command(context: Context, hosts: tuple[str, ...], every: bool, as_json: bool) -> None:
    """List sessions and forwards."""
    result = context.call(api.PsRequest(hosts=list(hosts), all=every), quiet=as_json)
    if as_json:
        context.dump(result)
        return
    sessions, forwards, servers = result["sessions"], result["forwards"], result["servers"]
    if sessions:
        heads = ("NAME", "HOST", "STATE", "LINK", "URL", "ENV", "GPU", "PORT", "UPTIME")
        context.out(terminal.table(heads, [_session(one) for one in sessions]))
        for one in sessions:
            for problem in one["problems"]:
                context.out(f"{one['name']}: {problem['text']} ({problem['fix']})")
            if one["link"]["state"] in {"needs-auth", "failed"}:
                context.out(f"{one['name']}: {one['link']['last_error']} (jupyman up {one['name']})")
    if forwards:
        if sessions:
            context.out()
        rows = [(f["local"], f["host"], f["remote"], f["state"], str(f["open"])) for f in forwards]
        context.out(terminal.table(("FORWARD", "HOST", "REMOTE", "STATE", "OPEN"), rows))
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
    if not (sessions or forwards or servers):
        where = f" on {', '.join(hosts)}" if hosts else ""
        context.note(f"no sessions{where}; make one with jupyman up {hosts[0] if hosts else 'HOST'}")


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
