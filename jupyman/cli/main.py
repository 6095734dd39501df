"""The command `jupyman`: finds the verb, imports only its module, and prints every error in two lines."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

import click

from jupyman import __version__, errors
from jupyman.cli.context import Context
from jupyman.cli.groups import LazyGroup

# verb -> (module, one line for --help)
VERBS = {
    "up": ("jupyman.cli.up", "start a session or find it: connect, launch or adopt, forward, open the browser"),
    "down": ("jupyman.cli.down", "close a session's forwards; its server keeps running"),
    "kill": ("jupyman.cli.kill", "stop a session's server, or the process that listens on a port"),
    "ps": ("jupyman.cli.ps", "list sessions and forwards"),
    "tunnel": ("jupyman.cli.tunnel", "forward more ports"),
    "open": ("jupyman.cli.open_", "open a session in the browser"),
    "url": ("jupyman.cli.url", "print a session's URL"),
    "logs": ("jupyman.cli.logs", "print a server's log"),
    "check": ("jupyman.cli.check", "inspect a host: GPUs, CUDA, environments, ports, problems"),
    "kernel": ("jupyman.cli.kernel", "manage Jupyter kernels of a host's environments"),
    "env": ("jupyman.cli.env", "manage environments of a host"),
    "host": ("jupyman.cli.host", "manage known hosts"),
    "daemon": ("jupyman.cli.daemon", "manage the background process"),
    "demo": ("jupyman.cli.demo", "run everything against a temporary SSH host on this computer"),
    "completion": ("jupyman.cli.completion", "print a shell's completion script"),
}
# Announced, but not implemented.
LATER_OPTIONS = {
    "jupyman up": {"--slurm", "--no-slurm", "--slurm-arg"},
    "jupyman ps": {"-w", "--watch"},
}

cli = LazyGroup(
    "jupyman",
    VERBS,
    later=frozenset({"dashboard"}),
    help="Jupyter on a remote GPU server with one command that survives lost connections.",
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Example: jupyman up server1",
    no_args_is_help=True,
)
click.version_option(__version__, prog_name="jupyman")(cli)


def main(arguments: Sequence[str] | None = None, context: Context | None = None) -> int:
    """Run the command line.

    Args:
        arguments: without the program's name; None: those of this process.
        context: the environment; None: that of this process.

    Returns:
        The exit status.
    """
    context = context or Context()
    words = list(sys.argv[1:] if arguments is None else arguments)
    context.json = "--json" in words
    try:
        status = cli.main(args=words, prog_name="jupyman", standalone_mode=False, obj=context)
    except errors.JupymanError as error:
        # Completion parses the incomplete command line: errors in it must not be printed.
        return 0 if "_JUPYMAN_COMPLETE" in context.environ else context.fail(error)
    except click.exceptions.NoArgsIsHelpError as error:
        context.out(error.format_message())
        return 2
    except click.UsageError as error:
        return context.fail(_usage(error))
    except click.ClickException as error:
        return context.fail(errors.UsageFault(error.format_message()))
    except (click.Abort, KeyboardInterrupt):
        return context.fail(errors.Interrupted("interrupted"))
    except Exception as error:
        return context.fail(_bug(error, context))
    return status if isinstance(status, int) else 0


def _usage(error: click.UsageError) -> errors.UsageFault:
    path = error.ctx.command_path if error.ctx is not None else "jupyman"
    if isinstance(error, click.NoSuchOption) and error.option_name in LATER_OPTIONS.get(path, ()):
        return errors.UsageFault(f"{path} has no option {error.option_name} yet", "not in this version")
    return errors.UsageFault(error.format_message(), f"see {path} --help")


def _bug(error: Exception, context: Context) -> errors.InternalError:
    import traceback

    text = f"jupyman has a bug: {type(error).__name__}: {error}"
    paths = context.paths
    try:
        paths.make()
        handle = os.open(paths.log_file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        with os.fdopen(handle, "a", encoding="utf-8", errors="replace") as log:
            log.write("".join(traceback.format_exception(error)))
    except OSError as trouble:
        return errors.InternalError(text, f"the traceback could not be saved: {trouble}")
    return errors.InternalError(text, f"the traceback is in {paths.log_file}")
