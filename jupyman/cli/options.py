"""Options and argument types that several verbs share. Bad input is refused here, before anything is changed."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, TypeVar

import click
import msgspec

from jupyman import errors, rules
from jupyman.cli.context import Context

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

F = TypeVar("F", bound=Callable[..., object])


def offer(names: Iterable[str], incomplete: str) -> list[CompletionItem]:
    """Return the completions of a word.

    Args:
        names: hosts choose the names of environments, and bash puts a completion on the command line unquoted, so
            names with characters that are special to a shell are left out.
        incomplete: the beginning of the word.
    """
    from click.shell_completion import CompletionItem

    plain = (name for name in names if all(c.isalnum() or c in "@%+=:,./_-" for c in name))
    return [CompletionItem(name) for name in sorted(plain) if name.startswith(incomplete)]


class Port(click.ParamType[int]):
    """A TCP port."""

    name = "port"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Read a port."""
        text = str(value)
        if not text.isascii() or not text.isdigit() or int(text) not in rules.PORTS:
            self.fail(f"{text!r} is not a port between {rules.PORTS[0]} and {rules.PORTS[-1]}", param, ctx)
        return int(text)


class Seconds(click.FloatRange):
    """A time span. `click.FloatRange` accepts `nan`."""

    name = "seconds"

    def convert(self, value: float, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Read a number of seconds."""
        seconds = float(super().convert(value, param, ctx))
        if seconds != seconds:  # noqa: PLR0124 - only nan differs from itself
            self.fail(f"{value!r} is not a number of seconds", param, ctx)
        return seconds


class Name(click.ParamType[str]):
    """The name of a new session or host."""

    name = "name"

    def __init__(self, what: str = "session") -> None:
        self._what = what

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Refuse what cannot be a name."""
        del param, ctx
        return rules.check_name(str(value), self._what)


class Host(click.ParamType[str]):
    """An SSH alias or address."""

    name = "host"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Refuse what ssh could take for an option, and what no host can be called."""
        del param, ctx
        return rules.check_destination(str(value))

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Offer configured hosts and those that were used before; never start a daemon."""
        del param
        state = cached(ctx)
        hosts = {*state.environments, *(session.host for session in state.sessions.values()), *configured(ctx)}
        return offer(hosts, incomplete)


class TextLine(click.ParamType[str]):
    """One line of text that no program could take for an option."""

    name = "text"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Refuse several lines, control characters and a dash at the start."""
        text = str(value)
        if not text or text.startswith("-") or any(ord(c) < 32 or ord(c) == 127 for c in text):
            self.fail(f"{text[:80]!r} is not a {self.name}", param, ctx)
        return text


class KernelName(TextLine):
    """The name of a kernel spec."""

    name = "kernel name"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Refuse what Jupyter does not accept, and a dash at the start."""
        text = super().convert(value, param, ctx)
        if not rules.is_kernel_name(text):
            self.fail(f"{text[:80]!r} is not a kernel name: letters, digits, dot, underscore, dash", param, ctx)
        return text


class KernelOrHost(Host):
    """The name of a kernel spec, or a host; the daemon knows which of the two exists."""

    name = "kernel or host"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Refuse what can be neither."""
        text = str(value)
        kernel = rules.is_kernel_name(text) and not text.startswith("-")
        return text if kernel else super().convert(value, param, ctx)


class SessionName(TextLine):
    """The name of an existing session."""

    name = "session"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Offer the sessions of the state file."""
        del param
        return offer(cached(ctx).sessions, incomplete)


class EnvName(TextLine):
    """The name or prefix of an environment."""

    name = "environment"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Offer the environments that the last probes found."""
        del param
        return offer({name for names in cached(ctx).environments.values() for name in names}, incomplete)


class MirrorName(TextLine):
    """The name of a mirror, built in or from config.toml."""

    name = "mirror"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Offer the built-in mirrors and those of config.toml."""
        del param
        context = ctx.find_object(Context) or Context()
        try:
            config = context.config()
        except errors.ConfigFault:
            config = None
        return offer({"tuna", "ustc", "aliyun", "bfsu", *(config.mirrors if config is not None else ())}, incomplete)


class CachedSession(msgspec.Struct):
    """What completion reads of a session."""

    host: str


class Cached(msgspec.Struct):
    """What completion reads of the state file."""

    sessions: dict[str, CachedSession] = {}
    environments: dict[str, list[str]] = {}


def cached(ctx: click.Context) -> Cached:
    """Return what the state file holds; nothing if it cannot be read."""
    context = ctx.find_object(Context) or Context()
    try:
        return msgspec.json.decode(context.paths.state_file.read_bytes(), type=Cached)
    except (OSError, ValueError):  # no JSON, another shape, or no text at all
        return Cached()


def configured(ctx: click.Context) -> list[str]:
    """Return the hosts of config.toml; none if it cannot be read."""
    context = ctx.find_object(Context) or Context()
    try:
        config = context.config()
    except errors.ConfigFault:
        return []
    return list(config.hosts) if config is not None else []


def json_option(function: F) -> F:
    """Add ``--json``."""
    return click.option("--json", "as_json", is_flag=True, help="print the result as JSON")(function)


def host_option(function: F) -> F:
    """Add ``--host``."""
    return click.option("--host", type=Host(), help="the host; default: the only known one")(function)


def yes_option(function: F) -> F:
    """Add ``--yes``."""
    return click.option("-y", "--yes", is_flag=True, help="do not ask")(function)


def lines_option(function: F) -> F:
    """Add ``--lines``."""
    kind = click.IntRange(0, 100_000)
    return click.option("-n", "--lines", type=kind, default=100, show_default=True, help="maximum number of lines")(
        function
    )


def chosen_host(option: str | None, positional: str | None) -> str | None:
    """Return the host, given as an option or after the other arguments.

    Raises:
        UsageFault: both are given, and they differ.
    """
    if option is not None and positional is not None and option != positional:
        raise errors.UsageFault(f"two hosts: {option} and {positional}", "name one")
    return option or positional
