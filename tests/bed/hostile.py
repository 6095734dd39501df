"""An SSH server that sends odd messages at a chosen moment: paramiko's in server mode, with its answers replaced."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import paramiko
from paramiko.auth_handler import AuthHandler
from paramiko.common import AUTH_SUCCESSFUL, MSG_CHANNEL_REQUEST, MSG_UNIMPLEMENTED, OPEN_SUCCEEDED
from paramiko.message import Message

# The moments: the greeting; before and after KEXINIT; once both have sent it; after the first keys; at the service
# request; at an authentication request; after a successful one; at a channel's opening; at a channel request.
Moment = Literal["greeting", "kexinit", "exchange", "agreed", "newkeys", "service", "auth", "after", "open", "request"]
MOMENTS: tuple[Moment, ...] = ("kexinit", "exchange", "newkeys", "service", "auth", "after", "open", "request")
Then = Literal["go on", "close", "wait"]


@dataclass(frozen=True)
class Oddity:
    """Odd messages, and when they are sent.

    Attributes:
        moment: sent the first time that it comes.
        said: messages, each from its type on; at the greeting, plain bytes before it or in its place.
        then: what follows: what an honest server does, the end of the connection, or silence.
    """

    moment: Moment
    said: tuple[bytes, ...]
    then: Then = "close"


def text(value: bytes) -> bytes:
    """Encode a string (RFC 4251, section 5)."""
    return len(value).to_bytes(4, "big") + value


class _Willing(paramiko.ServerInterface):
    """Accepts every key, and opens every channel."""

    def get_allowed_auths(self, username: str) -> str:
        del username
        return "publickey"

    def check_auth_publickey(self, username: str, key: paramiko.PKey) -> int:
        del username, key
        return AUTH_SUCCESSFUL

    def check_channel_request(self, kind: str, chanid: int) -> int:
        del kind, chanid
        return OPEN_SUCCEEDED

    def check_channel_direct_tcpip_request(
        self, chanid: int, origin: tuple[str, int], destination: tuple[str, int]
    ) -> int:
        del chanid, origin, destination
        return OPEN_SUCCEEDED

    def check_channel_exec_request(self, channel: paramiko.Channel, command: bytes) -> bool:
        del channel, command
        return True


_Theirs: Any = paramiko.Transport  # its stubs leave out what is replaced here


class Hostile(_Theirs):  # type: ignore[misc]  # likewise
    """One connection, seen from the server.

    Args:
        sock: connected.
        key: of the host.
        oddity: what it sends; None: it is honest.

    Attributes:
        sent: sequence numbers of the odd messages.
        unimplemented: those to which the client answered UNIMPLEMENTED.
    """

    def __init__(self, sock: socket.socket, key: paramiko.PKey, oddity: Oddity | None = None) -> None:
        super().__init__(sock)
        self.auth_handler: Any
        self.sent: list[int] = []
        self.unimplemented: list[int] = []
        self._oddity = oddity
        self._silent = False
        self.add_server_key(key)
        self.on_unimplemented: Callable[[int], object] = self.unimplemented.append
        self._read = self.packetizer.read_message
        self.packetizer.read_message = self._heard
        table: dict[int, Any] = _Theirs._channel_handler_table
        asked = table[MSG_CHANNEL_REQUEST]
        self._channel_handler_table = table | {
            MSG_CHANNEL_REQUEST: lambda channel, message: self._at("request") and asked(channel, message)
        }
        if oddity is not None and oddity.moment == "greeting":
            before, write = b"".join(oddity.said), self.packetizer.write_all
            honest = oddity.then == "go on"
            self.packetizer.write_all = lambda out: write(
                before + (out if honest else b"") if out.startswith(b"SSH-") else out
            )
        self.start_server(event=threading.Event(), server=_Willing())

    def _heard(self) -> tuple[int, Message]:
        """Read a message; paramiko's server fails on UNIMPLEMENTED during a key exchange, when it is allowed."""
        while True:
            kind, message = self._read()
            if kind != MSG_UNIMPLEMENTED:
                return kind, message
            self.on_unimplemented(message.get_int())

    def say(self, *messages: bytes) -> None:
        """Send messages, in the calling thread."""
        for message in messages:
            self.sent.append(self.packetizer._Packetizer__sequence_number_out)
            self.packetizer.send_message(Message(message))

    def say_in_exchange(self, messages: tuple[bytes, ...]) -> None:
        """Send messages in the next exchange, when both have sent KEXINIT.

        In the thread that makes the new keys: they cannot come into use between two messages.
        """
        self._oddity = Oddity("agreed", messages, "go on")

    def _at(self, moment: Moment) -> bool:
        """Send what is due at a moment; return whether to go on."""
        if self._silent:
            return False
        if self._oddity is None or self._oddity.moment != moment:
            return True
        oddity, self._oddity = self._oddity, None
        with contextlib.suppress(OSError, EOFError):
            self.say(*oddity.said)
        if oddity.then == "close":
            self.active = False
            self.packetizer.close()
        self._silent = oddity.then != "go on"
        return not self._silent

    def _send_kex_init(self) -> None:
        if self._at("kexinit"):
            super()._send_kex_init()
            self._at("exchange")

    def _parse_kex_init(self, message: Message) -> None:
        super()._parse_kex_init(message)
        self._at("agreed")

    def _parse_newkeys(self, message: Message) -> None:
        super()._parse_newkeys(message)
        if not isinstance(self.auth_handler, _Auth):
            self.auth_handler = _Auth(self)
            self._at("newkeys")

    def _ensure_authed(self, kind: int, message: Message) -> None:
        """Accept all messages: paramiko's own check fails when a client reports an unknown request too early."""

    def _parse_channel_open(self, message: Message) -> None:
        if self._at("open"):
            super()._parse_channel_open(message)


_TheirAuth: Any = AuthHandler


class _Auth(_TheirAuth):  # type: ignore[misc]  # as above
    """The authentication part."""

    def _parse_service_request(self, message: Message) -> None:
        if self.transport._at("service"):
            super()._parse_service_request(message)

    def _parse_userauth_request(self, message: Message) -> None:
        if self.transport._at("auth"):
            super()._parse_userauth_request(message)

    def _send_auth_result(self, username: str, method: str, result: int) -> None:
        super()._send_auth_result(username, method, result)
        if result == AUTH_SUCCESSFUL:
            self.transport._at("after")

    # The tables of the base class name its own methods.
    @property
    def _handler_table(self) -> dict[int, Any]:
        return {5: self._parse_service_request, 50: self._parse_userauth_request}


class Gateway:
    """A port that leads to an honest sshd or to `Hostile`; made by `gateway`.

    Attributes:
        oddity: for connections from now on; None: they lead to the sshd.
        connections: the hostile ones, oldest first.
    """

    def __init__(self, target: tuple[str, int] | None, key: Path) -> None:
        self.oddity: Oddity | None = None
        self.connections: list[Hostile] = []
        self._target = target
        self._key = paramiko.Ed25519Key.from_private_key_file(str(key))
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port: int = self._listener.getsockname()[1]
        self._sockets: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                if self.oddity is not None or self._target is None:
                    self.connections.append(Hostile(connection, self._key, self.oddity))
                    continue
                other = socket.create_connection(self._target)
                self._sockets += [connection, other]
                threading.Thread(target=_carry, args=(connection, other), daemon=True).start()

    def cut(self) -> None:
        """End all connections to the sshd."""
        sockets, self._sockets = self._sockets, []
        for one in sockets:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """End all."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()
        for connection in self.connections:
            connection.close()


def _carry(one: socket.socket, other: socket.socket) -> None:
    back = threading.Thread(target=_pump, args=(other, one), daemon=True)
    back.start()
    with one, other:
        _pump(one, other)
        back.join()


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)
    for one in (source, sink):
        with contextlib.suppress(OSError):
            one.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def gateway(key: Path, target: tuple[str, int] | None = None) -> Iterator[Gateway]:
    """Listen on a port of this computer.

    Args:
        key: the host's, private, ed25519.
        target: the honest sshd; None: `Hostile` serves all connections.
    """
    made = Gateway(target, key)
    try:
        yield made
    finally:
        made.close()
