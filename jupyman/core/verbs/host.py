"""The verbs that look at a host and its environments, and what verbs of a host begin with."""

from __future__ import annotations

import logging
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from jupyman import api, errors
from jupyman.api import Operation, Output, Prompt
from jupyman.api.results import HostTrusted, KnownHost, KnownHosts, SessionName, Unreachable
from jupyman.core.links.hosts import Hosts
from jupyman.core.runtime.progress import go_on, step
from jupyman.core.sessions.registry import SessionRegistry
from jupyman.host.servers import nohup
from jupyman.model import FoundServer, HostReport, LinkStatus
from jupyman.ssh.config import ssh_g as ssh_config
from jupyman.ssh.link import Link, scan
from jupyman.ssh.login import hostkeys

log = logging.getLogger(__name__)


def link_status(hosts: Hosts, host: str) -> LinkStatus:
    """Return the state of a host's link; idle where none was ever made."""
    supervisor = hosts.known(host)
    return supervisor.status if supervisor is not None else LinkStatus()


def connect(host: str, hosts: Hosts, operation: Operation) -> Link:
    """Return the host's link, made where there is none."""
    with step(operation, "connect", f"connecting to {host}") as progress:
        link = hosts.supervisor(host, operation.client).acquire(operation)
        progress.text = f"connected to {host}"
    return link


def logs(request: api.Logs, hosts: Hosts, sessions: SessionRegistry, operation: Operation) -> SessionName:
    """Send the server's log as `Output` events."""
    live = sessions.only(request.session)
    link = hosts.supervisor(live.spec.host, operation.client).acquire(operation)

    def send(line: str) -> None:
        operation.emit(Output(line=line))

    directory = live.running.directory if live.running is not None else None
    nohup.logs(
        link,
        live.spec.name,
        directory,
        lines=request.lines,
        follow=request.follow,
        on_line=send,
        cancelled=operation.cancelled,
    )
    return SessionName(name=live.spec.name)


def servers(
    hosts_wanted: list[str], hosts: Hosts, sessions: SessionRegistry, operation: Operation
) -> tuple[list[FoundServer], list[Unreachable]]:
    """Find the servers that no session owns, on several hosts at once; one that cannot be asked holds up no other.

    Returns:
        They, and the hosts that could not be asked, both in the order of the hosts.

    Raises:
        Interrupted: the operation was cancelled.
    """

    def one(host: str) -> list[FoundServer] | Unreachable:
        try:
            link = hosts.supervisor(host, operation.client).acquire(operation)
            return _unowned(host, nohup.find(link), sessions)
        except errors.JupymanError as error:
            return Unreachable(host=host, error=error.info())
        except Exception:
            log.exception("%s could not be asked for its servers", host)
            return Unreachable(host=host, error=errors.InternalError("jupyman has a bug").info())

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(one, dict.fromkeys(hosts_wanted)))
    go_on(operation)
    reached = [server for servers in found if not isinstance(servers, Unreachable) for server in servers]
    return reached, [one for one in found if isinstance(one, Unreachable)]


def host_ls(hosts: Hosts, sessions: SessionRegistry, operation: Operation) -> KnownHosts:
    """List the hosts of config.toml, of the SSH config, and those in use."""
    rows: dict[str, KnownHost] = {}
    for name, entry in hosts.config.hosts.items():
        rows[name] = KnownHost(name=name, ssh=entry.ssh or name, source="config", link=link_status(hosts, name))
    for name in _aliases(hosts, operation):
        rows.setdefault(name, KnownHost(name=name, ssh=name, source="ssh_config", link=link_status(hosts, name)))
    for name in sessions.hosts():
        rows.setdefault(name, KnownHost(name=name, ssh=name, source="session", link=link_status(hosts, name)))
    return KnownHosts(hosts=[rows[name] for name in sorted(rows)])


def host_trust(request: api.HostTrust, hosts: Hosts, operation: Operation) -> HostTrusted:
    """Show a host's key, ask, and write it to known_hosts."""
    supervisor = hosts.supervisor(request.host, operation.client)
    configuration = ssh_config.read(supervisor.destination, ssh_config=supervisor.client.ssh_config)
    with step(operation, "key", f"asking {request.host} for its key") as progress:
        key = scan(configuration)
        verdict = hostkeys.judge(configuration, key)
        progress.text = f"{key.get_name()} key {hostkeys.fingerprint(key)}"
    if isinstance(verdict, hostkeys.Known):
        return HostTrusted(host=request.host, fingerprint=hostkeys.fingerprint(key), written=None)
    hostkeys.refuse_changed(configuration, key, verdict)
    if not request.yes:
        if not operation.client.interactive:
            raise errors.HostKeyFault(
                f"the key of {request.host} is unknown: {hostkeys.fingerprint(key)}",
                "compare it with what the admin tells you, then say -y",
            )
        text = f"{request.host} has the key {key.get_name()} {hostkeys.fingerprint(key)}. Do you trust it?"
        if operation.ask(Prompt(id="", kind="confirm", text=text, default="n")).lower() not in {"y", "yes"}:
            raise errors.Interrupted("the key was not written")
    written = hostkeys.append(configuration, key)
    if written is None:
        raise errors.HostKeyFault(
            f"the SSH configuration of {request.host} names no known_hosts file to write to",
            "set UserKnownHostsFile to a file, or leave it out",
        )
    return HostTrusted(host=request.host, fingerprint=hostkeys.fingerprint(key), written=str(written))


def in_ssh_config(host: str, hosts: Hosts, operation: Operation) -> bool:
    """Tell whether an alias stands in the user's SSH config."""
    return host in _aliases(hosts, operation)


def _aliases(hosts: Hosts, operation: Operation) -> list[str]:
    """Names on `Host` lines without patterns; included files are not read (ssh -G cannot list)."""
    named = operation.client.ssh_config or hosts.ssh_config
    path = Path(named or "~/.ssh/config").expanduser()
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        if named in {None, "none"}:  # none: as in `ssh -F none`
            return []
        where = "JUPYMAN_SSH_CONFIG" if operation.client.ssh_config else "ssh_config in config.toml"
        raise errors.ConfigFault(f"{path} cannot be read: {error.strerror}", f"mend {where}") from error
    found: list[str] = []
    for line in text.splitlines():
        match = re.match(r"^\s*host[\s=]+(.+)$", line, re.IGNORECASE)
        if match is not None:
            found += [name.strip('"') for name in match[1].split() if not re.search(r"[*?!]", name)]
    return found


def _unowned(host: str, found: nohup.Found, sessions: SessionRegistry) -> list[FoundServer]:
    """Turn what was found into rows; those that a session of this computer owns are left out."""
    owned = {live.running.server.pid for live in sessions.on(host) if live.running is not None}
    return [server for server in nohup.rows(host, found) if server.pid not in owned]


def remember(host: str, report: HostReport, sessions: SessionRegistry) -> None:
    """Keep environment names for shell completion."""
    names = sorted({environment.name for environment in report.environments if environment.name})
    with sessions.lock:
        if sessions.store.state.environments.get(host) != names:
            sessions.store.state.environments[host] = names
            sessions.save()
