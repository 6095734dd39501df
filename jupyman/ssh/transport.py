"""paramiko's Transport with what a long-lived link needs: a heartbeat with a deadline, and notice of its end."""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Callable
from typing import Any

import paramiko
from paramiko.common import cMSG_CHANNEL_OPEN, cMSG_GLOBAL_REQUEST
from paramiko.message import Message

# AES-GCM is one call per packet, CTR with HMAC two: 1.5 times the throughput. paramiko lists GCM last.
CIPHERS = ("aes128-gcm@openssh.com", "aes256-gcm@openssh.com")
# Downloads over a long line are capped by window / round trip; 16 MiB carries 320 MB/s at 50 ms.
WINDOW = 16 * 1024 * 1024
# paramiko wakes this often to see whether it was closed; with its own 0.1 s, 100 idle links cost 3.6 % of a core.
READ_TIMEOUT = 5.0
PACKET = 32768


class _Opened(threading.Event):
    """Stands where paramiko keeps the event that an opening channel waits for, and calls back instead."""

    def __init__(
        self,
        transport: Transport,
        number: int,
        done: Callable[[paramiko.Channel | None, Exception | None], None],
    ) -> None:
        super().__init__()
        self._transport = transport
        self._number = number
        self._done = done
        self._told = False

    def set(self) -> None:
        """The server has answered, or the connection has ended."""
        if self._told:
            return
        self._told = True
        channel = self._transport._channels.get(self._number)  # noqa: SLF001 - where open_channel looks, too
        if channel is not None and self._transport.active and not channel.closed:
            self._done(channel, None)
        else:
            # The refusal was stored a moment ago by this very thread.
            self._done(None, self._transport.saved_exception or paramiko.SSHException("the connection ended"))

    def is_set(self) -> bool:
        """Whether it was answered."""
        return self._told


class Transport(paramiko.Transport):
    """One SSH connection.

    Args:
        sock: connected; TCP_NODELAY is set by whoever made it.
    """

    # What paramiko's own open_channel and global_request use, and its type stubs leave out.
    active: bool
    _channels: Any
    _next_channel: Callable[[], int]
    _send_user_message: Callable[[Message], None]

    def __init__(self, sock: Any) -> None:
        super().__init__(sock, default_window_size=WINDOW)
        self.set_log_channel("jupyman.paramiko")
        self.sock.settimeout(READ_TIMEOUT)
        options = self.get_security_options()
        offered = tuple(options.ciphers)
        options.ciphers = (*(c for c in CIPHERS if c in offered), *(c for c in offered if c not in CIPHERS))
        self._ended: Callable[[], None] | None = None
        self._end_lock = threading.Lock()
        self._over = False

    def run(self) -> None:
        """Do paramiko's work until the connection ends, then say so at once."""
        try:
            super().run()
        finally:
            with self._end_lock:
                self._over = True
                callback = self._ended
            if callback is not None:
                callback()

    def on_end(self, callback: Callable[[], None]) -> None:
        """Call `callback` once when the connection has ended; at once if it has already."""
        with self._end_lock:
            self._ended = callback
            over = self._over
        if over:
            callback()

    def ping(self, timeout: float) -> bool:
        """Ask for a reply that every server must give.

        Args:
            timeout: seconds.

        Returns:
            Whether it came. paramiko's own keepalive never looks at the reply, and its `global_request` waits for ever.
        """
        answered = threading.Event()
        # The reply (always a refusal: the name is nobody's) sets this event; so does a rekey, a sign of life too.
        self.completion_event = answered
        message = Message()
        message.add_byte(cMSG_GLOBAL_REQUEST)
        message.add_string("keepalive@openssh.com")
        message.add_boolean(True)

        def send() -> None:
            try:
                self._send_user_message(message)
            except (OSError, EOFError, paramiko.SSHException):
                logging.getLogger(__name__).debug("the heartbeat could not be sent")

        # A dead network fills the socket, and then sending blocks: so not in this thread.
        threading.Thread(target=send, name="heartbeat", daemon=True).start()
        return answered.wait(timeout) and self.is_active()

    def begin_channel(
        self, address: tuple[str, int], done: Callable[[paramiko.Channel | None, Exception | None], None]
    ) -> None:
        """Ask for a direct-tcpip channel without waiting: `open_channel` would hold a thread for each.

        Args:
            address: host and port as the server sees them.
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
            message.add_string("direct-tcpip")
            message.add_int(number)
            message.add_int(WINDOW)
            message.add_int(PACKET)
            message.add_string(address[0])
            message.add_int(address[1])
            message.add_string("127.0.0.1")
            message.add_int(0)
            channel: Any = paramiko.Channel(number)
            self._channels.put(number, channel)
            self.channel_events[number] = _Opened(self, number, done)
            self.channels_seen[number] = True
            channel._set_transport(self)  # noqa: SLF001 - as Transport.open_channel does, of which this is the half
            channel._set_window(WINDOW, PACKET)  # noqa: SLF001 - likewise
        self._send_user_message(message)

    def close(self) -> None:
        """End the connection at once: paramiko's own thread sleeps in recv and is woken by the shutdown."""
        self.active_close()
        super().close()

    def active_close(self) -> None:
        """Wake the reading thread."""
        sock = self.sock
        if isinstance(sock, socket.socket):
            try:
                sock.shutdown(socket.SHUT_RDWR)
            except OSError:  # not connected any more
                return
