"""`ps`: the sessions and forwards of this computer; with `--all` also the servers that no session owns."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import msgspec

from jupyman import api, errors
from jupyman.api.results import Ps, Unreachable
from jupyman.core.runtime.progress import go_on
from jupyman.core.verbs import request_host
from jupyman.core.verbs.host_call import VerbCall
from jupyman.host.servers import listing
from jupyman.model import FoundServer
from jupyman.model.event import Snapshot

log = logging.getLogger(__name__)

HOSTS_AT_ONCE = 8


def ps(request: api.PsRequest, call: VerbCall, snapshot: Callable[[], Snapshot], settled_by: float) -> Ps:
    """List what there is, of all hosts or of those that are named.

    Args:
        request: the verb's arguments.
        call: the request under way.
        snapshot: returns what is shown, as the event stream sends it.
        settled_by: until then (monotonic) it waits for wanted sessions to be looked up after the daemon's start.

    Raises:
        UnknownHost: the only host named is neither configured nor in use.
        UsageFault: with `all`, no host is named and none is known.
        Interrupted: the client left.
    """
    # The answer comes from memory: only a daemon that was just started waits, and not for long if a host is away. A
    # session that is down waits for its port only.
    call.sessions.wait(call.sessions.settled, settled_by - time.monotonic())
    in_use = {session.spec.host for session in call.sessions.all()}
    missing: list[Unreachable] = []
    for host in [] if request.all else request.hosts:  # with --all each host is asked, and need not be known
        if host not in in_use and call.hosts.known(host) is None and not request_host.configured(host, call):
            unknown = errors.UnknownHost(f"no session is on a host called {host!r}")
            if len(request.hosts) == 1:
                raise unknown
            missing.append(Unreachable(host=host, error=unknown.info()))
    servers: list[FoundServer] = []
    if request.all:
        hosts = request.hosts or sorted(set(call.sessions.hosts()))
        servers, missing = _unowned(hosts or [request_host.only(None, call)], call)
    seen = snapshot()
    return Ps(
        sessions=[one for one in seen.sessions if not request.hosts or one.host in request.hosts],
        forwards=[one for one in seen.forwards if not request.hosts or one.host in request.hosts],
        servers=servers,
        unreachable=missing or msgspec.UNSET,
        error=missing[0].error if missing else msgspec.UNSET,
    )


def _unowned(hosts: list[str], call: VerbCall) -> tuple[list[FoundServer], list[Unreachable]]:
    """Find the servers that no session owns, on several hosts at once; a host that cannot be asked delays no other.

    Returns:
        The servers, and the hosts that could not be asked, both in the order of the hosts.

    Raises:
        Interrupted: the client left.
    """

    def ask(host: str) -> list[FoundServer] | Unreachable:
        try:
            rows = listing.rows(host, call.on(host).launcher.find())
        except errors.JupymanError as error:
            return Unreachable(host=host, error=error.info())
        except Exception:
            log.exception("%s could not be asked for its servers", host)
            return Unreachable(host=host, error=errors.InternalError("jupyman has a bug").info())
        owned = {one.running.server.pid for one in call.sessions.on(host) if one.running is not None}
        return [server for server in rows if server.pid not in owned]

    with ThreadPoolExecutor(HOSTS_AT_ONCE) as pool:
        answers = list(pool.map(ask, dict.fromkeys(hosts)))
    go_on(call.operation)
    servers = [server for answer in answers if not isinstance(answer, Unreachable) for server in answer]
    return servers, [answer for answer in answers if isinstance(answer, Unreachable)]
