"""Options and argument types that several verbs share; bad input is refused here, before anything is touched."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import click
import msgspec

from jupyman import errors
from jupyman.cli.context import Context

F = TypeVar("F", bound=Callable[..., Any])


def offer(names: Iterable[str], incomplete: str) -> list[Any]:
    """Return what a shell may complete a word to.

    Args:
        names: bash puts them on the command line as they are, and environments are named by hosts: what a shell would
            not read as a plain word is left out.
        incomplete: the word's beginning.
    """
    from click.shell_completion import CompletionItem

    plain = (name for name in names if all(c.isalnum() or c in "@%+=:,./_-" for c in name))
    return [CompletionItem(name) for name in sorted(plain) if name.startswith(incomplete)]


class Port(click.ParamType[int]):
    """A TCP port."""

    name = "port"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Read 1..65535."""
        text = str(value)
        if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= 65535:
            self.fail(f"{text!r} is not a port between 1 and 65535", param, ctx)
        return int(text)


class Seconds(click.FloatRange):
    """A time span; `nan` lies in every range."""

    name = "seconds"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Read it."""
        seconds = float(super().convert(value, param, ctx))
        if seconds != seconds:  # noqa: PLR0124 - only nan differs from itself
            self.fail(f"{value!r} is not a number of seconds", param, ctx)
        return seconds


class Name(click.ParamType[str]):
    """The name of a session or host."""

    name = "name"

    def __init__(self, what: str = "session") -> None:
        self._what = what

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Check it."""
        del param, ctx
        from jupyman.config import check_name

        return check_name(str(value), self._what)


class Host(click.ParamType[str]):
    """An SSH alias or address."""

    name = "host"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Refuse what ssh could take for an option, and what no host can be."""
        del param, ctx
        from jupyman.config import check_destination

        return check_destination(str(value))

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[Any]:
        """Offer hosts that were used before; never starts a daemon."""
        del param
        state = cached(ctx)
        hosts = {*state.environments, *(session.host for session in state.sessions.values()), *configured(ctx)}
        return offer(hosts, incomplete)


class TextLine(click.ParamType[str]):
    """One line of text that no program could take for an option."""

    name = "text"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Check it."""
        text = str(value)
        if not text or text.startswith("-") or any(ord(c) < 32 or ord(c) == 127 for c in text):
            self.fail(f"{text[:80]!r} is not a {self.name}", param, ctx)
        return text


def is_kernel_name(text: str) -> bool:
    """Tell whether a kernel spec may be called so: jupyter_client's rule (kernelspec.py, _kernel_name_pat)."""
    return re.fullmatch(r"[A-Za-z0-9_.-]+", text) is not None and text.strip(".") != ""


class KernelName(TextLine):
    """The name of a kernel spec, with no dash in front."""

    name = "kernel name"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Check it."""
        text = super().convert(value, param, ctx)
        if not is_kernel_name(text):
            self.fail(f"{text[:80]!r} is not a kernel name: letters, digits, dot, underscore, dash", param, ctx)
        return text


class KernelOrHost(Host):
    """The name of a kernel spec, or a host: which of the two is known later."""

    name = "kernel or host"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Refuse what can be neither."""
        text = str(value)
        return text if is_kernel_name(text) and not text.startswith("-") else super().convert(value, param, ctx)


class SessionName(TextLine):
    """The name of an existing session."""

    name = "session"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[Any]:
        """Offer the sessions of the state file."""
        del param
        return offer(cached(ctx).sessions, incomplete)


class EnvName(TextLine):
    """The name or prefix of an environment."""

    name = "environment"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[Any]:
        """Offer the environments that were seen last."""
        del param
        return offer({name for names in cached(ctx).environments.values() for name in names}, incomplete)


class MirrorName(TextLine):
    """The name of a mirror, built in or of config.toml."""

    name = "mirror"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[Any]:
        """Offer the built-in ones and those of config.toml."""
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
    """Return what the state file remembers; nothing where it cannot be read."""
    context = ctx.find_object(Context) or Context()
    try:
        return msgspec.json.decode(context.paths.state_file.read_bytes(), type=Cached)
    except (OSError, ValueError):  # no JSON, another shape, or no text at all
        return Cached()


def configured(ctx: click.Context) -> list[str]:
    """Return the hosts of config.toml; none where it cannot be read."""
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
    return click.option("--host", type=Host(), help="which host; default: the only one that is known")(function)


def chosen_host(option: str | None, positional: str | None) -> str | None:
    """Return the host that was said as an option or behind the other arguments.

    Raises:
        UsageFault: both, and they differ.
    """
    if option is not None and positional is not None and option != positional:
        raise errors.UsageFault(f"two hosts: {option} and {positional}", "name one")
    return option or positional
