"""The SSH configuration without an ssh binary: paramiko's reader; what it does not support is an error."""

from __future__ import annotations

import getpass
import re
from pathlib import Path

import paramiko

from jupyman import errors
from jupyman.ssh.config.destination import Destination
from jupyman.ssh.config.ssh_g import HostConfig, home

# paramiko reads these Match keywords (paramiko.config.SSHConfig); it ignores Include silently, which was measured.
_MATCH = {"all", "canonical", "final", "exec", "host", "originalhost", "user", "localuser"}


def read(destination: Destination, ssh_config: str | None) -> HostConfig:
    """Read the configuration with paramiko.

    Raises:
        ConfigFault: it uses what paramiko cannot read.
    """
    ssh = Path(home()) / ".ssh"
    path = Path(ssh_config).expanduser() if ssh_config else ssh / "config"
    try:
        text = "" if ssh_config == "none" else path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        text = ""
    for number, line in enumerate(text.splitlines(), 1):
        match = re.match(r"^\s*(include|match)[\s=]+(.*)$", line, re.IGNORECASE)
        if match is None:
            continue
        words = {word.lower().lstrip("!") for word in keywords(match[2])}
        if match[1].lower() == "include" or not words <= _MATCH:
            raise errors.ConfigFault(
                f"{path} line {number} cannot be read without an ssh program: {line.strip()}",
                "install OpenSSH's client, or write the host into config.toml",
            )
    try:
        found = paramiko.SSHConfig.from_text(text).lookup(destination.name)
    except paramiko.ConfigParseError as error:
        raise errors.ConfigFault(f"{path} cannot be read: {error}") from error
    keys = found.get("identityfile") or [str(ssh / f"id_{kind}") for kind in ("rsa", "ecdsa", "ed25519")]
    agent = found.get("identityagent")
    jump = found.get("proxyjump", "none")
    hostname = found.get("hostname", destination.name)
    return HostConfig(
        alias=destination.name,
        hostname=hostname,
        port=destination.port or int(found.get("port", "22")),
        user=destination.user or found.get("user") or getpass.getuser(),
        identity_files=tuple(str(Path(key).expanduser()) for key in keys),
        certificate_files=tuple(str(Path(one).expanduser()) for one in found.get("certificatefile", [])),
        identity_agent="" if agent == "none" else agent if agent and "SSH_AUTH_SOCK" not in agent else None,
        identities_only=found.get("identitiesonly", "no") == "yes",
        proxy_jump=() if jump == "none" else tuple(hop.strip() for hop in jump.split(",")),
        proxy_command=found.get("proxycommand"),
        user_known_hosts=tuple(
            str(Path(one).expanduser()) for one in found.get("userknownhostsfile", f"{ssh}/known_hosts").split()
        ),
        global_known_hosts=("/etc/ssh/ssh_known_hosts", "/etc/ssh/ssh_known_hosts2"),
        host_key_alias=found.get("hostkeyalias"),
        strict={"off": "no"}.get(strict := found.get("stricthostkeychecking", "ask").lower(), strict),
        address_family=found.get("addressfamily", "any"),
        configured=hostname != destination.name,
        ssh_config=ssh_config,
    )


def keywords(conditions: str) -> list[str]:
    """Return the keywords of a Match line; some have an argument, perhaps in quotes."""
    words = re.findall(r'"[^"]*"|\S+', conditions)
    found = []
    while words:
        keyword = words.pop(0)
        found.append(keyword)
        if keyword.lower().lstrip("!") not in {"all", "canonical", "final"} and words:
            words.pop(0)
    return found
