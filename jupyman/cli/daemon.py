"""`jupyman daemon`."""

from __future__ import annotations

import time
from collections import deque

import click

from jupyman import api, errors
from jupyman.cli.context import Context
from jupyman.cli.options import json_option
from jupyman.cli.terminal import size

STOP_TIMEOUT = 10.0


@click.group("daemon", epilog="Example: jupyman daemon status")
def command() -> None:
    """The background process that holds links and forwards. Servers on hosts never depend on it."""


@command.command(epilog="Example: jupyman daemon start")
@json_option
@click.pass_obj
def start(context: Context, as_json: bool) -> None:
    """Start it; every other command does so where needed."""
    _show(context, as_json=as_json, start=True)


@command.command(epilog="Example: jupyman daemon status --json")
@json_option
@click.pass_obj
def status(context: Context, as_json: bool) -> None:
    """Show whether it runs."""
    _show(context, as_json=as_json, start=False)


@command.command(epilog="Example: jupyman daemon stop")
@json_option
@click.pass_obj
def stop(context: Context, as_json: bool) -> None:
    """End it. Servers on hosts run on; `jupyman ps` brings their forwards back."""
    stopped = _stop(context)
    if as_json:
        context.dump({"stopped": stopped})
    else:
        context.out("daemon stopped; your servers keep running" if stopped else "no daemon was running")


@command.command(epilog="Example: jupyman daemon restart")
@json_option
@click.pass_obj
def restart(context: Context, as_json: bool) -> None:
    """End it and start this version."""
    _stop(context)
    _show(context, as_json=as_json, start=True)


@command.command(epilog="Example: jupyman daemon logs -n 20")
@click.option("-n", "--lines", type=click.IntRange(0, 100000), default=100, show_default=True, help="how many of the last")
@click.pass_obj
def logs(context: Context, lines: int) -> None:
    """Print the end of its log."""
    try:
        with context.paths.log_file.open(encoding="utf-8", errors="replace") as file:
            for line in deque(file, lines):
                context.out(line.rstrip("\n"))
    except OSError as error:
        raise errors.UsageFault(f"there is no log yet: {context.paths.log_file}", "jupyman daemon start") from error


@command.command(epilog="Example: jupyman daemon run")
@click.pass_obj
def run(context: Context) -> int:
    """Run it in the foreground, logging to stderr as well."""
    # The one command that is the daemon: the import is its own.
    from jupyman.daemon.main import run as serve

    return serve(context.paths, foreground="JUPYMAN_DAEMON" not in context.environ)


def _show(context: Context, *, as_json: bool, start: bool) -> None:
    result = context.call(api.DaemonStatus(), start=start, any_version=not start)
    if as_json:
        context.dump(result)
    else:
        context.out(
            f"daemon {result['version']} runs: pid {result['pid']}, up {result['uptime']:.0f} s, "
            f"{result['threads']} threads, {size(result['memory'])}; log {result['log']}"
        )


def _stop(context: Context) -> bool:
    from jupyman import address

    found = address.read(context.paths.daemon_file)
    try:
        context.call(api.DaemonStop(), start=False, any_version=True)
    except errors.DaemonUnavailable:
        return False
    deadline = time.monotonic() + STOP_TIMEOUT
    # The lock and the ports are free when its address is gone and the process with it.
    while time.monotonic() < deadline and found is not None and _runs(found.pid, found.create_time):
        time.sleep(0.02)
    return True


def _runs(pid: int, create_time: float) -> bool:
    import psutil

    try:
        process = psutil.Process(pid)
        return process.create_time() == create_time and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False
