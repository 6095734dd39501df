"""Log in: agent keys, key files, passwords and one-time codes, in OpenSSH's order.

Over 300 lines because one attempt and its methods share what was tried and what the server still accepts.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import paramiko

from jupyman import errors
from jupyman.ssh.channels.transport import Transport
from jupyman.ssh.config.ssh_g import METHODS, HostConfig
from jupyman.ssh.login import keys
from jupyman.ssh.login.keys import Keyring as Keyring  # noqa: PLC0414 - re-exported
from jupyman.ssh.wire.compat import printable

log = logging.getLogger(__name__)

# Puts a question to the user's terminal: the kind is "secret", "text" or "confirm". Raises if nobody answers.
Ask = Callable[[str, str], str]
_Offer = tuple[str, Callable[[], Iterator[paramiko.PKey]]]

# sshd's MaxAuthTries is 6 by default, and each offered key counts.
MAX_OFFERS = 6
TRIES = 3  # for a passphrase or a password, as NumberOfPasswordPrompts
MAX_FACTORS = 6  # steps of AuthenticationMethods; nobody configures more
# SSH_DISCONNECT_AUTH_CANCELLED_BY_USER, _NO_MORE_AUTH_METHODS_AVAILABLE, _ILLEGAL_USER_NAME
_REFUSALS = frozenset({13, 14, 15})
# Seconds for an answer: people look for their phone; sshd's LoginGraceTime (120 s by default) is the real limit.
PATIENCE = 300.0


@dataclass(frozen=True)
class Credentials:
    """How this caller can log in.

    Attributes:
        ssh_auth_sock: the socket of its agent.
        ask: its terminal; None: there is none, and nothing may be asked (a background login).
    """

    ssh_auth_sock: str | None = None
    ask: Ask | None = None


@dataclass
class _Attempt:
    """One login: what was tried, and what the server still accepts."""

    transport: Transport
    config: HostConfig
    credentials: Credentials
    keyring: Keyring
    tried: list[str] = field(default_factory=list)
    allowed: list[str] = field(default_factory=lambda: list(METHODS))
    known: bool = False  # `allowed` is the server's own list
    offered: set[bytes] = field(default_factory=set)
    partial: bool = False  # the last credential was accepted, and another one is needed
    needs_prompt: bool = False
    failure: BaseException | None = None  # raised by a question, in paramiko's own thread

    @property
    def done(self) -> bool:
        return self.transport.is_authenticated()

    def may(self, method: str) -> bool:
        """Return whether a method is worth a try now."""
        return (
            not self.done
            and not self.partial
            and method in self.allowed
            and method in self.config.methods
            and self.transport.is_active()
        )

    def try_one(self, name: str, call: Callable[[], list[str]]) -> bool:
        """Try one credential; return whether it was accepted (perhaps only as the first of several)."""
        self.tried.append(name)
        self.transport.refused = False  # a refusal of the previous one has nothing to do with this one
        try:
            left = call()
        except paramiko.BadAuthenticationType as error:
            self.allowed, self.known = _methods(error.allowed_types), True
            return False
        except paramiko.AuthenticationException as error:
            _answered(self.config, error)
            log.info("%s: %s was refused: %s", self.config.alias, name, error)
            return False
        if left:
            self.allowed, self.known, self.partial = _methods(left), True, True
        return True


def login(transport: Transport, config: HostConfig, credentials: Credentials, keyring: Keyring) -> None:
    """Authenticate a transport whose host key was verified.

    Args:
        transport: connected.
        config: of the host.
        credentials: of the caller.
        keyring: of the daemon.

    Raises:
        AuthenticationFailed: with what was tried; details["needs_prompt"] if an answer from a person was missing.
        LinkLost: the connection ended, and no credential was refused.
    """
    failure: Exception | None = None
    attempt = _Attempt(transport, config, credentials, keyring)
    if credentials.ask is not None:
        transport.auth_timeout = PATIENCE
    agent = _agent(attempt)
    try:
        for _ in range(MAX_FACTORS):
            attempt.partial = False
            _publickey(attempt, agent)
            _find_methods(attempt)
            _interactive(attempt)
            _password(attempt)
            if attempt.done or not attempt.partial:
                break
    except (EOFError, OSError, paramiko.SSHException) as error:
        failure = error
    finally:
        if agent is not None:
            agent.close()
    if attempt.done:
        return
    if (failure is not None or not transport.is_active()) and not _credentials_refused(transport):
        why = transport.disconnect_text
        if not why and isinstance(failure, paramiko.SSHException):
            why = printable(str(failure))
        raise errors.LinkLost(
            f"{config.alias} ended the connection during the login" + (f": {why}" if why else ""),
            "try again, or `ssh` by hand",
        ) from failure
    raise _refused(attempt)


def _credentials_refused(transport: Transport) -> bool:
    """Return whether a server that ended the connection refused our credentials.

    RFC 4253, section 11.1, has codes for that; OpenSSH gives code 2 for everything, and a text.
    """
    if transport.refused:
        return True
    text = transport.disconnect_text
    return text is not None and (transport.disconnect_code in _REFUSALS or "authentication failures" in text)


def _refused(attempt: _Attempt) -> errors.AuthenticationFailed:
    config = attempt.config
    tried = list(dict.fromkeys(attempt.tried))
    details = {"tried": tried, "allowed": attempt.allowed if attempt.known else []}
    if attempt.needs_prompt and attempt.transport.is_active():
        return errors.AuthenticationFailed(
            f"{config.user}@{config.alias} asks for a passphrase, password or code, and there is no terminal to answer",
            f"run jupyman up {config.alias} on a terminal, or load a key with ssh-add",
            needs_prompt=True,
            **details,
        )
    accepts = f"; it accepts {', '.join(attempt.allowed)}" if attempt.known else ""
    ended = attempt.transport.disconnect_text
    how = f" ({ended})" if ended else ""
    return errors.AuthenticationFailed(
        f"{config.user}@{config.alias} refused the login{how}; tried {', '.join(tried) or 'nothing'}{accepts}",
        f"try `ssh {config.alias}` by hand; load your key with ssh-add, or run jupyman up on a terminal",
        needs_prompt=False,
        **details,
    )


def _find_methods(attempt: _Attempt) -> None:
    """Find out which methods the server accepts, before a person is asked for anything useless."""
    if attempt.known or attempt.done or attempt.partial or not attempt.transport.is_active():
        return
    try:
        attempt.transport.auth_none(attempt.config.user)
    except paramiko.BadAuthenticationType as error:
        attempt.allowed, attempt.known = _methods(error.allowed_types), True
    except paramiko.AuthenticationException as error:
        _answered(attempt.config, error)
        log.info("%s does not list its methods: %s", attempt.config.alias, error)


def _methods(names: list[str]) -> list[str]:
    """Return the names of methods that a server accepts, for our messages: a few, and printable."""
    return [printable(name, 64) for name in names[:16]]


def _answered(config: HostConfig, error: paramiko.AuthenticationException) -> None:
    """Distinguish a refusal from silence: the network was lost in the middle, or this computer slept.

    Raises:
        LinkLost: it was silence; no credential was refused.
    """
    if "timeout" in str(error):  # paramiko, AuthHandler.wait_for_response
        raise errors.LinkLost(f"{config.alias} did not answer during the login") from error


# --- keys ---------------------------------------------------------------------------------------------------------


def _publickey(attempt: _Attempt, agent: keys.Agent | None) -> None:
    for label, make in _candidates(attempt, agent):
        if not attempt.may("publickey"):
            return
        for key in make():
            blob = key.public_blob.key_blob if key.public_blob is not None else key.asbytes()
            if blob in attempt.offered or len(attempt.offered) >= MAX_OFFERS or not attempt.may("publickey"):
                continue
            attempt.offered.add(blob)
            attempt.try_one(label, lambda chosen=key: attempt.transport.auth_publickey(attempt.config.user, chosen))  # type: ignore[misc]
            if "publickey" not in attempt.allowed and not attempt.partial:
                attempt.offered.discard(blob)  # it was not refused: it may be the second factor


def _candidates(attempt: _Attempt, agent: keys.Agent | None) -> Iterator[_Offer]:
    """Yield keys in OpenSSH's order: agent keys that are configured, other agent keys, then files.

    sshconnect2.c, pubkey_prepare(). Encrypted files come last: OpenSSH asks the server whether it would accept a key
    before it asks for the passphrase, which paramiko cannot.
    """
    config = attempt.config
    held = {key.asbytes(): key for key in agent.get_keys()} if agent is not None else {}
    blobs = {path: keys.public_blob(path) for path in config.identity_files}
    for path, blob in blobs.items():
        if blob in held:
            yield f"agent key {Path(path).name}", lambda key=held[blob]: iter([key])  # type: ignore[misc]
    if not config.identities_only:
        for blob, key in held.items():
            if blob not in blobs.values():
                yield "agent key", lambda chosen=key: iter([chosen])  # type: ignore[misc]
    encrypted = []
    for path, blob in blobs.items():
        if blob in held or not keys.is_private(path):
            continue
        try:
            loaded = attempt.keyring.key(path) or keys.load(path, None)
        except paramiko.PasswordRequiredException:
            encrypted.append(path)
            continue
        except Exception as error:  # paramiko raises ValueError, UnknownKeyType and cryptography's own
            log.info("the key %s cannot be used: %s", path, error)
            attempt.tried.append(f"key {path} (unreadable)")
            continue
        yield f"key {path}", lambda chosen=loaded, where=path: keys.with_certificates(config, where, chosen)  # type: ignore[misc]
    for path in encrypted:
        yield f"key {path}", lambda where=path: _decrypted(attempt, where)  # type: ignore[misc]


def _agent(attempt: _Attempt) -> keys.Agent | None:
    config = attempt.config
    path = config.identity_agent if config.identity_agent is not None else attempt.credentials.ssh_auth_sock
    if not path:
        return None
    try:
        return keys.Agent(path)
    except Exception as error:  # paramiko raises anything when the answer is not an agent's
        log.info("the agent at %s does not answer: %s", path, error)
        return None


def _decrypted(attempt: _Attempt, path: str) -> Iterator[paramiko.PKey]:
    """Ask for a key's passphrase, and yield the key."""
    ask = attempt.credentials.ask
    if ask is None:
        attempt.needs_prompt = True
        attempt.tried.append(f"key {path} (encrypted)")
        return
    for _ in range(TRIES):
        passphrase = ask("secret", f"Passphrase for the key {path}: ")
        if not passphrase:
            return
        try:
            key = keys.load(path, passphrase)
        except Exception as error:  # a wrong passphrase: ValueError or cryptography's own, depending on the version
            log.info("the key %s was not decrypted: %s", path, type(error).__name__)
            continue
        attempt.keyring.keep_key(path, key)
        yield from keys.with_certificates(attempt.config, path, key)
        return
    attempt.tried.append(f"key {path} (wrong passphrase)")


# --- people's answers ---------------------------------------------------------------------------------------------


def _interactive(attempt: _Attempt) -> None:
    """Keyboard-interactive: passwords and one-time codes; answers are never kept."""
    for _ in range(TRIES):
        if not attempt.may("keyboard-interactive"):
            return
        if attempt.credentials.ask is None and attempt.keyring.password(attempt.config) is None:
            attempt.needs_prompt = True
            return
        dialogue = _Dialogue(attempt)
        taken = False
        try:
            taken = attempt.try_one(
                "keyboard-interactive",
                lambda: attempt.transport.auth_interactive(attempt.config.user, dialogue.answer),  # noqa: B023
            )
        finally:
            if attempt.failure is not None:
                raise attempt.failure
        if taken or dialogue.asked == 0 or attempt.credentials.ask is None:
            return


class _Dialogue:
    """Answers the server's questions: from the user's terminal or, without one, with the kept password."""

    def __init__(self, attempt: _Attempt) -> None:
        self._attempt = attempt
        self.asked = 0

    def answer(self, title: str, instructions: str, prompts: list[tuple[str, bool]]) -> list[str]:
        """Answer one round of questions; called in paramiko's thread."""
        head = "\n".join(part.strip() for part in (title, instructions) if part.strip())
        answers = []
        for text, echo in prompts:
            self.asked += 1
            answers.append(self._one(f"{head}\n{text}" if head else text, echo=echo))
        return answers

    def _one(self, text: str, *, echo: bool) -> str:
        attempt = self._attempt
        ask = attempt.credentials.ask
        if ask is None:
            # A kept password answers the one question for a password; codes cannot be answered.
            kept = attempt.keyring.password(attempt.config)
            if kept is not None and self.asked == 1 and not echo and "assword" in text:
                return kept
            attempt.needs_prompt = True
            return ""
        if attempt.failure is not None:
            return ""
        try:
            # As ssh does (sshconnect2.c): otherwise a host could imitate our question for a key's passphrase.
            who = f"({attempt.config.user}@{attempt.config.alias}) "
            return ask("text" if echo else "secret", "\n".join(who + line for line in text.split("\n")))
        except BaseException as error:
            # `_interactive` raises it, because this is paramiko's thread. Nothing more is sent: an empty answer would
            # count as a wrong password on the host.
            attempt.failure = error
            attempt.transport.close()
            return ""


def _password(attempt: _Attempt) -> None:
    config, ask = attempt.config, attempt.credentials.ask

    def send(password: str) -> bool:
        # fallback=False: keyboard-interactive was tried before, on its own.
        return attempt.try_one(
            "password", lambda: attempt.transport.auth_password(config.user, password, fallback=False)
        )

    kept = attempt.keyring.password(config)
    if kept is not None and attempt.may("password"):
        if send(kept):
            return
        attempt.keyring.keep_password(config, None)
    for _ in range(TRIES):
        if not attempt.may("password"):
            return
        if ask is None:
            attempt.needs_prompt = True
            return
        password = ask("secret", f"{config.user}@{config.alias}'s password: ")
        if not password:
            return
        if send(password):
            keep = ask("confirm", "Keep this password in the daemon's memory until it stops, for reconnecting?")
            if keep.lower() in {"y", "yes"}:
                attempt.keyring.keep_password(config, password)
            return
