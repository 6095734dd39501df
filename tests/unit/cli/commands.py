"""All commands of the command line."""

from __future__ import annotations

import click

from jupyman.cli.main import cli


def commands(group: click.Group = cli, words: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """Return the words of each command below a group, and of the group itself."""
    found = [words]
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        found += commands(command, (*words, name)) if isinstance(command, click.Group) else [(*words, name)]
    return found
