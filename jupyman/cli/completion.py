"""`jupyman completion`."""

from __future__ import annotations

import click

from jupyman.cli.context import Context


@click.command(
    epilog="""\b
Examples:
  eval "$(jupyman completion bash)"
  jupyman completion fish > ~/.config/fish/completions/jupyman.fish"""
)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def command(ctx: click.Context, shell: str) -> None:
    """Print a shell's completion script for its startup file."""
    from click.shell_completion import get_completion_class

    kind = get_completion_class(shell)
    assert kind is not None  # noqa: S101 - the three that click knows
    root = ctx.find_root()
    context = ctx.find_object(Context)
    assert context is not None  # noqa: S101 - set by main
    context.out(kind(root.command, {}, "jupyman", "_JUPYMAN_COMPLETE").source())
