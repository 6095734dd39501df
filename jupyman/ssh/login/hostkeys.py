"""Host keys: compared with known_hosts files before anything secret is sent.

The format is that of sshd(8), "SSH_KNOWN_HOSTS FILE FORMAT". paramiko's own reader rejects a whole file because of one
`@revoked` or `@cert-authority` line; this one skips lines that it cannot use.
"""

from __future__ import annotations

import base64
import binascii
import fnmatch
import hashlib
import hmac
import logging
import os
import secrets
import shlex
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import paramiko

from jupyman import errors
from jupyman.ssh.config.ssh_g import HostConfig

log = logging.getLogger(__name__)

Ask = Callable[[str, str], str]
Marker = Literal["", "revoked", "cert-authority"]


@dataclass(frozen=True)
class KnownHostsLine:
    """A usable line of a known_hosts file."""

    file: str
    number: int
    marker: Marker
    names: str
    kind: str
    blob: bytes


@dataclass(frozen=True)
class Known:
    """The host has this key."""


@dataclass(frozen=True)
class Unknown:
    """No key of the host is known."""


@dataclass(frozen=True)
class Changed:
    """Another key is known for the host."""

    line: KnownHostsLine


@dataclass(frozen=True)
class Revoked:
    """The key is marked as revoked."""

    line: KnownHostsLine


Verdict = Known | Unknown | Changed | Revoked


def parse(text: str, file: str) -> Iterator[KnownHostsLine]:
    """Read a known_hosts file; comments and lines that cannot be read are skipped.

    Args:
        text: its content.
        file: its name, for messages.

    Yields:
        The lines in order.
    """
    for number, raw in enumerate(text.splitlines(), 1):
        words = raw.split()
        if not words or words[0].startswith("#"):
            continue
        marker: Marker = ""
        if words[0].startswith("@"):
            if words[0] == "@revoked":
                marker = "revoked"
            elif words[0] == "@cert-authority":
                marker = "cert-authority"
            else:
                continue
            words = words[1:]
        if len(words) < 3:
            continue
        try:
            blob = base64.b64decode(words[2], validate=True)
        except (binascii.Error, ValueError):
            continue
        yield KnownHostsLine(file=file, number=number, marker=marker, names=words[0], kind=words[1], blob=blob)


def matches(names: str, host: str) -> bool:
    """Return whether the first field of a line matches a host.

    Args:
        names: a hashed name, or patterns with ``*``, ``?`` and ``!``, separated by commas.
        host: as `HostConfig.known_name`.
    """
    if names.startswith("|1|"):
        try:
            _, _, salt, digest = names.split("|")
            made = hmac.new(base64.b64decode(salt), host.encode(), hashlib.sha1).digest()
            return hmac.compare_digest(made, base64.b64decode(digest))
        except (ValueError, binascii.Error):
            return False
    found = False
    for pattern in names.split(","):
        negated = pattern.startswith("!")
        # fnmatch knows [sets], which here are the brackets of [host]:port.
        escaped = pattern.lstrip("!").replace("[", "[[]")
        if fnmatch.fnmatchcase(host.lower(), escaped.lower()):
            if negated:
                return False
            found = True
    return found


def lines_of(config: HostConfig) -> list[KnownHostsLine]:
    """Return the lines of all known_hosts files that match a host."""
    found: list[KnownHostsLine] = []
    for file in (*config.user_known_hosts, *config.global_known_hosts):
        try:
            text = Path(file).read_text(encoding="utf-8", errors="replace")
        except OSError:
            continue
        found += [line for line in parse(text, file) if matches(line.names, config.known_name)]
    return found


def judge(config: HostConfig, key: paramiko.PKey) -> Verdict:
    """Compare a host's key with the known ones.

    Args:
        config: of the host.
        key: which the host proved to have.
    """
    lines = lines_of(config)
    blob = key.asbytes()
    for line in lines:
        if line.marker == "revoked" and line.blob == blob:
            return Revoked(line)
    plain = [line for line in lines if line.marker == ""]
    if any(line.blob == blob for line in plain):
        return Known()
    # Known types were requested first (see `preferred`), so a key of another type counts as changed too.
    same = [line for line in plain if line.kind == key.get_name()] or plain
    return Changed(same[0]) if same else Unknown()


def preferred(config: HostConfig, offered: tuple[str, ...]) -> tuple[str, ...]:
    """Order key algorithms so that known ones come first, or a host with an RSA line would look changed.

    Args:
        config: of the host; its HostKeyAlgorithms leave others out.
        offered: paramiko's own order.
    """
    allowed = tuple(kind for kind in offered if kind in config.host_key_algorithms) or offered
    kinds = {line.kind for line in lines_of(config) if line.marker == ""}
    if "ssh-rsa" in kinds:
        kinds |= {"rsa-sha2-512", "rsa-sha2-256"}
    return (*(kind for kind in allowed if kind in kinds), *(kind for kind in allowed if kind not in kinds))


def fingerprint(key: paramiko.PKey) -> str:
    """Return the SHA256 fingerprint as `ssh-keygen -l` shows it."""
    digest = hashlib.sha256(key.asbytes()).digest()
    return "SHA256:" + base64.b64encode(digest).decode().rstrip("=")


def verify(config: HostConfig, key: paramiko.PKey, ask: Ask | None) -> None:
    """Accept a host's key, or raise.

    Args:
        config: of the host.
        key: which the host proved to have.
        ask: puts a question to the user; None: there is no terminal.

    Raises:
        HostKeyFault: unknown and not accepted, changed, or revoked.
    """
    verdict = judge(config, key)
    if isinstance(verdict, Known):
        return
    refuse_changed(config, key, verdict)
    if config.strict in {"accept-new", "no"}:
        log.warning("%s: new key %s accepted: StrictHostKeyChecking %s", config.alias, fingerprint(key), config.strict)
        append(config, key)
        return
    vouched = any(line.marker == "cert-authority" for line in lines_of(config))
    aside = " (its certificate authority is known, but paramiko reads no host certificates)" if vouched else ""
    if ask is None or config.strict == "yes":
        raise errors.HostKeyFault(
            f"the key of {config.alias} is unknown: {key.get_name()} {fingerprint(key)}{aside}",
            f"compare it with what the admin tells you, then: jupyman host trust {config.alias}",
        )
    answer = ask(
        "confirm",
        f"The key of {config.alias} ({config.known_name}) is not known yet{aside}:\n"
        f"  {key.get_name()} {fingerprint(key)}\nDo you trust it?",
    )
    if answer.lower() not in {"y", "yes"}:
        raise errors.HostKeyFault(f"the key of {config.alias} was not accepted", "nothing was sent to the host")
    append(config, key)


def refuse_changed(config: HostConfig, key: paramiko.PKey, verdict: Verdict) -> None:
    """Raise for a changed or revoked key.

    Raises:
        HostKeyFault: naming file and line.
    """
    if isinstance(verdict, Changed):
        line = verdict.line
        raise errors.HostKeyFault(
            f"the key of {config.alias} has CHANGED: {line.file} line {line.number} has another one; "
            f"now it is {key.get_name()} {fingerprint(key)}. Nothing was sent",
            f"ask the admin why; only then: ssh-keygen -f {shlex.quote(line.file)} -R {shlex.quote(config.known_name)}",
            file=line.file,
            line=line.number,
        )
    if isinstance(verdict, Revoked):
        line = verdict.line
        raise errors.HostKeyFault(
            f"the key of {config.alias} is revoked by {line.file} line {line.number}. Nothing was sent",
            "ask the admin: somebody may have stolen it",
            file=line.file,
            line=line.number,
        )


def append(config: HostConfig, key: paramiko.PKey) -> Path | None:
    """Write a key into the first of the user's known_hosts files.

    Returns:
        The file; None if the configuration names none (/dev/null).

    Raises:
        HostKeyFault: it cannot be written.
    """
    files = [file for file in config.user_known_hosts if file != os.devnull]
    if not files:
        return None
    path = Path(files[0])
    name = config.known_name
    if config.hash_known_hosts:
        salt = secrets.token_bytes(20)
        digest = hmac.new(salt, name.encode(), hashlib.sha1).digest()
        name = f"|1|{base64.b64encode(salt).decode()}|{base64.b64encode(digest).decode()}"
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        needs_break = path.exists() and path.stat().st_size > 0 and not path.read_bytes().endswith(b"\n")
        handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(("\n" if needs_break else "") + f"{name} {key.get_name()} {key.get_base64()}\n")
    except OSError as error:
        raise errors.HostKeyFault(f"{path} cannot be written: {error.strerror}", "fix its permissions") from error
    return path
