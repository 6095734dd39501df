"""The forwarder: listeners on this computer that lead to addresses on a host, through whatever link is there.

One selector loop per host owns listeners, connections and channels; nothing polls. Listeners outlive links: while none
is attached, new connections wait up to HOLD seconds for one.
"""

from __future__ import annotations

import contextlib
import logging
import selectors
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

import paramiko

from jupyman.ssh.link import Bell, Link
from jupyman.ssh.localport import bind

log = logging.getLogger(__name__)

Address = tuple[str, int]

HOLD = 20.0  # seconds that a connection waits for a link or for its server's proof
OPEN_TIMEOUT = 15.0  # seconds for a channel
DRAIN = 2.0  # seconds that the rest of a finished connection is read and dropped, so that no reset overtakes our data
CHUNK = 262144
TURN = 1024 * 1024  # bytes of one connection before the next one has its turn


class Listener:
    """A local port that leads to an address on the host. Made by `Forwarder.listen`."""

    def __init__(self, forwarder: Forwarder, sock: socket.socket, target: Address, holder_text: str) -> None:
        self.sock = sock
        self.local_port: int = sock.getsockname()[1]
        self.target = target
        self.holder_text = holder_text
        self.closed = False
        self.open = 0
        self.bytes_in = 0
        self.bytes_out = 0
        self.refused = 0
        self._forwarder = forwarder
        self._ready = True

    @property
    def ready(self) -> bool:
        """Whether connections are carried; while not, they wait."""
        return self._ready

    @ready.setter
    def ready(self, ready: bool) -> None:
        self._ready = ready
        self._forwarder.wake()

    def retarget(self, target: Address) -> None:
        """Lead new connections elsewhere."""
        self.target = target

    def stats(self) -> tuple[int, int, int]:
        """Return open connections, bytes that came from the host, bytes that went to it."""
        return self.open, self.bytes_in, self.bytes_out

    def close(self) -> None:
        """Stop listening and end its connections; returns when the port is free."""
        self._forwarder.remove(self)


class _Connection:
    """One local connection and its channel."""

    def __init__(self, listener: Listener, sock: socket.socket) -> None:
        self.listener = listener
        self.sock = sock
        self.channel: paramiko.Channel | None = None
        self.deadline = time.monotonic() + HOLD  # while it waits or opens; afterwards while it drains
        self.opening = False
        self.down = bytearray()  # from the host, not yet taken by the local program
        self.up = memoryview(b"")  # from the local program, not yet taken by the channel's window
        self.local_eof = False
        self.eof_sent = False
        self.down_done = False
        self.draining = False
        self.queued = False
        self.dead = False
        self.mask = 0


class Forwarder:
    """All listeners of one host.

    Args:
        name: the host, for the thread's name.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._selector = selectors.DefaultSelector()
        self._hear, self._call = socket.socketpair()
        self._hear.setblocking(False)
        self._call.setblocking(False)
        self._selector.register(self._hear, selectors.EVENT_READ, None)
        self._inbox: deque[Callable[[], None]] = deque()
        self._rung = False
        self._lock = threading.Lock()
        self._link: Link | None = None
        self._listeners: set[Listener] = set()
        self._connections: set[_Connection] = set()
        self._waiting: set[_Connection] = set()  # for a link, a proof, a channel, or for the end of a drain
        self._closing = False
        self._thread: threading.Thread | None = None

    # --- from other threads -----------------------------------------------------------------------------------------

    def listen(self, local_port: int, target: Address, *, strict: bool = False, address: str = "127.0.0.1") -> Listener:
        """Bind a local port.

        Args:
            local_port: the preferred one.
            target: address and port on the host.
            strict: this port or none; else the next free one.
            address: local address.

        Returns:
            The listener; its `holder_text` says who holds the preferred port where another was taken.

        Raises:
            PortInUse: no port can be bound.
        """
        sock, text = bind(local_port, strict=strict, address=address)
        listener = Listener(self, sock, target, text)
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name=f"forwards {self.name}", daemon=True)
                self._thread.start()
        self._post(lambda: self._add(listener))
        return listener

    def attach(self, link: Link) -> None:
        """Carry connections over this link from now on; those that wait are carried too."""
        self._post(lambda: self._attached(link))

    def detach(self) -> None:
        """The link is gone: end its connections; listeners stay and new connections wait."""
        self._post(self._detached)

    def wake(self) -> None:
        """Look again at the connections that wait."""
        self._post(self._retry)

    def remove(self, listener: Listener) -> None:
        """Close a listener; returns when its port is free."""
        done = threading.Event()

        def removal() -> None:
            self._remove(listener)
            done.set()

        self._post(removal)
        done.wait(5)

    def close(self) -> None:
        """Close everything and end the loop."""
        self._closing = True
        self._post(lambda: None)
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(5)

    def _post(self, action: Callable[[], None]) -> None:
        self._inbox.append(action)
        with self._lock:
            if self._rung:
                return
            self._rung = True
        with contextlib.suppress(OSError):  # full: it is awake anyway; closed: nobody is there to wake
            self._call.send(b"x")

    # --- the loop -----------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        while not self._closing:
            for key, mask in self._selector.select(self._patience()):
                owner = key.data
                try:
                    if owner is None:
                        self._hear.recv(4096)
                    elif isinstance(owner, Listener):
                        self._accept(owner)
                    else:
                        if mask & selectors.EVENT_WRITE:
                            self._downlink(owner)
                        if mask & selectors.EVENT_READ and not owner.dead:
                            self._uplink(owner)
                except Exception:
                    log.exception("forwarding for %s", self.name)
                    if isinstance(owner, _Connection):
                        self._end(owner)
            with self._lock:
                self._rung = False
            for _ in range(len(self._inbox)):
                action = self._inbox.popleft()
                try:
                    action()
                except Exception:
                    log.exception("forwarding for %s", self.name)
            self._expire()
            if self._inbox:
                self._post(lambda: None)
        for listener in list(self._listeners):
            self._remove(listener)
        self._selector.close()
        self._hear.close()
        self._call.close()

    def _patience(self) -> float | None:
        if self._inbox:
            return 0.0
        if not self._waiting:
            return None
        return max(0.0, min(connection.deadline for connection in self._waiting) - time.monotonic())

    def _expire(self) -> None:
        if self._waiting:
            instant = time.monotonic()
            for connection in [one for one in self._waiting if one.deadline <= instant]:
                self._end(connection)

    def _add(self, listener: Listener) -> None:
        if not listener.closed:
            self._listeners.add(listener)
            self._selector.register(listener.sock, selectors.EVENT_READ, listener)

    def _remove(self, listener: Listener) -> None:
        if listener.closed:
            return
        listener.closed = True
        if listener in self._listeners:
            self._listeners.discard(listener)
            self._selector.unregister(listener.sock)
        listener.sock.close()
        for connection in [one for one in self._connections if one.listener is listener]:
            self._end(connection)

    def _attached(self, link: Link) -> None:
        self._link = link
        self._retry()

    def _detached(self) -> None:
        self._link = None
        for connection in list(self._connections):
            if connection.channel is not None or connection.opening:
                self._end(connection)

    def _retry(self) -> None:
        for connection in [one for one in self._waiting if not one.opening and one.channel is None]:
            self._start(connection)

    def _accept(self, listener: Listener) -> None:
        for _ in range(64):  # then the connections that are there have their turn
            try:
                sock, _ = listener.sock.accept()
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:  # no file descriptor left: the connection stays in the backlog
                log.warning("%s: a connection could not be accepted: %s", self.name, error)
                return
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection = _Connection(listener, sock)
            listener.open += 1
            self._connections.add(connection)
            self._waiting.add(connection)
            self._start(connection)

    def _start(self, connection: _Connection) -> None:
        """Ask for a channel, where a link is there and the server's identity is proven."""
        link = self._link
        if link is None or not connection.listener.ready:
            return
        connection.opening = True
        connection.deadline = time.monotonic() + OPEN_TIMEOUT

        def done(channel: paramiko.Channel | None, error: Exception | None) -> None:
            self._post(lambda: self._opened(connection, channel, error))

        try:
            link.transport.begin_channel(connection.listener.target, done)
        except (paramiko.SSHException, EOFError, OSError):
            connection.opening = False  # the link is ending; the next one may come in time
            connection.deadline = time.monotonic() + HOLD

    def _opened(self, connection: _Connection, channel: paramiko.Channel | None, error: Exception | None) -> None:
        connection.opening = False
        if connection.dead:
            if channel is not None:
                self._close_channel(channel)
            return
        if channel is None:
            connection.listener.refused += 1
            log.info("%s: %s refused: %s", self.name, connection.listener.target, error)
            self._end(connection)
            return
        self._waiting.discard(connection)
        connection.channel = channel
        channel.settimeout(0.0)
        bell = Bell(lambda: self._ring(connection))
        channel.out_buffer_cv = _Window(channel.lock, bell.set)
        channel.in_buffer.set_event(bell)
        self._watch(connection, selectors.EVENT_READ)
        self._downlink(connection)

    def _ring(self, connection: _Connection) -> None:
        """Something came for a connection, or its window grew; called by the transport's thread."""
        if not connection.queued:
            connection.queued = True
            self._post(lambda: self._answer(connection))

    def _answer(self, connection: _Connection) -> None:
        connection.queued = False
        if connection.dead:
            return
        if connection.up:
            self._push(connection)
        if not connection.dead:
            self._downlink(connection)

    # --- bytes --------------------------------------------------------------------------------------------------------

    def _uplink(self, connection: _Connection) -> None:
        """The local program has sent something, or is done."""
        try:
            data = connection.sock.recv(CHUNK)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            self._end(connection)
            return
        if connection.draining or connection.channel is None:
            if not data:
                self._end(connection)
            return
        if not data:
            connection.local_eof = True
            self._watch(connection, connection.mask & ~selectors.EVENT_READ)
            self._send_eof(connection)
            return
        connection.up = memoryview(data)
        self._push(connection)

    def _push(self, connection: _Connection) -> None:
        """Give the channel what its window takes; while it takes nothing, the local program is not read."""
        channel = connection.channel
        assert channel is not None  # noqa: S101 - only called with one
        try:
            while connection.up:
                count = channel.send(bytes(connection.up[: CHUNK]))
                if count == 0:
                    self._drain(connection)
                    return
                connection.listener.bytes_out += count
                connection.up = connection.up[count:]
        except TimeoutError:
            self._watch(connection, connection.mask & ~selectors.EVENT_READ)
            return
        except (OSError, EOFError, paramiko.SSHException):
            # The host's side is closed; what it sent before may still have to be delivered.
            connection.up = memoryview(b"")
            self._drain(connection)
            return
        if connection.local_eof:
            self._send_eof(connection)
        else:
            self._watch(connection, connection.mask | selectors.EVENT_READ)

    def _send_eof(self, connection: _Connection) -> None:
        channel = connection.channel
        if connection.eof_sent or connection.up or channel is None:
            return
        connection.eof_sent = True
        with contextlib.suppress(OSError, EOFError, paramiko.SSHException):
            channel.shutdown_write()
        self._finish(connection)

    def _downlink(self, connection: _Connection) -> None:
        """Deliver what came from the host; the window is credited only for what the local program has taken."""
        channel = connection.channel
        if channel is None or connection.down_done:
            return
        turn = 0
        try:
            while True:
                if not connection.down:
                    if not channel.recv_ready():
                        break
                    connection.down += channel.recv(CHUNK)
                count = connection.sock.send(connection.down)
                del connection.down[:count]
                connection.listener.bytes_in += count
                turn += count
                if turn >= TURN and not connection.down:
                    self._ring(connection)
                    return
        except (BlockingIOError, InterruptedError):
            self._watch(connection, connection.mask | selectors.EVENT_WRITE)
            return
        except (OSError, EOFError, paramiko.SSHException):
            self._end(connection)
            return
        self._watch(connection, connection.mask & ~selectors.EVENT_WRITE)
        if (channel.eof_received or channel.closed) and not channel.recv_ready():
            connection.down_done = True
            with contextlib.suppress(OSError):
                connection.sock.shutdown(socket.SHUT_WR)
            self._finish(connection)

    def _finish(self, connection: _Connection) -> None:
        channel = connection.channel
        if connection.down_done and connection.eof_sent:
            self._end(connection)
        elif connection.down_done and channel is not None and channel.closed:
            self._drain(connection)

    def _drain(self, connection: _Connection) -> None:
        """The host takes nothing more. Read and drop for a moment: closing with unread bytes would send a reset."""
        if not connection.down_done:
            self._downlink(connection)
        if connection.dead or connection.draining:
            return
        connection.draining = True
        connection.deadline = time.monotonic() + DRAIN
        self._waiting.add(connection)
        self._watch(connection, connection.mask | selectors.EVENT_READ)

    def _watch(self, connection: _Connection, mask: int) -> None:
        if connection.dead or mask == connection.mask:
            return
        if connection.mask == 0:
            self._selector.register(connection.sock, mask, connection)
        elif mask == 0:
            self._selector.unregister(connection.sock)
        else:
            self._selector.modify(connection.sock, mask, connection)
        connection.mask = mask

    def _end(self, connection: _Connection) -> None:
        if connection.dead:
            return
        self._watch(connection, 0)
        connection.dead = True
        connection.listener.open -= 1
        self._connections.discard(connection)
        self._waiting.discard(connection)
        connection.sock.close()
        connection.down.clear()
        if connection.channel is not None:
            self._close_channel(connection.channel)

    @staticmethod
    def _close_channel(channel: paramiko.Channel) -> None:
        with contextlib.suppress(OSError, EOFError, paramiko.SSHException):
            channel.close()


class _Window(threading.Condition):
    """Stands where paramiko announces that a channel's window grew, and rings as well."""

    def __init__(self, lock: Any, ring: Callable[[], None]) -> None:
        super().__init__(lock)
        self._ring = ring

    def notify_all(self) -> None:
        """Wake paramiko's own waiters, and the loop."""
        super().notify_all()
        self._ring()
