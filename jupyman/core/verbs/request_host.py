"""Which host a request means: the only place that decides it."""

from __future__ import annotations

import re

import msgspec

from jupyman import api, errors, rules
from jupyman.core.verbs import tunnel
from jupyman.core.verbs.host import aliases
from jupyman.core.verbs.host_call import VerbCall


def only(named: str | None, call: VerbCall) -> str:
    """Return the host that is named, else the default host, else the only one there is: see `Hosts.resolve`.

    Raises:
        UsageFault: no host is named, and there is not exactly one.
    """
    return call.hosts.resolve(named, call.sessions.busy(), call.sessions.hosts())


def configured(host: str, call: VerbCall) -> bool:
    """Whether a host is in config.toml or in the user's SSH config."""
    return host in call.hosts.config.hosts or host in aliases(call)


def of_request(request: api.AnyRequest, call: VerbCall) -> tuple[api.AnyRequest, str]:
    """Return the host on which a verb works, and the request.

    Args:
        request: one with a `host`.
        call: the request under way.

    Returns:
        The request, in which a word that turned out to be the host is put right, and the host.

    Raises:
        UsageFault: a forward cannot be read; no host is named, and there is not exactly one.
    """
    named: str | None = getattr(request, "host")  # noqa: B009 - not each request has one
    if isinstance(request, api.Tunnel):
        tunnel.check(request)
        if named is None and request.close:
            named = tunnel.owner(request, call.sessions)
    elif isinstance(request, api.KernelCheck) and named is None and _is_host(request.name, call):
        named = request.name
        request = msgspec.structs.replace(request, host=named)
    return request, only(named, call)


def _is_host(word: str | None, call: VerbCall) -> bool:
    """Whether the one word after `kernel check` is a host, as it is for `kernel ls`, and not a kernel."""
    return word is not None and (word in call.sessions.hosts() or configured(word, call))


def of_up(request: api.Up, call: VerbCall) -> tuple[str, str]:
    """Return the host and the session that an `up` means; HOST may be the name of a session.

    Raises:
        UsageFault: the host has several sessions, the session is on another host, or no host can be found.
    """
    stored = call.sessions.find(request.name or request.host or "")
    hosts = {session.spec.name: session.spec.host for session in call.sessions.all()}
    if stored is not None and request.host in {None, stored.spec.name, stored.spec.host}:
        host = stored.spec.host
    else:
        host = call.hosts.resolve(request.host, call.sessions.busy(), hosts.values())
    name = request.name
    if name is None and stored is not None:
        name = stored.spec.name
    if name is None:
        here = sorted(session for session, its_host in hosts.items() if its_host == host)
        if len(here) > 1:
            raise errors.UsageFault(
                f"{host} has several sessions: {', '.join(here)}", "name one: jupyman up HOST --name NAME"
            )
        name = here[0] if here else session_name(host)
    rules.check_name(name, "session")
    elsewhere = call.sessions.find(name)
    if elsewhere is not None and elsewhere.spec.host != host:
        raise errors.UsageFault(
            f"session {name} is on {elsewhere.spec.host}, not on {host}", "choose another name with --name"
        )
    return host, name


def session_name(host: str) -> str:
    """Make a session's name from a host: the alias, or the machine's name in ``user@host:port``.

    Raises:
        UsageFault: nothing is left of it.
    """
    bare = re.sub(r":[0-9]+$", "", host.rsplit("@", 1)[-1])
    name = re.sub(r"[^A-Za-z0-9._-]", "-", bare).lstrip(".-")[:63]
    if not name or name.isdigit():
        raise errors.UsageFault(f"{host!r} gives no name for the session", "choose one with --name")
    return name
