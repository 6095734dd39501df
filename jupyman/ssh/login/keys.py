"""Private keys: of an agent, in files, and decrypted ones in memory."""

from __future__ import annotations

import base64
import binascii
import copy
import errno
import logging
import os
import re
import socket
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import paramiko
from paramiko.agent import AgentSSH
from paramiko.message import Message

from jupyman.ssh.config.ssh_g import HostConfig
from jupyman.ssh.wire.compat import Incoming

log = logging.getLogger(__name__)

AGENT_TIMEOUT = 30.0  # seconds; an agent may ask its user to confirm (ssh-add -c)
_MAGIC = b"openssh-key-v1\0"  # OpenSSH's PROTOCOL.key


@dataclass
class Keyring:
    """Decrypted keys, and passwords that the user allowed us to keep; in this process's memory only."""

    _keys: dict[tuple[str, float], paramiko.PKey] = field(default_factory=dict, repr=False)
    _passwords: dict[tuple[str, str, int], str] = field(default_factory=dict, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def key(self, path: str) -> paramiko.PKey | None:
        """Return a key that was decrypted before, unless its file changed since."""
        with self._lock:
            return self._keys.get((path, _changed(path)))

    def keep_key(self, path: str, key: paramiko.PKey) -> None:
        """Keep a decrypted key."""
        with self._lock:
            self._keys[(path, _changed(path))] = key

    def password(self, config: HostConfig) -> str | None:
        """Return the account's password, if the user allowed us to keep it."""
        with self._lock:
            return self._passwords.get((config.user, config.hostname, config.port))

    def keep_password(self, config: HostConfig, password: str | None) -> None:
        """Keep a password; None: forget it."""
        with self._lock:
            place = (config.user, config.hostname, config.port)
            if password is None:
                self._passwords.pop(place, None)
            else:
                self._passwords[place] = password


class Agent(AgentSSH):
    """An agent at a given socket: paramiko's own reads only this process's environment, which becomes outdated.

    Args:
        path: of its UNIX socket.

    Raises:
        OSError, SSHException: nothing answers there.
    """

    _connection: socket.socket

    def __init__(self, path: str) -> None:
        super().__init__()
        if sys.platform == "win32":
            raise OSError(errno.EAFNOSUPPORT, "the named pipe of an agent is not supported yet")
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.settimeout(AGENT_TIMEOUT)
        try:
            connection.connect(path)
            agent: Any = self  # paramiko's stubs leave _connect out
            agent._connect(connection)  # noqa: SLF001 - its own, inherited
        except BaseException:
            connection.close()
            raise
        self._connection = connection

    def _send_message(self, message: Any) -> tuple[int, Message]:
        """As paramiko's, but a key's comment may have any bytes."""
        agent: Any = super()
        kind, answer = agent._send_message(message)  # noqa: SLF001 - its own, inherited
        return kind, Incoming(answer.get_remainder(), 0)

    def close(self) -> None:
        """Close the socket; its keys sign nothing any more."""
        self._connection.close()


def public_blob(path: str) -> bytes | None:
    """Return the public half of an identity, as OpenSSH finds it: in the private file, the file itself, or beside it.

    Args:
        path: as IdentityFile names it.
    """
    try:
        text = Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        text = ""
    if "BEGIN OPENSSH PRIVATE KEY" in text:
        try:
            raw = base64.b64decode("".join(line for line in text.splitlines() if not line.startswith("-----")))
        except (ValueError, binascii.Error):
            return None
        if raw.startswith(_MAGIC):
            message = Message(raw[len(_MAGIC) :])
            for _ in range(3):  # the cipher, the key derivation and its options
                message.get_string()
            if message.get_int() == 1:
                return message.get_string()
    return _line_blob(text) or _line_blob(_text(f"{path}.pub"))


def _text(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _line_blob(text: str) -> bytes | None:
    match = re.match(r"(?:ssh|ecdsa|sk)-\S+ ([A-Za-z0-9+/=]+)", text)
    try:
        return base64.b64decode(match[1], validate=True) if match else None
    except (ValueError, binascii.Error):
        return None


def is_private(path: str) -> bool:
    """Return whether a file holds a private key: an IdentityFile may hold a public one, for a key of the agent."""
    return "PRIVATE KEY-----" in _text(path)


def load(path: str, passphrase: str | None) -> paramiko.PKey:
    """Read a key of any type; paramiko's own `from_path` takes no passphrase (5.1: it mixes str and bytes up).

    Raises:
        PasswordRequiredException: it is encrypted and no passphrase was given.
        SSHException, ValueError: no such type, or the passphrase is wrong.
    """
    last: Exception = paramiko.SSHException(f"{path} is not a private key")
    for kind in (paramiko.Ed25519Key, paramiko.ECDSAKey, paramiko.RSAKey):
        try:
            return kind.from_private_key_file(path, password=passphrase)
        except paramiko.PasswordRequiredException:
            raise
        except (paramiko.SSHException, ValueError, TypeError, IndexError) as error:
            last = error
    raise last


def with_certificates(config: HostConfig, path: str, key: paramiko.PKey) -> Iterator[paramiko.PKey]:
    """Yield a key with each of its certificates, then by itself, as OpenSSH offers them.

    Args:
        config: its CertificateFile; ``PATH-cert.pub`` counts too.
        path: of the key.
        key: decrypted; not changed.
    """
    for certificate in dict.fromkeys((*config.certificate_files, f"{path}-cert.pub")):
        if not Path(certificate).is_file():
            continue
        certified = copy.copy(key)
        try:
            certified.load_certificate(certificate)
            if _certifies(certificate, key):
                yield certified
        except (ValueError, OSError, paramiko.SSHException) as error:
            log.info("the certificate %s cannot be used with %s: %s", certificate, path, error)
    yield key


def _certifies(certificate: str, key: paramiko.PKey) -> bool:
    """Return whether a certificate is for this key: after a nonce, it has the key's own public fields."""
    blob = _line_blob(_text(certificate))
    if blob is None:
        return False
    plain = Message(key.asbytes())
    plain.get_string()  # the kind
    certified = Message(blob)
    certified.get_string()  # the kind
    certified.get_string()  # the nonce
    return bytes(certified.get_remainder()).startswith(plain.get_remainder())


def _changed(path: str) -> float:
    try:
        return os.stat(path).st_mtime  # noqa: PTH116 - a float is all that is needed
    except OSError:
        return 0.0
