"""paramiko's Transport with what a long-lived link needs: channels without waiting, a heartbeat, its end.

Over 300 lines because it is one class: paramiko's Transport is extended by inheritance only.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Any

import paramiko
from paramiko.common import (
    MSG_CHANNEL_DATA,
    MSG_CHANNEL_EXTENDED_DATA,
    MSG_USERAUTH_FAILURE,
    cMSG_CHANNEL_OPEN,
    cMSG_GLOBAL_REQUEST,
)
from paramiko.message import Message

from jupyman.model.endpoint import LOOPBACK, Target
from jupyman.ssh.channels import self_check
from jupyman.ssh.channels.mux import ChannelMux
from jupyman.ssh.io import loop as loops
from jupyman.ssh.io.tcp_info import Acknowledgements
from jupyman.ssh.wire import algorithms, compat
from jupyman.ssh.wire.compat import Incoming
from jupyman.ssh.wire.paramiko_packets import ParamikoPacketSender

log = logging.getLogger(__name__)

Done = Callable[[paramiko.Channel | None, Exception | None], None]

# Downloads over a long line are capped by window / round trip; 16 MiB carries 320 MB/s at 50 ms.
WINDOW = 16 * 1024 * 1024
PACKET = 32768
# What a call raises when the connection has ended, or the server refuses.
BROKEN = (OSError, EOFError, paramiko.SSHException)
CHANNEL_TIMEOUT = 15.0  # seconds; paramiko's own default is an hour
_LOOK = 0.5  # seconds between looks at acknowledgements while `ping` waits
_PARAMIKO: Any = paramiko.Transport  # its stubs leave the table out
_HANDLERS = _PARAMIKO._channel_handler_table  # noqa: SLF001 - the only way to what feeds a channel


class _Opening(threading.Event):
    """Replaces the event that paramiko sets when a channel opens, and calls back instead.

    It also keeps the channel alive: paramiko's own table of channels has weak references.
    """

    def __init__(self, transport: Transport, channel: paramiko.Channel, done: Done) -> None:
        super().__init__()
        self._transport = transport
        self._channel: paramiko.Channel | None = channel
        self._done = done

    def set(self) -> None:
        """The server has answered, or the connection has ended; in the transport's thread."""
        channel, self._channel = self._channel, None
        if channel is None:
            return
        transport = self._transport
        if channel.active and not channel.closed and transport.active:
            self._done(channel, None)
            return
        # This thread has just stored a refusal here. It is taken out, or it would look like the reason of a later end.
        error, transport.saved_exception = transport.saved_exception, None
        self._done(None, error or paramiko.SSHException("the connection ended"))


def _bounded(feed: Callable[[Any, Message], None]) -> Callable[[Any, Message], None]:
    """Enforce the window that the server was given: paramiko keeps whatever comes until it is read."""

    def take(channel: Any, message: Message) -> None:
        feed(channel, message)
        if len(channel.in_buffer) + len(channel.in_stderr_buffer) > WINDOW:
            raise paramiko.SSHException("the server sent more than the window allows")

    return take


class _Seen(dict[int, bool]):
    """Replaces paramiko's record of all channels there ever were, by which it ignores late messages for them.

    The numbers ascend, so the highest is enough; the record of some weeks would take a hundred megabytes.
    """

    highest = -1

    def __setitem__(self, number: int, seen: bool) -> None:
        self.highest = max(self.highest, number)

    def __contains__(self, number: object) -> bool:
        return isinstance(number, int) and 0 <= number <= self.highest


class Transport(paramiko.Transport):
    """One SSH connection.

    Args:
        sock: connected, with TCP_NODELAY.

    Attributes:
        disconnect_text: of the server's DISCONNECT message; None if there was none.
        disconnect_code: its reason (RFC 4253, section 11.1).
        refused: the server refused a credential.
    """

    # What paramiko's own open_channel and global_request use, and its type stubs leave out.
    active: bool
    auth_handler: Any
    initial_kex_done: bool
    server_extensions: dict[str, Any]
    _expected_packet: tuple[int, ...]
    _handler_table: dict[int, Any]
    _failure: Exception | None = None
    channel_events: dict[int, threading.Event]
    completion_event: threading.Event | None
    _channels: Any
    _next_channel: Callable[[], int]
    _channel_handler_table: Any = _HANDLERS | {
        kind: _bounded(_HANDLERS[kind]) for kind in (MSG_CHANNEL_DATA, MSG_CHANNEL_EXTENDED_DATA)
    }

    def __init__(self, sock: Any) -> None:
        chosen: Any = self_check.packetizer()
        super().__init__(sock, default_window_size=WINDOW, packetizer_class=chosen)
        # paramiko's thread closes this one at its end, when the loop may still watch the packetizer's.
        try:
            self.sock = sock.dup()
        except OSError:
            self.packetizer.close()
            raise
        self.channels_seen = _Seen()
        self.set_log_channel("jupyman.paramiko")
        line: Any = self.packetizer  # one of ours
        self._sender = line.sender
        self._loop = line.loop = loops.shared()
        self.channels = ChannelMux(self._sender, self._loop)
        line.router, line.on_room = self.channels, self.channels.resumed
        line.filter = self._filter
        if isinstance(self._sender, ParamikoPacketSender):
            self._sender.transport_send = super()._send_user_message  # type: ignore[misc]  # the stubs leave it out
        self.channel_timeout = CHANNEL_TIMEOUT
        options = self.get_security_options()
        options.ciphers = algorithms.ciphers(options.ciphers)
        options.digests = algorithms.macs(options.digests)
        self.disconnect_text: str | None = None
        self.disconnect_code = 0
        self.refused = False
        self._ended: Callable[[], None] | None = None
        self._end_lock = threading.Lock()
        self._ping_lock = threading.Lock()
        self._acknowledgements = Acknowledgements(line.sender.sock)
        self._acknowledged = 0.0
        self._over = False

    # --- the end ----------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Do paramiko's work until the connection ends, then call back at once."""
        try:
            super().run()
        except Exception as error:  # during paramiko's own cleanup
            self.saved_exception = error
            self.active = False
            self.packetizer.close()
            self.sock.close()
            if self.auth_handler is not None:
                self.auth_handler.abort()
        finally:
            # paramiko leaves these out when we ended the connection.
            for event in list(self.channel_events.values()):
                event.set()
            if self.completion_event is not None:
                self.completion_event.set()
            self.channels.connection_lost()
            with self._end_lock:
                self._over = True
                callback, self._ended = self._ended, None
            if callback is not None:
                self._call(callback)

    def on_end(self, callback: Callable[[], None]) -> None:
        """Call `callback` once, in a thread of its own, when the connection has ended; at once if it has already."""
        with self._end_lock:
            if not self._over:
                self._ended = callback
                return
        self._call(callback)

    @staticmethod
    def _call(callback: Callable[[], None]) -> None:
        # Not in this thread: the callback may close this transport, or wait for a lock whose owner waits for us.
        threading.Thread(target=callback, name="link ended", daemon=True).start()

    @property
    def reason(self) -> str:
        """Why the connection ended, if that is known."""
        if self.disconnect_text is not None:
            return f"the server ended the connection: {self.disconnect_text}"
        error = self.saved_exception
        return (compat.printable(str(error)) if error is not None else "") or "the connection ended"

    @property
    def saved_exception(self) -> Exception | None:
        """Why paramiko's thread ended, or what a waiting caller raises; never an unexpected kind of exception."""
        return self._failure

    @saved_exception.setter
    def saved_exception(self, error: Exception | None) -> None:
        self._failure = compat.foreign(error)

    # --- odd messages -------------------------------------------------------------------------------------------------

    def _filter(self, kind: int, message: Incoming) -> bool:
        """Deal with messages that paramiko cannot; see `compat.Filter`. In the transport's thread."""
        if not self.initial_kex_done:
            return False
        login = self.auth_handler is not None and not self.auth_handler.is_authenticated()
        if login and kind == MSG_USERAUTH_FAILURE and self.auth_handler.auth_method != "none":
            # The last byte is 1 if the credential was accepted and another one is needed (RFC 4252, section 5.1).
            self.refused = self.refused or message.asbytes()[-1:] == b"\0"
        needed = compat.needs(kind, exchanging=bool(self._expected_packet), login=login)
        if needed == "answer":
            self._sender.send(compat.unimplemented(message), wait=False)
        return needed != "paramiko"

    def _parse_disconnect(self, message: Message) -> None:
        self.disconnect_code, self.disconnect_text = compat.disconnect_reason(message)

    def _parse_debug(self, message: Message) -> None:
        """Ignore: it comes here only during the first key exchange, and may be malformed."""

    def _parse_ext_info(self, message: Message) -> None:
        """Store the values as text: paramiko would decode them later, in any thread, and strictly."""
        parent: Any = super()
        parent._parse_ext_info(message)  # noqa: SLF001 - its own, inherited
        self.server_extensions = {
            name: value.decode("utf-8", "replace") for name, value in self.server_extensions.items()
        }

    def close(self) -> None:
        """End the connection at once.

        The reader closes the packetizer's socket, and paramiko's thread its own duplicate: while a thread may use a
        descriptor, that must not become another connection's.
        """
        if self.ident is None:  # never started
            self.packetizer.close()
            self.sock.close()
            self.channels.connection_lost()
        elif self.active:
            self.stop_thread()
            for channel in list(self._channels.values()):
                channel._unlink()  # noqa: SLF001 - as paramiko's own close does

    def _send_user_message(self, data: Message) -> None:
        """Send a message that has to wait during a key exchange: the sender holds it.

        paramiko's own method waits for the exchange, and holds a lock that the exchange needs while the socket is full:
        its thread, which has to finish the exchange, would wait for itself or for us.
        """
        if self.active:
            # With paramiko's own packetizer the sender's thread does the waiting. paramiko's thread never waits; nor
            # does the loop's, in which the garbage collector may close one of paramiko's channels.
            wait = threading.current_thread() is not self and not self._loop.inside
            self._sender.send(data.asbytes(), wait=wait)

    # --- the heartbeat ----------------------------------------------------------------------------------------------

    @property
    def heard(self) -> float:
        """When the last sign of life came (an answer, or anything on a channel), on the monotonic clock."""
        line: Any = self.packetizer  # one of ours
        heard: float = line.heard
        return heard

    @property
    def acknowledged(self) -> float:
        """When the host's kernel last acknowledged what was under way at `ping`, on the monotonic clock; 0: never."""
        if self._acknowledgements.progress():
            self._acknowledged = time.monotonic()
        return self._acknowledged

    def ping(self, timeout: float) -> bool:
        """Send a request that every server must answer.

        paramiko's own keepalive ignores the reply, and its `global_request` has no timeout.

        Args:
            timeout: seconds without a sign of life. On a slow line the request waits behind an upload, in the kernel:
                whatever comes meanwhile, and what the host acknowledges, are signs of life too.

        Returns:
            Whether the reply came; False also when the connection has ended.
        """
        if not self.is_active() or not self._ping_lock.acquire(timeout=timeout):
            return False
        try:
            answered = threading.Event()
            # The reply (a failure: no server knows the name) sets this event; so does a key exchange.
            self.completion_event = answered
            message = Message()
            message.add_byte(cMSG_GLOBAL_REQUEST)
            message.add_string("keepalive@openssh.com")
            message.add_boolean(True)

            asked = time.monotonic()
            self._sender.send(message.asbytes(), wait=False)  # a dead network fills the socket
            self._acknowledgements.begin()
            # The end of the connection sets the event too.
            left, last = timeout, asked
            while not answered.wait(min(_LOOK, left)):
                taken = self.acknowledged
                if self._acknowledgements.under_way:  # else the host has the request, and has to answer it
                    last = max(last, taken)
                left = max(last, self.heard) + timeout - time.monotonic()
                if left <= 0:
                    return False
            return self.is_active()
        finally:
            self._ping_lock.release()

    # --- channels ---------------------------------------------------------------------------------------------------

    def begin_channel(self, target: Target | None, done: Done) -> None:
        """Ask for a channel of paramiko's without waiting: its own `open_channel` needs a thread for each.

        Args:
            target: address as the server sees it, path of a UNIX socket there, or None for a session.
            done: called once, in the transport's thread, with the channel or the error; must not wait.

        Raises:
            SSHException, OSError, EOFError: the connection has ended.
        """
        if not self.active:
            raise paramiko.SSHException("SSH session not active")
        with self.lock:
            number = self._next_channel()
            message = Message()
            message.add_byte(cMSG_CHANNEL_OPEN)
            if target is None:
                message.add_string("session")
            elif isinstance(target, str):
                message.add_string("direct-streamlocal@openssh.com")
            else:
                message.add_string("direct-tcpip")
            message.add_int(number)
            message.add_int(WINDOW)
            message.add_int(PACKET)
            if isinstance(target, str):  # OpenSSH's PROTOCOL, section 2.4
                message.add_string(target)
                message.add_string("")
                message.add_int(0)
            elif target is not None:  # RFC 4254, section 7.2
                message.add_string(target[0])
                message.add_int(target[1])
                message.add_string(LOOPBACK)
                message.add_int(0)
            # From here on as Transport.open_channel does, of which this is the first half.
            channel: Any = paramiko.Channel(number)
            # Before it is in the table: a connection that ends now uses it.
            channel._set_transport(self)  # noqa: SLF001 - see above
            channel._set_window(WINDOW, PACKET)  # noqa: SLF001 - see above
            self._channels.put(number, channel)
            opening = self.channel_events[number] = _Opening(self, channel, done)
            self.channels_seen[number] = True
        self._sender.send(message.asbytes(), wait=False)
        if not self.active:  # it ended meanwhile, and may have looked before we were there
            opening.set()

    def open_channel(
        self,
        kind: str,
        dest_addr: Any = None,
        src_addr: Any = None,  # noqa: ARG002 - paramiko's signature
        window_size: int | None = None,  # noqa: ARG002 - paramiko's signature
        max_packet_size: int | None = None,  # noqa: ARG002 - paramiko's signature
        timeout: float | None = None,
    ) -> paramiko.Channel:
        """Open a channel and wait, as paramiko's method does; but each caller gets its own refusal.

        Raises:
            ChannelException: the server refused.
            SSHException: `timeout` passed, or the connection ended.
        """
        if kind not in {"session", "direct-tcpip"}:
            raise paramiko.SSHException(f"channels of kind {kind} are not supported")
        return self.wait_channel(None if kind == "session" else dest_addr, timeout)

    def wait_channel(self, target: Target | None, timeout: float | None = None) -> paramiko.Channel:
        """Open a channel and wait for it; arguments and errors as `begin_channel` and `open_channel`."""
        answered, mutex, gone = threading.Event(), threading.Lock(), False
        answer: list[paramiko.Channel | Exception] = []

        def done(channel: paramiko.Channel | None, error: Exception | None) -> None:
            with mutex:
                answer.append(channel if channel is not None else error or paramiko.SSHException("refused"))
                late = gone and channel is not None
            answered.set()
            if late and channel is not None:
                threading.Thread(target=channel.close, name="late channel", daemon=True).start()

        self.begin_channel(target, done)
        answered.wait(self.channel_timeout if timeout is None else timeout)
        with mutex:
            gone = not answer
        if gone:
            raise paramiko.SSHException("the server did not answer in time")
        if isinstance(answer[0], Exception):
            raise answer[0]
        return answer[0]
