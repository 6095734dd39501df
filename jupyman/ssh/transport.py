"""paramiko's Transport with what a long-lived link needs: channels without waiting, a heartbeat, its end."""

from __future__ import annotations

import contextlib
import logging
import socket
import threading
from collections.abc import Callable
from typing import Any

import paramiko
from paramiko.common import MSG_CHANNEL_DATA, MSG_CHANNEL_EXTENDED_DATA, cMSG_CHANNEL_OPEN, cMSG_GLOBAL_REQUEST
from paramiko.message import Message
from paramiko.packet import Packetizer

log = logging.getLogger(__name__)

# ("127.0.0.1", 8888), or the path of a UNIX socket on the host.
Address = tuple[str, int] | str
Done = Callable[[paramiko.Channel | None, Exception | None], None]

# AES-GCM is one call per packet, CTR with HMAC two: 1.5 times the throughput. paramiko lists GCM last.
CIPHERS = ("aes128-gcm@openssh.com", "aes256-gcm@openssh.com")
# Downloads over a long line are capped by window / round trip; 16 MiB carries 320 MB/s at 50 ms.
WINDOW = 16 * 1024 * 1024
PACKET = 32768
# Bytes of one packet, as OpenSSH's PACKET_MAX_SIZE (packet.h). paramiko believes any length, of a stranger too: 4 GiB.
LONGEST = 256 * 1024
# paramiko wakes this often to see whether it was closed; with its own 0.1 s, 100 idle links cost 3.6 % of a core.
READ_TIMEOUT = 5.0
CHANNEL_TIMEOUT = 15.0  # seconds; paramiko's own default is an hour
_PARAMIKO: Any = paramiko.Transport  # its stubs leave the table out
_HANDLERS = _PARAMIKO._channel_handler_table  # noqa: SLF001 - the only way to what a channel is fed by


class _Opening(threading.Event):
    """Stands where paramiko keeps the event that an opening channel waits for, and calls back instead.

    It also keeps the channel alive: paramiko's own table of channels is a weak one.
    """

    def __init__(self, transport: Transport, channel: paramiko.Channel, done: Done) -> None:
        super().__init__()
        self._transport = transport
        self._channel: paramiko.Channel | None = channel
        self._done = done

    def set(self) -> None:
        """The server has answered, or the connection has ended; called by the transport's thread."""
        channel, self._channel = self._channel, None
        if channel is None:
            return
        transport = self._transport
        if channel.active and not channel.closed and transport.active:
            self._done(channel, None)
            return
        # A refusal was stored a moment ago by this very thread. It is taken out: it is not why the link ended later.
        error, transport.saved_exception = transport.saved_exception, None
        self._done(None, error or paramiko.SSHException("the connection ended"))


class _Packets(Packetizer):
    """Reads no packet that is longer than any should be."""

    def read_all(self, n: int, check_rekey: bool = False) -> bytes:
        if n > LONGEST:
            raise paramiko.SSHException(f"the server announces a packet of {n} bytes")
        data: bytes = super().read_all(n, check_rekey)
        return data


def _bounded(feed: Callable[[Any, Message], None]) -> Callable[[Any, Message], None]:
    """Hold the server to the window that it was given: paramiko keeps whatever comes until somebody reads it."""

    def take(channel: Any, message: Message) -> None:
        feed(channel, message)
        if len(channel.in_buffer) + len(channel.in_stderr_buffer) > WINDOW:
            raise paramiko.SSHException("the server sends more than it may")

    return take


class _Seen(dict[int, bool]):
    """Stands where paramiko notes every channel that ever was, so that late words for one are ignored.

    The numbers ascend, so the highest tells; the notes of a link of some weeks would take a hundred megabytes.
    """

    highest = -1

    def __setitem__(self, number: int, seen: bool) -> None:
        self.highest = max(self.highest, number)

    def __contains__(self, number: object) -> bool:
        return isinstance(number, int) and 0 <= number <= self.highest


class Transport(paramiko.Transport):
    """One SSH connection.

    Args:
        sock: connected; TCP_NODELAY was set by whoever made it.
    """

    # What paramiko's own open_channel and global_request use, and its type stubs leave out.
    active: bool
    saved_exception: Exception | None
    channel_events: dict[int, threading.Event]
    completion_event: threading.Event | None
    _channels: Any
    _next_channel: Callable[[], int]
    _send_user_message: Callable[[Message], None]
    _channel_handler_table: Any = _HANDLERS | {
        kind: _bounded(_HANDLERS[kind]) for kind in (MSG_CHANNEL_DATA, MSG_CHANNEL_EXTENDED_DATA)
    }

    def __init__(self, sock: Any) -> None:
        super().__init__(sock, default_window_size=WINDOW)
        self.packetizer = _Packets(sock)
        self.channels_seen = _Seen()
        self.set_log_channel("jupyman.paramiko")
        self.sock.settimeout(READ_TIMEOUT)
        self.channel_timeout = CHANNEL_TIMEOUT
        options = self.get_security_options()
        offered = tuple(options.ciphers)
        options.ciphers = (*(c for c in CIPHERS if c in offered), *(c for c in offered if c not in CIPHERS))
        self.farewell: str | None = None  # what the server said when it ended the connection
        self._ended: Callable[[], None] | None = None
        self._end_lock = threading.Lock()
        self._ping_lock = threading.Lock()
        self._over = False

    # --- the end ----------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Do paramiko's work until the connection ends, then say so at once."""
        try:
            super().run()
        finally:
            # paramiko leaves these out where the end was our own doing.
            for event in list(self.channel_events.values()):
                event.set()
            if self.completion_event is not None:
                self.completion_event.set()
            with self._end_lock:
                self._over = True
                callback, self._ended = self._ended, None
            if callback is not None:
                self._tell(callback)

    def on_end(self, callback: Callable[[], None]) -> None:
        """Call `callback` once, in a thread of its own, when the connection has ended; at once if it has already."""
        with self._end_lock:
            if not self._over:
                self._ended = callback
                return
        self._tell(callback)

    @staticmethod
    def _tell(callback: Callable[[], None]) -> None:
        # Not in this thread: whoever is told may close this transport, or wait for a lock whose owner waits for us.
        threading.Thread(target=callback, name="link ended", daemon=True).start()

    @property
    def reason(self) -> str:
        """Why the connection ended, as far as is known."""
        if self.farewell is not None:
            return f"the server ended the connection: {self.farewell}"
        error = self.saved_exception
        return str(error) if error is not None and str(error) else "the connection ended"

    def _parse_disconnect(self, message: Message) -> None:
        message.get_int()
        self.farewell = "".join(c for c in message.get_text()[:200] if c.isprintable())

    def close(self) -> None:
        """End the connection at once: paramiko's thread sleeps in recv and is woken."""
        with contextlib.suppress(OSError, EOFError, paramiko.SSHException):
            if isinstance(self.sock, socket.socket):
                self.sock.shutdown(socket.SHUT_RDWR)
            else:  # the channel of a jump host
                self.sock.close()
        super().close()

    # --- the heartbeat ----------------------------------------------------------------------------------------------

    def ping(self, timeout: float) -> bool:
        """Ask for a reply that every server must give.

        Args:
            timeout: seconds.

        Returns:
            Whether it came. paramiko's own keepalive never looks at the reply, and its `global_request` waits for ever.
        """
        if not self.is_active() or not self._ping_lock.acquire(timeout=timeout):
            return False
        try:
            answered = threading.Event()
            # The reply (a refusal: the name is nobody's) sets this event; so does a rekey, a sign of life too.
            self.completion_event = answered
            message = Message()
            message.add_byte(cMSG_GLOBAL_REQUEST)
            message.add_string("keepalive@openssh.com")
            message.add_boolean(True)

            def send() -> None:
                try:
                    self._send_user_message(message)
                except (OSError, EOFError, paramiko.SSHException) as error:
                    log.debug("the heartbeat could not be sent: %s", error)

            # A dead network fills the socket, and then sending blocks: so not in this thread.
            threading.Thread(target=send, name="heartbeat", daemon=True).start()
            # The end of the connection sets it, too.
            return answered.wait(timeout) and self.is_active()
        finally:
            self._ping_lock.release()

    # --- channels ---------------------------------------------------------------------------------------------------

    def begin_channel(self, target: Address | None, done: Done) -> None:
        """Ask for a channel without waiting: paramiko's `open_channel` would hold a thread for each.

        Args:
            target: address as the server sees it, path of a UNIX socket there, or None for a session.
            done: called once in the transport's thread, with the channel or the reason; must not wait.

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
                message.add_string("127.0.0.1")
                message.add_int(0)
            # From here on as Transport.open_channel does, of which this is the first half.
            channel: Any = paramiko.Channel(number)
            self._channels.put(number, channel)
            self.channel_events[number] = _Opening(self, channel, done)
            self.channels_seen[number] = True
            channel._set_transport(self)  # noqa: SLF001 - see above
            channel._set_window(WINDOW, PACKET)  # noqa: SLF001 - see above
        self._send_user_message(message)

    def open_channel(
        self,
        kind: str,
        dest_addr: Any = None,
        src_addr: Any = None,  # noqa: ARG002 - paramiko's signature
        window_size: int | None = None,  # noqa: ARG002 - paramiko's signature
        max_packet_size: int | None = None,  # noqa: ARG002 - paramiko's signature
        timeout: float | None = None,
    ) -> paramiko.Channel:
        """Open a channel and wait: as paramiko's, but each caller gets its own refusal.

        Raises:
            ChannelException: the server refused.
            SSHException: `timeout` passed, or the connection ended.
        """
        if kind not in {"session", "direct-tcpip"}:
            raise paramiko.SSHException(f"a channel of kind {kind} is not known here")
        return self.wait_channel(None if kind == "session" else dest_addr, timeout)

    def wait_channel(self, target: Address | None, timeout: float | None = None) -> paramiko.Channel:
        """Open a channel and wait for it; arguments and errors as `begin_channel` and `open_channel`."""
        answered = threading.Event()
        gone = threading.Event()
        answer: list[paramiko.Channel | Exception] = []

        def done(channel: paramiko.Channel | None, error: Exception | None) -> None:
            answer.append(channel if channel is not None else error or paramiko.SSHException("refused"))
            answered.set()
            if channel is not None and gone.is_set():
                threading.Thread(target=channel.close, name="late channel", daemon=True).start()

        self.begin_channel(target, done)
        if not answered.wait(self.channel_timeout if timeout is None else timeout):
            gone.set()
            if not answered.is_set():
                raise paramiko.SSHException("the server did not answer in time")
        if isinstance(answer[0], Exception):
            raise answer[0]
        return answer[0]
