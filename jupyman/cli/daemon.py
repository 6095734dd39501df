"""`jupyman daemon`."""

from __future__ import annotations

import time
from collections import deque
from typing import TYPE_CHECKING

import click
import msgspec

from jupyman import api, errors
from jupyman.api.results import DaemonStopped
from jupyman.cli.context import Context
from jupyman.cli.options import json_option, lines_option
from jupyman.rules import size

if TYPE_CHECKING:
    import psutil

STOP_TIMEOUT = 10.0  # seconds for a daemon to close its links before it is killed


@click.group("daemon", epilog="Example: jupyman daemon status")
def command() -> None:
    """Manage the background process, which holds links and forwards. Servers on hosts never depend on it."""


@command.command(epilog="Example: jupyman daemon start")
@json_option
@click.pass_obj
def start(context: Context, as_json: bool) -> None:
    """Start the daemon. Every command that needs it does so too."""
    _show(context, as_json=as_json, start=True)


@command.command(epilog="Example: jupyman daemon status --json")
@json_option
@click.pass_obj
def status(context: Context, as_json: bool) -> None:
    """Show whether the daemon is running."""
    _show(context, as_json=as_json, start=False)


@command.command(epilog="Example: jupyman daemon stop")
@json_option
@click.pass_obj
def stop(context: Context, as_json: bool) -> None:
    """Stop the daemon. Servers on hosts keep running; `jupyman ps` restores their forwards."""
    stopped = _stop(context)
    if as_json:
        context.dump(DaemonStopped(stopped=stopped))
    else:
        context.out("daemon stopped; your servers keep running" if stopped else "no daemon was running")


@command.command(epilog="Example: jupyman daemon restart")
@json_option
@click.pass_obj
def restart(context: Context, as_json: bool) -> None:
    """Stop the daemon and start this version."""
    context.config()  # refuse a broken one before the old daemon is gone
    _stop(context)
    _show(context, as_json=as_json, start=True)


@command.command(epilog="Example: jupyman daemon logs -n 20")
@lines_option
@click.pass_obj
def logs(context: Context, lines: int) -> None:
    """Print the end of the daemon's log."""
    try:
        with context.paths.log_file.open(encoding="utf-8", errors="replace") as file:
            for line in deque(file, lines):
                context.out(line.rstrip("\n"))
    except OSError as error:
        raise errors.UsageFault(f"there is no log yet: {context.paths.log_file}", "jupyman daemon start") from error


@command.command(epilog="Example: jupyman daemon run")
@click.pass_obj
def run(context: Context) -> int:
    """Run the daemon in the foreground, logging to stderr as well."""
    # Only this command is the daemon, so only this command imports it.
    from jupyman.daemon.main import run as serve

    return serve(context.paths, foreground="JUPYMAN_DAEMON" not in context.environ)


def _show(context: Context, *, as_json: bool, start: bool) -> None:
    result = context.call(api.DaemonStatus(), start=start, any_version=not start, configured=start)
    result = msgspec.structs.replace(result, config=str(context.paths.config_file))
    if as_json:
        context.dump(result)
    else:
        context.out(
            f"daemon {result.version} is running: pid {result.pid}, up {result.uptime:.0f} s, "
            f"{result.threads} threads, {size(result.memory)}; log {result.log}, config {result.config}"
        )


def _stop(context: Context) -> bool:
    """Ask the daemon to stop; end one that does not answer by signals."""
    from jupyman.local import daemon_file as address

    found = address.read(context.paths.daemon_file)
    process = _process(found.pid, found.create_time) if found is not None else None
    try:
        context.call(api.DaemonStop(), start=False, any_version=True, configured=False)
    except errors.DaemonUnavailable:
        if process is None:
            return False
        # It hangs. Signals are safe: this process has the start time that daemon.json names.
        process.terminate()
    if process is not None:
        _wait(process)
    return True


def _process(pid: int, create_time: float) -> psutil.Process | None:
    """Return the daemon's process; None if the pid was reused."""
    import psutil

    try:
        process = psutil.Process(pid)
        return process if process.create_time() == create_time else None
    except psutil.Error:
        return None


def _wait(process: psutil.Process) -> None:
    """Wait until the process, its lock and its ports are gone."""
    if not _ended(process):
        process.kill()
        _ended(process)


def _ended(process: psutil.Process) -> bool:
    """Wait for the end. A zombie has ended; in a container it may never be reaped."""
    import psutil

    end = time.monotonic() + STOP_TIMEOUT
    try:
        while process.status() != psutil.STATUS_ZOMBIE:
            if time.monotonic() > end:
                return False
            time.sleep(0.02)
    except psutil.NoSuchProcess:
        pass
    return True
