"""A group of verbs that imports the module of a verb only when that verb is called."""

from __future__ import annotations

import importlib
from collections.abc import Mapping

import click

from jupyman import errors


class LazyGroup(click.Group):
    """A group whose ``--help`` needs no import of its verbs.

    Args:
        name: of the group.
        verbs: verb -> (module, one line for ``--help``); the module's `command` is the verb.
        later: verbs that are announced but not implemented.
        **settings: for `click.Group`.
    """

    def __init__(
        self,
        name: str,
        verbs: Mapping[str, tuple[str, str]],
        *,
        later: frozenset[str] = frozenset(),
        **settings: object,
    ) -> None:
        super().__init__(name, **settings)  # type: ignore[arg-type]  # click checks its own settings
        self._verbs = verbs
        self._later = later

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the verbs in the order given, not the alphabet's."""
        del ctx
        return list(self._verbs)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a verb."""
        if cmd_name in self._later:
            raise errors.UsageFault(f"{ctx.command_path} {cmd_name} is not available yet", "not in this version")
        if cmd_name not in self._verbs:
            return None
        command: click.Command = importlib.import_module(self._verbs[cmd_name][0]).command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the verbs without importing them."""
        del ctx
        with formatter.section("Commands"):
            formatter.write_dl([(verb, text) for verb, (_, text) in self._verbs.items()])
