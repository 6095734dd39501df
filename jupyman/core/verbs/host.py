"""The verbs of `jupyman host`: the list of hosts, and trust in a host's key."""

from __future__ import annotations

import re
from pathlib import Path

from jupyman import api, errors
from jupyman.api.results import HostTrusted, KnownHost, KnownHosts
from jupyman.core.verbs.host_call import HostCall, VerbCall
from jupyman.ssh.config import ssh_g
from jupyman.ssh.link import scan
from jupyman.ssh.login import hostkeys


def ls(request: api.HostLs, call: VerbCall) -> KnownHosts:
    """List the hosts of config.toml, those of the SSH config, and those in use.

    Raises:
        ConfigFault: one of the files cannot be read.
    """
    del request
    rows: dict[str, KnownHost] = {}
    for name, entry in call.hosts.config.hosts.items():
        rows[name] = KnownHost(name=name, ssh=entry.ssh or name, source="config", link=call.hosts.status(name))
    for name in aliases(call):
        rows.setdefault(name, KnownHost(name=name, ssh=name, source="ssh_config", link=call.hosts.status(name)))
    for name in call.sessions.hosts():
        rows.setdefault(name, KnownHost(name=name, ssh=name, source="session", link=call.hosts.status(name)))
    return KnownHosts(hosts=[rows[name] for name in sorted(rows)])


def trust(request: api.HostTrust, call: HostCall) -> HostTrusted:
    """Show a host's key, ask, and write it to known_hosts.

    Raises:
        HostKeyFault: the key has changed, cannot be written, or nobody can be asked about it.
        HostUnreachable: the host shows no key.
        Interrupted: the answer was no.
    """
    supervisor = call.hosts.supervisor(request.host, call.operation.client)
    configuration = ssh_g.read(supervisor.destination, ssh_config=supervisor.client.ssh_config)
    with call.step("key", f"asking {request.host} for its key") as progress:
        key = scan(configuration)
        verdict = hostkeys.judge(configuration, key)
        fingerprint = hostkeys.fingerprint(key)
        progress.text = f"{key.get_name()} key {fingerprint}"
    if isinstance(verdict, hostkeys.Known):
        return HostTrusted(host=request.host, fingerprint=fingerprint, written=None)
    hostkeys.refuse_changed(configuration, key, verdict)
    if not request.yes:
        question = f"{request.host} has the key {key.get_name()} {fingerprint}. Do you trust it?"
        unattended = errors.HostKeyFault(
            f"the key of {request.host} is unknown: {fingerprint}",
            "compare it with the fingerprint that the host's admin gives you, then pass -y",
        )
        if not call.confirm(question, unattended=unattended):
            raise errors.Interrupted("the key was not written")
    written = hostkeys.append(configuration, key)
    if written is None:
        raise errors.HostKeyFault(
            f"the SSH configuration of {request.host} names no known_hosts file to write to",
            "set UserKnownHostsFile to a file, or remove it",
        )
    return HostTrusted(host=request.host, fingerprint=fingerprint, written=str(written))


def aliases(call: VerbCall) -> list[str]:
    """Return the names on `Host` lines without patterns; included files are not read (ssh -G cannot list).

    Raises:
        ConfigFault: the SSH config that was named cannot be read.
    """
    named = call.operation.client.ssh_config or call.hosts.ssh_config
    path = Path(named or "~/.ssh/config").expanduser()
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        if named in {None, "none"}:  # none: as in `ssh -F none`
            return []
        where = "JUPYMAN_SSH_CONFIG" if call.operation.client.ssh_config else "ssh_config in config.toml"
        raise errors.ConfigFault(f"{path} cannot be read: {error.strerror}", f"correct {where}") from error
    found: list[str] = []
    for line in text.splitlines():
        match = re.match(r"^\s*host[\s=]+(.+)$", line, re.IGNORECASE)
        if match is not None:
            found += [name.strip('"') for name in match[1].split() if not re.search(r"[*?!]", name)]
    return found
