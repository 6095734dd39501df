"""Log in: agent keys, key files, passwords and one-time codes, in OpenSSH's order."""

from __future__ import annotations

import logging
import os
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import paramiko
from paramiko.agent import AgentSSH

from jupyman import errors
from jupyman.ssh.config import HostConfig

log = logging.getLogger(__name__)

# Puts a question to the user's terminal: kind is "secret", "text" or "confirm".
Ask = Callable[[str, str], str]

# sshd's MaxAuthTries is 6 by default, and each key that is offered counts.
MAX_OFFERS = 6
TRIES = 3  # for a passphrase or a password
# People look for their phone; sshd's LoginGraceTime (120 s by default) is the real limit.
PATIENCE = 300.0


@dataclass(frozen=True)
class Credentials:
    """How this caller can log in.

    Attributes:
        ssh_auth_sock: its agent's socket.
        ask: its terminal; None: nobody is there, and nothing may be asked (a background login).
    """

    ssh_auth_sock: str | None = None
    ask: Ask | None = None


@dataclass
class Keyring:
    """Decrypted keys, and passwords that the user let us keep; in this process's memory only."""

    _keys: dict[tuple[str, float], paramiko.PKey] = field(default_factory=dict)
    _passwords: dict[tuple[str, str, int], str] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def key(self, path: str) -> paramiko.PKey | None:
        """Return a key that was decrypted before, unless its file changed since."""
        with self._lock:
            return self._keys.get((path, _changed(path)))

    def keep_key(self, path: str, key: paramiko.PKey) -> None:
        """Remember a decrypted key."""
        with self._lock:
            self._keys[(path, _changed(path))] = key

    def password(self, config: HostConfig) -> str | None:
        """Return the account's password, where the user let us keep it."""
        with self._lock:
            return self._passwords.get((config.user, config.hostname, config.port))

    def keep_password(self, config: HostConfig, password: str | None) -> None:
        """Remember a password, or forget it."""
        with self._lock:
            place = (config.user, config.hostname, config.port)
            if password is None:
                self._passwords.pop(place, None)
            else:
                self._passwords[place] = password


class _SocketAgent(AgentSSH):
    """An agent at a given socket: paramiko's own reads only this process's environment, which gets old."""

    def __init__(self, path: str) -> None:
        super().__init__()
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.settimeout(5)
        try:
            connection.connect(path)
            self._connect(connection)  # type: ignore[attr-defined]  # paramiko's stubs leave it out
        except (OSError, paramiko.SSHException):
            connection.close()
            raise
        self._connection = connection

    def close(self) -> None:
        """Close the socket."""
        self._connection.close()


@dataclass
class _Attempt:
    """One login: what was tried, and what the server still takes."""

    transport: paramiko.Transport
    config: HostConfig
    credentials: Credentials
    keyring: Keyring
    tried: list[str] = field(default_factory=list)
    allowed: list[str] = field(default_factory=lambda: ["publickey", "keyboard-interactive", "password"])
    offers: int = 0
    needs_prompt: bool = False
    used_password: bool = False
    failure: BaseException | None = None  # of a question, asked in paramiko's own thread

    def method(self, name: str, call: Callable[[], list[str]]) -> bool:
        """Try one credential; True when it was taken (perhaps only as a first of several)."""
        self.tried.append(name)
        try:
            left = call()
        except paramiko.BadAuthenticationType as error:
            self.allowed = list(error.allowed_types)
            return False
        except paramiko.AuthenticationException:
            return False
        if left:  # taken, and more is asked for
            self.allowed = list(left)
        return True


def login(transport: paramiko.Transport, config: HostConfig, credentials: Credentials, keyring: Keyring) -> None:
    """Authenticate a transport whose host key was verified.

    Args:
        transport: connected.
        config: of the host.
        credentials: of the caller.
        keyring: of the daemon.

    Raises:
        AuthenticationFailed: naming what was tried; details["needs_prompt"] where an answer from a person was missing.
        LinkLost: the server ended the connection.
    """
    attempt = _Attempt(transport, config, credentials, keyring)
    if credentials.ask is not None:
        transport.auth_timeout = PATIENCE
    try:
        _publickey(attempt)
        if not transport.is_authenticated() and "keyboard-interactive" in attempt.allowed:
            _interactive(attempt)
        if not transport.is_authenticated() and "password" in attempt.allowed:
            _password(attempt)
        # Two keys (AuthenticationMethods publickey,publickey) or a key after the code: once more.
        if not transport.is_authenticated() and "publickey" in attempt.allowed and attempt.used_password:
            _publickey(attempt)
    except (EOFError, OSError) as error:
        raise errors.LinkLost(f"{config.alias} ended the connection during the login") from error
    except paramiko.AuthenticationException:
        pass
    except paramiko.SSHException as error:
        if transport.is_active():
            raise errors.AuthenticationFailed(f"{config.alias}: the login failed: {error}") from error
        raise _refused(attempt, ended=True) from error
    if not transport.is_authenticated():
        raise _refused(attempt, ended=not transport.is_active())


def _refused(attempt: _Attempt, *, ended: bool) -> errors.AuthenticationFailed:
    config = attempt.config
    tried = ", ".join(dict.fromkeys(attempt.tried)) or "nothing"
    how = " (too many tries: it ended the connection)" if ended else ""
    if attempt.needs_prompt:
        return errors.AuthenticationFailed(
            f"{config.user}@{config.alias} asks for a password or a code, and no terminal is there to answer",
            f"run jupyman up {config.alias} on a terminal, or load a key with ssh-add",
            needs_prompt=True,
            tried=list(attempt.tried),
        )
    return errors.AuthenticationFailed(
        f"{config.user}@{config.alias} refused the login{how}; tried {tried}; it takes {', '.join(attempt.allowed)}",
        f"try `ssh {config.alias}` by hand; load your key with ssh-add, or run jupyman up on a terminal",
        needs_prompt=False,
        tried=list(attempt.tried),
    )


# --- keys ---------------------------------------------------------------------------------------------------------


def _publickey(attempt: _Attempt) -> None:
    offered: set[bytes] = set()
    for label, make in _candidates(attempt):
        if attempt.transport.is_authenticated() or "publickey" not in attempt.allowed or attempt.offers >= MAX_OFFERS:
            return
        key = make()
        if key is None or key.asbytes() in offered:
            continue
        offered.add(key.asbytes())
        attempt.offers += 1
        before = list(attempt.allowed)
        taken = attempt.method(
            label, lambda chosen=key: attempt.transport.auth_publickey(attempt.config.user, chosen)  # type: ignore[misc]
        )
        if taken and attempt.allowed != before:
            return  # partial: the next method is asked for


def _candidates(attempt: _Attempt) -> Iterator[tuple[str, Callable[[], paramiko.PKey | None]]]:
    """Yield keys in OpenSSH's order: agent keys that are configured, files, then other agent keys.

    sshconnect2.c, pubkey_prepare(): keys of the agent that match an IdentityFile come first, in that order.
    """
    config = attempt.config
    agent = _agent_keys(attempt)
    by_blob = {key.asbytes(): key for key in agent}
    wanted: list[bytes] = []
    for path in config.identity_files:
        blob = _public_blob(path)
        if blob is not None:
            wanted.append(blob)
            if blob in by_blob:
                yield f"agent key {Path(path).name}", lambda key=by_blob[blob]: key  # type: ignore[misc]
    if not config.identities_only:
        for key in agent:
            if key.asbytes() not in wanted:
                yield "agent key", lambda chosen=key: chosen  # type: ignore[misc]
    for path in config.identity_files:
        blob = _public_blob(path)
        if blob is None or blob not in by_blob:
            yield f"key {path}", lambda chosen=path: _file_key(attempt, chosen)  # type: ignore[misc]


def _agent_keys(attempt: _Attempt) -> list[Any]:
    config = attempt.config
    path = config.identity_agent if config.identity_agent is not None else attempt.credentials.ssh_auth_sock
    if not path or not hasattr(socket, "AF_UNIX"):
        return []
    try:
        return list(_SocketAgent(path).get_keys())
    except (OSError, paramiko.SSHException) as error:
        log.info("the agent at %s does not answer: %s", path, error)
        return []


def _public_blob(path: str) -> bytes | None:
    """Return the public half of a key file, from the .pub file beside it."""
    try:
        words = Path(f"{path}.pub").read_text(encoding="utf-8").split()
        import base64

        return base64.b64decode(words[1])
    except (OSError, ValueError, IndexError):
        return None


def _file_key(attempt: _Attempt, path: str) -> paramiko.PKey | None:
    if not Path(path).is_file():
        return None
    kept = attempt.keyring.key(path)
    if kept is not None:
        return _with_certificate(attempt, path, kept)
    try:
        key = _load(path, None)
    except paramiko.PasswordRequiredException:
        decrypted = _decrypt(attempt, path)
        if decrypted is None:
            return None
        key = decrypted
    except Exception as error:  # paramiko raises ValueError, UnknownKeyType and cryptography's own
        log.info("the key %s cannot be used: %s", path, error)
        attempt.tried.append(f"key {path} (unreadable)")
        return None
    return _with_certificate(attempt, path, key)


def _load(path: str, passphrase: str | None) -> paramiko.PKey:
    """Read a key of any kind; paramiko's own `from_path` cannot take a passphrase (5.1: str and bytes are mixed up).

    Raises:
        PasswordRequiredException: it is encrypted and no passphrase was given.
        SSHException, ValueError: no such kind, or the passphrase is wrong.
    """
    last: Exception = paramiko.SSHException(f"{path} is no private key")
    for kind in (paramiko.Ed25519Key, paramiko.ECDSAKey, paramiko.RSAKey):
        try:
            return kind.from_private_key_file(path, password=passphrase)
        except paramiko.PasswordRequiredException:
            raise
        except (paramiko.SSHException, ValueError, TypeError, IndexError) as error:
            last = error
    raise last


def _decrypt(attempt: _Attempt, path: str) -> paramiko.PKey | None:
    if attempt.credentials.ask is None:
        attempt.needs_prompt = True
        return None
    for _ in range(TRIES):
        passphrase = attempt.credentials.ask("secret", f"Passphrase for the key {path}: ")
        if not passphrase:
            return None
        try:
            key = _load(path, passphrase)
        except Exception as error:  # a wrong passphrase is a ValueError or cryptography's own, by version
            log.info("the key %s was not decrypted: %s", path, type(error).__name__)
            continue
        attempt.keyring.keep_key(path, key)
        return key
    return None


def _with_certificate(attempt: _Attempt, path: str, key: paramiko.PKey) -> paramiko.PKey:
    for certificate in (*attempt.config.certificate_files, f"{path}-cert.pub"):
        if key.public_blob is None and Path(certificate).is_file():
            try:
                key.load_certificate(certificate)
            except (ValueError, OSError, paramiko.SSHException) as error:
                log.info("the certificate %s cannot be used with %s: %s", certificate, path, error)
    return key


# --- people's answers ---------------------------------------------------------------------------------------------


def _interactive(attempt: _Attempt) -> None:
    """Keyboard-interactive: passwords and one-time codes; answers are never kept."""
    kept = attempt.keyring.password(attempt.config)
    if attempt.credentials.ask is None and kept is None:
        attempt.needs_prompt = True
        return
    for _ in range(TRIES):
        gave_up = False
        answered = 0

        def handler(title: str, instructions: str, prompts: list[tuple[str, bool]]) -> list[str]:
            nonlocal gave_up, answered
            answers = []
            for text, echo in prompts:
                answered += 1
                ask = attempt.credentials.ask
                if ask is None:
                    # A kept password answers the one question that is for it; a code cannot be made up.
                    if kept is None or answered > 1 or "assword" not in text:
                        gave_up = True
                        attempt.needs_prompt = True
                        answers.append("")
                    else:
                        answers.append(kept)
                    continue
                head = "\n".join(part for part in (title, instructions) if part.strip())
                try:
                    answers.append(ask("text" if echo else "secret", f"{head}\n{text}" if head else text))
                except BaseException as error:
                    # This is paramiko's thread: an exception here would end the transport without a word.
                    attempt.failure = error
                    answers.append("")
            return answers

        attempt.used_password = True
        taken = attempt.method(
            "keyboard-interactive", lambda: attempt.transport.auth_interactive(attempt.config.user, handler)
        )
        if attempt.failure is not None:
            raise attempt.failure
        if taken:
            return
        if gave_up or answered == 0 or attempt.credentials.ask is None or not attempt.transport.is_active():
            return
        if "keyboard-interactive" not in attempt.allowed:
            return


def _password(attempt: _Attempt) -> None:
    config, ask = attempt.config, attempt.credentials.ask
    attempt.used_password = True
    kept = attempt.keyring.password(config)
    if kept is not None:
        # fallback=False: keyboard-interactive was tried before, in its own right.
        if attempt.method("password", lambda: attempt.transport.auth_password(config.user, kept, fallback=False)):
            return
        attempt.keyring.keep_password(config, None)
    if ask is None:
        attempt.needs_prompt = True
        return
    for _ in range(TRIES):
        if "password" not in attempt.allowed or not attempt.transport.is_active():
            return
        password = ask("secret", f"{config.user}@{config.alias}'s password: ")
        if not password:
            return
        taken = attempt.method(
            "password", lambda word=password: attempt.transport.auth_password(config.user, word, fallback=False)  # type: ignore[misc]
        )
        if taken:
            keep = ask("confirm", "Keep this password in the daemon's memory until it stops, to reconnect by itself?")
            if keep.lower() in {"y", "yes"}:
                attempt.keyring.keep_password(config, password)
            return


def _changed(path: str) -> float:
    try:
        return os.stat(path).st_mtime  # noqa: PTH116 - a float is all that is needed
    except OSError:
        return 0.0
