"""The command `jupyman`: finds the verb, imports only its module, turns every error into two lines."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence

import click

from jupyman import __version__, errors
from jupyman.cli.context import Context

# verb -> (module, one line for --help); the module's `command` is imported only when it is called.
VERBS = {
    "up": ("up", "make the session exist: connect, launch or adopt, forward, open the browser"),
    "down": ("down", "close a session's forwards; its server runs on"),
    "kill": ("kill", "stop a session's server, or what listens on a port"),
    "ps": ("ps", "list sessions and forwards"),
    "tunnel": ("tunnel", "forward further ports"),
    "open": ("open_", "open a session in the browser"),
    "url": ("url", "print a session's address"),
    "logs": ("logs", "print a server's log"),
    "check": ("check", "look at a host: GPUs, CUDA, environments, ports, problems"),
    "kernel": ("kernel", "Jupyter kernels of a host's environments"),
    "env": ("env", "the environments of a host"),
    "host": ("host", "the hosts that are known"),
    "daemon": ("daemon", "the background process"),
    "demo": ("demo", "the whole flow against a throw-away SSH host on this computer"),
    "completion": ("completion", "print the completion script of a shell"),
}
# Promised, but still to come.
LATER = {"dashboard"}
LATER_OPTIONS = {
    "jupyman up": {"--slurm", "--no-slurm", "--slurm-arg"},
    "jupyman ps": {"-w", "--watch"},
}


class Verbs(click.Group):
    """A group whose commands are imported when they are called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the verbs in the order of the day, not of the alphabet."""
        del ctx
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a verb."""
        del ctx
        if cmd_name in LATER:
            raise errors.UsageFault(f"jupyman {cmd_name} is not there yet", "not in this version")
        if cmd_name not in VERBS:
            return None
        module = importlib.import_module(f"jupyman.cli.{VERBS[cmd_name][0]}")
        command: click.Command = module.command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the verbs without importing them."""
        del ctx
        with formatter.section("Commands"):
            formatter.write_dl([(verb, text) for verb, (_, text) in VERBS.items()])


@click.group(
    cls=Verbs,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Example: jupyman up server1",
    no_args_is_help=True,
)
@click.version_option(__version__, prog_name="jupyman")
def cli() -> None:
    """Jupyter on a remote GPU server, by one command that outlives the link."""


def main(arguments: Sequence[str] | None = None, context: Context | None = None) -> int:
    """Run the command line.

    Args:
        arguments: without the program's name; None: those of this process.
        context: the outside world; None: the real one.

    Returns:
        The exit status.
    """
    context = context or Context()
    words = list(sys.argv[1:] if arguments is None else arguments)
    context.json = "--json" in words
    try:
        status = cli.main(args=words, prog_name="jupyman", standalone_mode=False, obj=context)
    except errors.JupymanError as error:
        # Completion tries the words that stand there already: no place to complain.
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
        return errors.UsageFault(f"{path} has no {error.option_name} yet", "not in this version")
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
        return errors.InternalError(text, f"no traceback could be kept: {trouble}")
    return errors.InternalError(text, f"the traceback is in {paths.log_file}")
