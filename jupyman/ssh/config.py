"""The user's SSH configuration for one host: `ssh -G` reads it wherever an ssh binary exists."""

from __future__ import annotations

import getpass
import hashlib
import os
import re
import shlex
import shutil
import socket
import subprocess
from dataclasses import dataclass
from pathlib import Path

from jupyman import errors

READ_TIMEOUT = 10.0  # seconds; Match exec may run a program of the user's
_DESTINATION = re.compile(r"^(?:(?P<user>[^@\s]+)@)?(?:\[(?P<six>[0-9A-Fa-f:.%\w]+)\]|(?P<name>[^:@\s\[\]]+))(?::(?P<port>[0-9]+))?$")


@dataclass(frozen=True)
class Destination:
    """What `ssh` would be given: an alias or address, with a user and a port where they were said."""

    name: str
    user: str | None = None
    port: int | None = None

    @classmethod
    def parse(cls, text: str) -> Destination:
        """Read ``ALIAS`` or ``[USER@]HOST[:PORT]``; an IPv6 address stands in brackets where a port follows.

        Raises:
            UsageFault: it is none of these, or could be taken for an option.
        """
        if not text or len(text) > 255 or text.startswith("-") or any(ord(c) < 33 or ord(c) == 127 for c in text):
            raise errors.UsageFault(f"{text[:80]!r} is not a host", "write an alias of ~/.ssh/config or user@host[:port]")
        if text.count(":") > 1 and "[" not in text:  # a bare IPv6 address
            user, _, name = text.rpartition("@")
            return cls(name=name, user=user or None)
        match = _DESTINATION.match(text)
        if match is None:
            raise errors.UsageFault(f"{text!r} is not a host", "write an alias of ~/.ssh/config or user@host[:port]")
        port = int(match["port"]) if match["port"] else None
        if port is not None and not 1 <= port <= 65535:
            raise errors.UsageFault(f"port {port} is not between 1 and 65535", "choose another port")
        name = match["six"] or match["name"]
        if name.startswith("-") or (match["user"] or "").startswith("-"):
            raise errors.UsageFault(f"{text!r} is not a host", "write an alias of ~/.ssh/config or user@host[:port]")
        return cls(name=name, user=match["user"], port=port)


@dataclass(frozen=True)
class HostConfig:
    """What the configuration says of a host, tokens expanded.

    Attributes:
        alias: as the user names it.
        hostname, port, user: where to connect.
        identity_files, certificate_files: in OpenSSH's order; not all exist.
        identity_agent: path of the agent's socket; "" for none at all; None for the caller's SSH_AUTH_SOCK.
        identities_only: offer only agent keys that are among identity_files.
        proxy_jump: hops, nearest first.
        proxy_command: text for the user's shell, expanded.
        user_known_hosts, global_known_hosts: files, in order.
        host_key_alias: the name to look for in them.
        strict: StrictHostKeyChecking: "yes", "ask", "accept-new" or "no".
        address_family: "any", "inet" or "inet6".
        connect_timeout: seconds, None where not set.
        configured: the alias has a HostName of its own.
        hash_known_hosts: new lines are written hashed.
    """

    alias: str
    hostname: str
    port: int
    user: str
    identity_files: tuple[str, ...] = ()
    certificate_files: tuple[str, ...] = ()
    identity_agent: str | None = None
    identities_only: bool = False
    proxy_jump: tuple[str, ...] = ()
    proxy_command: str | None = None
    user_known_hosts: tuple[str, ...] = ()
    global_known_hosts: tuple[str, ...] = ()
    host_key_alias: str | None = None
    strict: str = "ask"
    address_family: str = "any"
    connect_timeout: float | None = None
    configured: bool = False
    hash_known_hosts: bool = False
    ssh_config: str | None = None

    @property
    def known_name(self) -> str:
        """The name under which known_hosts files keep this host: ``[host]:port`` off port 22."""
        if self.host_key_alias:
            return self.host_key_alias
        return self.hostname if self.port == 22 else f"[{self.hostname}]:{self.port}"


def read(host: str, *, ssh_config: str | None = None) -> HostConfig:
    """Read what the user's configuration says of a host.

    Args:
        host: an alias, or ``[user@]host[:port]``.
        ssh_config: a file, as for ``ssh -F``; None: the user's and the system's own.

    Returns:
        The configuration.

    Raises:
        UsageFault: this cannot be a host.
        ConfigFault: the file is missing or ssh complains about it.
    """
    destination = Destination.parse(host)
    if ssh_config is not None and ssh_config != "none" and not Path(ssh_config).expanduser().is_file():
        raise errors.ConfigFault(f"the SSH configuration {ssh_config} does not exist", "check JUPYMAN_SSH_CONFIG or ssh_config")
    binary = shutil.which("ssh")
    if binary is None:
        from jupyman.ssh import plainconfig

        return plainconfig.read(destination, ssh_config)
    words = [binary, "-G"]
    if ssh_config is not None:
        words += ["-F", str(Path(ssh_config).expanduser())]
    if destination.user is not None:
        words += ["-l", destination.user]
    if destination.port is not None:
        words += ["-p", str(destination.port)]
    try:
        done = subprocess.run(
            [*words, "--", destination.name],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=READ_TIMEOUT,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise errors.ConfigFault(
            f"ssh -G {destination.name} did not answer in {READ_TIMEOUT:.0f} s", "look for a Match exec that hangs"
        ) from error
    if done.returncode != 0:
        complaint = done.stderr.strip().splitlines()
        raise errors.ConfigFault(
            f"ssh cannot use its configuration: {complaint[-1] if complaint else done.returncode}",
            f"`ssh -G {shlex.quote(destination.name)}` shows the same",
        )
    return parse(done.stdout, destination, ssh_config=ssh_config)


def parse(output: str, destination: Destination, *, ssh_config: str | None = None) -> HostConfig:
    """Read the output of ``ssh -G``.

    Args:
        output: lines ``keyword value``; keywords are lower case; some come several times.
        destination: what was asked for.
        ssh_config: the file that was given, for the hops.

    Returns:
        The configuration, tokens expanded: ``ssh -G`` leaves them in identityfile, certificatefile and proxycommand.
    """
    values: dict[str, list[str]] = {}
    for line in output.splitlines():
        keyword, _, value = line.strip().partition(" ")
        values.setdefault(keyword.lower(), []).append(value.strip())

    def one(keyword: str, default: str = "") -> str:
        return values.get(keyword, [default])[0]

    hostname = one("hostname", destination.name)
    port = int(one("port", "22"))
    user = one("user") or getpass.getuser()
    jump = one("proxyjump")
    hops = () if jump in {"", "none"} else tuple(hop.strip() for hop in jump.split(","))
    tokens = _tokens(destination.name, hostname, port, user, one("hostkeyalias"), jump)

    def paths(keyword: str) -> tuple[str, ...]:
        found = []
        for value in values.get(keyword, []):
            if value != "none":
                found.append(_path(value, tokens))
        return tuple(found)

    def known(keyword: str) -> tuple[str, ...]:
        return tuple(_path(one_path, tokens) for one_path in _words(one(keyword)) if one_path != "none")

    agent = one("identityagent")
    identity_agent: str | None = None
    if agent == "none":
        identity_agent = ""
    elif agent and agent != "SSH_AUTH_SOCK":
        identity_agent = os.environ.get(agent[1:], "") if agent.startswith("$") else _path(agent, tokens)
    command = one("proxycommand")
    timeout = one("connecttimeout", "none")
    return HostConfig(
        alias=destination.name,
        hostname=hostname,
        port=port,
        user=user,
        identity_files=paths("identityfile"),
        certificate_files=paths("certificatefile"),
        identity_agent=identity_agent,
        identities_only=one("identitiesonly") == "yes",
        proxy_jump=hops,
        proxy_command=None if command in {"", "none"} or hops else _expand(command, tokens),
        user_known_hosts=known("userknownhostsfile"),
        global_known_hosts=known("globalknownhostsfile"),
        host_key_alias=one("hostkeyalias") or None,
        strict={"true": "yes", "false": "no", "off": "no"}.get(one("stricthostkeychecking", "ask"), one("stricthostkeychecking", "ask")),
        address_family=one("addressfamily", "any"),
        connect_timeout=float(timeout) if timeout.isdigit() and timeout != "0" else None,
        configured=hostname != destination.name,
        hash_known_hosts=one("hashknownhosts") == "yes",
        ssh_config=ssh_config,
    )


def _words(text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError:
        return text.split()


def _tokens(alias: str, hostname: str, port: int, user: str, key_alias: str, jump: str) -> dict[str, str]:
    """The tokens of ssh_config(5), "TOKENS"."""
    local = socket.gethostname()
    mixed = f"{local}{hostname}{port}{user}{jump if jump != 'none' else ''}"
    return {
        "%": "%",
        "C": hashlib.sha1(mixed.encode(), usedforsecurity=False).hexdigest(),
        "d": str(Path.home()),
        "h": hostname,
        "i": str(os.getuid()) if hasattr(os, "getuid") else "0",
        "j": "" if jump == "none" else jump,
        "k": key_alias or hostname,
        "L": local.split(".")[0],
        "l": local,
        "n": alias,
        "p": str(port),
        "r": user,
        "u": getpass.getuser(),
    }


def _expand(text: str, tokens: dict[str, str]) -> str:
    return re.sub(r"%(.)", lambda match: tokens.get(match[1], match[0]), text)


def _path(text: str, tokens: dict[str, str]) -> str:
    expanded = re.sub(r"\$\{(\w+)\}", lambda match: os.environ.get(match[1], ""), _expand(text.strip('"'), tokens))
    return str(Path(expanded).expanduser())
