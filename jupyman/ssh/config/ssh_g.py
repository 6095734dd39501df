"""The user's SSH configuration for one host: `ssh -G` reads it if there is an ssh binary."""

from __future__ import annotations

import getpass
import hashlib
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from jupyman import errors
from jupyman.ssh.config.destination import Destination

METHODS = ("publickey", "keyboard-interactive", "password")
READ_TIMEOUT = 10.0  # seconds; Match exec may run a program


@dataclass(frozen=True)
class HostConfig:
    """The configuration of a host, tokens expanded.

    Attributes:
        alias: the user's name for it.
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
        connect_timeout: seconds; None: not set.
        configured: the alias has a HostName of its own.
        hash_known_hosts: new lines are written hashed.
        host_key_algorithms: those that may be offered; empty: all.
        methods: of authentication that the configuration allows.
        ssh_config: the file that was read, for the jump hosts; None: the user's default.
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
    host_key_algorithms: tuple[str, ...] = ()
    methods: tuple[str, ...] = METHODS
    ssh_config: str | None = None

    @property
    def known_name(self) -> str:
        """The name of this host in known_hosts files: ``[host]:port`` unless the port is 22."""
        if self.host_key_alias:
            return self.host_key_alias
        name = self.hostname.lower()  # as ssh_login() does
        return name if self.port == 22 else f"[{name}]:{self.port}"


def read(host: str, *, ssh_config: str | None = None) -> HostConfig:
    """Read the user's configuration of a host.

    Args:
        host: an alias, or ``[user@]host[:port]``.
        ssh_config: a file, as for ``ssh -F``; None: the user's and the system's own.

    Returns:
        The configuration.

    Raises:
        UsageFault: this cannot be a host.
        ConfigFault: the file is missing, or ssh rejects it.
    """
    destination = Destination.parse(host)
    if ssh_config is not None and ssh_config != "none":
        ssh_config = os.path.expanduser(ssh_config)  # noqa: PTH111 - Path's own raises for ~nobody
        if not Path(ssh_config).is_file():
            raise errors.ConfigFault(
                f"the SSH configuration {ssh_config} does not exist", "check JUPYMAN_SSH_CONFIG or ssh_config"
            )
    binary = shutil.which("ssh")
    if binary is None:
        from jupyman.ssh.config import fallback

        return fallback.read(destination, ssh_config)
    words = [binary, "-G"]
    if ssh_config is not None:
        words += ["-F", ssh_config]
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
        complaints = done.stderr.strip().splitlines() or [str(done.returncode)]
        # The last line only counts them.
        first = next((line for line in complaints if re.search(r"\bline \d", line)), complaints[-1])
        raise errors.ConfigFault(
            f"ssh cannot use its configuration: {first}",
            f"`{shlex.join(['ssh', *words[1:], destination.name])}` shows the same",
        )
    return parse(done.stdout, destination, ssh_config=ssh_config)


def parse(output: str, destination: Destination, *, ssh_config: str | None = None) -> HostConfig:
    """Read the output of ``ssh -G``.

    Args:
        output: lines ``keyword value``; keywords are lower case; some come several times.
        destination: that ssh was called with.
        ssh_config: the file that it was called with, for the jump hosts.

    Returns:
        The configuration, tokens expanded: ``ssh -G`` leaves them in identityfile, certificatefile and proxycommand.

    Raises:
        ConfigFault: this is not the output of ``ssh -G``, or it has the home of a user who does not exist.
    """
    try:
        return _parse(output, destination, ssh_config)
    except (ValueError, RuntimeError) as error:
        raise errors.ConfigFault(
            f"the output of ssh -G cannot be used: {error}", f"look at `ssh -G {shlex.quote(destination.name)}`"
        ) from error


def _parse(output: str, destination: Destination, ssh_config: str | None) -> HostConfig:
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
    hops_text = "" if jump == "none" else jump
    tokens = _tokens(destination.name, hostname, port, user=user, key_alias=one("hostkeyalias"), jump=hops_text)

    def paths(keyword: str) -> tuple[str, ...]:
        return tuple(_path(value, tokens) for value in values.get(keyword, []) if value != "none")

    def known(keyword: str) -> tuple[str, ...]:
        return tuple(_path(one_path, tokens) for one_path in _words(one(keyword)) if one_path != "none")

    agent = one("identityagent")
    identity_agent: str | None = None
    if agent == "none":
        identity_agent = ""
    elif agent.lstrip("$") not in {"", "SSH_AUTH_SOCK"}:
        identity_agent = os.environ.get(agent[1:], "") if agent.startswith("$") else _path(agent, tokens)
    command = one("proxycommand")
    timeout = one("connecttimeout", "none")
    strict = one("stricthostkeychecking", "ask")
    off = {"no", "false"}
    keywords = ("pubkeyauthentication", "kbdinteractiveauthentication", "passwordauthentication")
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
        strict={"true": "yes", "false": "no", "off": "no"}.get(strict, strict),
        address_family=one("addressfamily", "any"),
        connect_timeout=float(timeout) if timeout.isdigit() and timeout != "0" else None,
        configured=hostname != destination.name,
        hash_known_hosts=one("hashknownhosts") == "yes",
        host_key_algorithms=tuple(name for name in one("hostkeyalgorithms").split(",") if name),
        methods=tuple(
            method for method, keyword in zip(METHODS, keywords, strict=True) if one(keyword, "yes") not in off
        ),
        ssh_config=ssh_config,
    )


def _words(text: str) -> list[str]:
    if os.name == "nt":  # a backslash is part of a path there
        return text.split()
    try:
        return shlex.split(text)
    except ValueError:
        return text.split()


def _tokens(alias: str, hostname: str, port: int, *, user: str, key_alias: str, jump: str) -> dict[str, str]:
    """Return the tokens of ssh_config(5), "TOKENS"."""
    local = socket.gethostname()
    mixed = f"{local}{hostname}{port}{user}{jump}"
    return {
        "%": "%",
        "C": hashlib.sha1(mixed.encode(), usedforsecurity=False).hexdigest(),
        "d": home(),
        "h": hostname,
        "i": _uid(),
        "j": jump,
        "k": key_alias or alias,
        "L": local.split(".")[0],
        "l": local,
        "n": alias,
        "p": str(port),
        "r": user,
        "u": getpass.getuser(),
    }


def _uid() -> str:
    if sys.platform == "win32":
        return "0"
    return str(os.getuid())


def _expand(text: str, tokens: dict[str, str]) -> str:
    return re.sub(r"%(.)", lambda match: tokens.get(match[1], match[0]), text)


def _path(text: str, tokens: dict[str, str]) -> str:
    expanded = re.sub(r"\$\{(\w+)\}", lambda match: os.environ.get(match[1], ""), _expand(text.strip('"'), tokens))
    if expanded == "~" or expanded.startswith("~/"):
        return home() + expanded[1:]
    return str(Path(expanded).expanduser()) if expanded.startswith("~") else expanded


def home() -> str:
    """Return the home directory that ssh uses: the account's, whatever HOME is (misc.c, tilde_expand)."""
    if sys.platform == "win32":
        return str(Path.home())
    import pwd

    try:
        return pwd.getpwuid(os.getuid()).pw_dir
    except KeyError:  # an account without an entry, as in containers
        return str(Path.home())
