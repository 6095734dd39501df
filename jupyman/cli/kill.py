"""`jupyman kill`."""

from __future__ import annotations

import click

from jupyman import api, errors
from jupyman.api.results import Killed
from jupyman.cli.context import Context
from jupyman.cli.options import Host, Port, SessionName, json_option, yes_option


class KillTarget(SessionName):
    """A session, a port, or a host's port."""

    name = "session or port"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Check the host and the port; a session's name is never digits alone."""
        text = super().convert(value, param, ctx)
        host, colon, port = text.rpartition(":")
        if port.isdigit():
            Port().convert(port, param, ctx)
        if colon:
            Host().convert(host, param, ctx)
        return text


@click.command(
    epilog="""\b
Examples:
  jupyman kill server1
  jupyman kill 8888 --host server1
  jupyman kill -y server1:8888
  jupyman kill --orphans server1"""
)
@click.argument("targets", nargs=-1, type=KillTarget(), metavar="[SESSION | PORT | HOST:PORT]...")
@click.option("--host", type=Host(), help="the host of a PORT")
@click.option(
    "--orphans", type=Host(), metavar="HOST", help="end your kernels on HOST whose server has ended; frees their memory"
)
@yes_option
@click.option("--force", is_flag=True, help="send SIGKILL after the grace period")
@json_option
@click.pass_obj
def command(
    context: Context,
    /,
    *,
    targets: tuple[str, ...],
    host: str | None,
    orphans: str | None,
    yes: bool,
    force: bool,
    as_json: bool,
) -> int:
    """Stop a session's server with its kernels, or the process that listens on a port of the host.

    If kernels of a session are busy, it asks first; without a terminal -y is required. It stops only your own
    processes, and only after their identity was verified again right before the signal.
    """
    if orphans is not None and (targets or host is not None):
        raise errors.UsageFault(
            "--orphans HOST cannot be combined with other targets: it ends kernels, not sessions or ports",
            "see jupyman kill --help",
        )
    request = api.Kill(targets=list(targets), host=host, yes=yes, force=force, orphans=orphans)
    result = context.call(request)
    if as_json:
        context.dump(result)
    else:
        for one in result.killed:
            context.out(_line(one))
    return context.partly(result)


def _line(one: Killed) -> str:
    if isinstance(one.kernel, str):
        return f"ended kernel {one.kernel} (pid {one.pid}) on {one.host}"
    what = f"session {one.session}" if one.session else f"port {one.port} of {one.host}"
    return f"stopped {what}" + (f" (pid {one.pid})" if one.pid else ": its server had already ended")
