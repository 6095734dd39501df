"""Options and argument types that several verbs share; bad input is refused here, before anything is touched."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from jupyman import errors

F = TypeVar("F", bound=Callable[..., Any])


class Port(click.ParamType[int]):
    """A TCP port."""

    name = "port"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Read 1..65535."""
        text = str(value)
        if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= 65535:
            self.fail(f"{text!r} is not a port between 1 and 65535", param, ctx)
        return int(text)


class Name(click.ParamType[str]):
    """The name of a session or host."""

    name = "name"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Check it."""
        del param, ctx
        from jupyman.config import check_name

        return check_name(str(value))


class Host(click.ParamType[str]):
    """An SSH alias or address."""

    name = "host"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Refuse what ssh could take for an option, and what no host can be."""
        del param, ctx
        text = str(value)
        if not text or len(text) > 255 or text.startswith("-") or any(ord(c) < 33 or ord(c) == 127 for c in text):
            raise errors.UsageFault(f"{text[:80]!r} is not a host", "write an alias of ~/.ssh/config or user@host[:port]")
        return text

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[Any]:
        """Offer hosts that were used before; never starts a daemon."""
        del param
        from click.shell_completion import CompletionItem

        state = cached(ctx)
        names = {*state.get("environments", {}), *(one["host"] for one in state.get("sessions", {}).values())}
        return [CompletionItem(name) for name in sorted(names) if name.startswith(incomplete)]


class SessionName(click.ParamType[str]):
    """The name of an existing session."""

    name = "session"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[Any]:
        """Offer the sessions of the state file."""
        del param
        from click.shell_completion import CompletionItem

        return [CompletionItem(name) for name in sorted(cached(ctx).get("sessions", {})) if name.startswith(incomplete)]


class EnvName(click.ParamType[str]):
    """The name or prefix of an environment."""

    name = "env"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[Any]:
        """Offer the environments that were seen last."""
        del param
        from click.shell_completion import CompletionItem

        names = {name for names in cached(ctx).get("environments", {}).values() for name in names}
        return [CompletionItem(name) for name in sorted(names) if name.startswith(incomplete)]


def cached(ctx: click.Context) -> dict[str, Any]:
    """Return the state file as plain JSON; empty where it cannot be read."""
    import json

    from jupyman.cli.context import Context

    context = ctx.find_object(Context) or Context()
    try:
        content = json.loads(context.paths.state_file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def json_option(function: F) -> F:
    """Add ``--json``."""
    return click.option("--json", "as_json", is_flag=True, help="print the result as JSON")(function)


def host_option(function: F) -> F:
    """Add ``--host``."""
    return click.option("--host", type=Host(), help="which host; default: the only one that is known")(function)


def chosen_host(option: str | None, positional: str | None) -> str | None:
    """Return the host that was said as an option or behind the other arguments.

    Raises:
        UsageFault: both, and they differ.
    """
    if option is not None and positional is not None and option != positional:
        raise errors.UsageFault(f"two hosts: {option} and {positional}", "name one")
    return option or positional
