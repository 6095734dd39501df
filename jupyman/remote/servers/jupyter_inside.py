# ruff: noqa: UP006, UP032 - this runs on the host, on Python 3.6 as well
"""Changes of Jupyter that have no setting: larger queues for output, bounded backlogs, no debugger. See docs/adr/0009.

This text precedes jupyter_config.py in the same file, which calls `change_jupyter`. If a version of Jupyter has other
classes, that part stays as Jupyter has it, the log has a line about it, and the server starts. All of it runs in the
server's only thread.

Over 300 lines because it must be one file, and its parts share how messages are read and signed.
"""

import os
import re
import sys
from importlib import import_module
from typing import Any, Callable, List, Optional, Tuple


def _log_line(text: str) -> None:
    """Write a line into the log; a full disk must not stop the server."""
    try:
        sys.stderr.write(text)
        sys.stderr.flush()
    except OSError:
        pass


def _change(what: str, how: "Callable[[], None]") -> None:
    try:
        how()
    except Exception as error:  # noqa: BLE001 - whatever fails, the server must start
        _log_line("jupyman: {} stays as Jupyter has it: {!r}\n".format(what, error))


# ZeroMQ silently drops messages above a socket's high-water mark (1000 at each end): of 15 000 flushed prints a third was
# lost, sometimes with the `idle` that ends the cell. There must be a bound: without one the server's memory grows for as
# long as a cell prints.
_MARK = 200000
# Jupyter keeps messages while a page is away, and those that a page has not received yet, without a bound. Output above
# these bounds is left out. The second must exceed the first, which is sent at once when the page is back.
_AWAY = 32 << 20  # bytes
_UNSENT = 96 << 20
# Merged output is not longer: Jupyter's limit (1 MB/s, over 3 s) drops whole messages.
_TOGETHER = 131072  # characters


def _larger_socket_queues() -> None:
    import zmq
    from jupyter_client.connect import ConnectionFileMixin

    plain = ConnectionFileMixin._create_connected_socket

    def create(self, channel, *args, **kwargs):  # type: ignore[no-untyped-def]
        options = getattr(self.context, "sockopts", None)  # defaults of new sockets of this context
        if channel != "iopub" or options is None or zmq.RCVHWM in options:
            return plain(self, channel, *args, **kwargs)
        options[zmq.RCVHWM] = _MARK  # before it connects: a connection keeps the mark that it began with
        try:
            return plain(self, channel, *args, **kwargs)
        finally:
            del options[zmq.RCVHWM]

    ConnectionFileMixin._create_connected_socket = create  # type: ignore[method-assign]


def _larger_kernel_queues(here: str) -> None:
    # The other end: kernel_config.py raises the mark in all kernels that are ipykernels.
    from jupyter_client.manager import KernelManager

    plain = KernelManager.format_kernel_cmd
    config = os.path.join(here, "kernel_config.py")

    def format_kernel_cmd(self, *args, **kwargs):  # type: ignore[no-untyped-def]
        words = plain(self, *args, **kwargs)
        ours = any(word in ("ipykernel", "ipykernel_launcher") or "ipykernel.kernelapp" in word for word in words)
        other = any(word.startswith("--config") or "extra_config_file" in word for word in words)
        # A second --config would replace the first one.
        return [*words, "--config=" + config] if ours and not other and os.path.exists(config) else words

    KernelManager.format_kernel_cmd = format_kernel_cmd  # type: ignore[method-assign]


_STREAM = re.compile(rb'"msg_type": *"stream"')
_OUTPUT = re.compile(rb'"msg_type": *"(?:stream|display_data|update_display_data)"')
_INFO = re.compile(rb'"msg_type": *"kernel_info_reply"')
_DELIMITER = b"<IDS|MSG>"  # jupyter_client, session.py; then: signature, header, parent, metadata, content, buffers


class _Output:
    """Receives messages for a stream of a kernel's output, and merges prints of a cell that are queued already.

    A server handles some thousand messages per second, a kernel prints more, and so they pile up. Merged they do not:
    nothing is lost, the server's memory stays constant, and `idle` follows soon after the last line. ipykernel itself
    does the same with prints that are not flushed.
    """

    def __init__(self, stream: "Any", session: "Any", watched: bool) -> None:
        self.stream, self.session = stream, session
        self.watched = watched  # the server only watches activity: one print represents all
        self.held = None  # type: Optional[List[bytes]]  # was read already, and must be passed on first
        self.single = False  # nothing is merged
        self.plain, self.on_recv = stream._handle_recv, stream.on_recv
        used = "_flushed _rebuild_io_state _recv_callback _recv_copy _run_callback closed io_loop socket"
        for name in used.split():
            getattr(stream, name)  # before anything is replaced
        stream._handle_recv, stream.on_recv = self.receive, self.listen

    def listen(self, callback: "Any", copy: bool = True) -> None:
        """Replace on_recv."""
        # Jupyter's `nudge` discards messages while it waits for a page's channels.
        self.single = getattr(callback, "__name__", "") == "on_iopub"
        self.on_recv(callback, copy)
        if callback is not None and self.held is not None:
            self.stream.io_loop.add_callback(self.again)

    def again(self) -> None:
        """Receive out of turn."""
        if not self.stream.closed():
            self.receive()
        if not self.stream.closed():
            self.stream._rebuild_io_state()  # ZeroMQ reports messages once: after reading, check for more

    def receive(self) -> None:
        """Replace _handle_recv: pass on the next messages, merged if possible, and the one behind them."""
        if self.stream.closed():
            return
        if self.stream._flushed or not self.stream._recv_callback or not self.stream._recv_copy:
            if self.held is None:
                self.plain()
            elif self.stream._flushed:  # until the loop's next turn
                self.stream.io_loop.add_callback(self.again)
            return
        first, self.held = self.held or self.read(), None
        if first is None:
            return
        try:
            self.stream._run_callback(self.stream._recv_callback, self.gather(first))
            if self.held is not None and not self.stream.closed() and self.stream._recv_callback:
                held, self.held = self.held, None
                self.stream._run_callback(self.stream._recv_callback, held)
        finally:
            if self.held is not None and not self.stream.closed():
                self.stream.io_loop.add_callback(self.again)

    def read(self) -> "Optional[List[bytes]]":
        """Read a message, if there is one."""
        import zmq

        try:
            found = self.stream.socket.recv_multipart(zmq.NOBLOCK)  # type: List[bytes]
        except zmq.Again:
            return None
        return found

    def gather(self, first: "List[bytes]") -> "List[bytes]":
        """Return a message merged with those that follow of the same cell and stream; the first other one is held."""
        if self.single:
            return first
        if self.watched:
            for _ in range(1000):
                if not _prints(first):
                    break
                following = self.read()
                if following is None:
                    break
                if not _prints(following):
                    self.held = following
                    break
            return first
        printed = _printed(first, self.session)
        if printed is None:
            return first
        name, text = printed
        texts, length = [text], len(text)
        at = first.index(_DELIMITER) + 1
        while length < _TOGETHER and len(texts) < 1000:
            following = self.read()
            if following is None:
                break
            # The same topic, and in the message the same parent and metadata.
            same = following[:at] == first[:at] and following[at + 2 : at + 4] == first[at + 2 : at + 4]
            added = _printed(following, self.session) if same else None
            if added is None or added[0] != name or length + len(added[1]) > _TOGETHER:
                self.held = following
                break
            texts.append(added[1])
            length += len(added[1])
        if len(texts) == 1:
            return first
        return _signed(first, at, {"name": name, "text": "".join(texts)}, self.session)


def _signed(message: "List[bytes]", at: int, content: "Any", session: "Any") -> "List[bytes]":
    parts = [*message[at + 1 : at + 4], session.pack(content)]
    return [*message[:at], session.sign(parts), *parts, *message[at + 5 :]]


def _prints(message: "List[bytes]") -> bool:
    at = message.index(_DELIMITER) + 1 if _DELIMITER in message else len(message)
    return len(message) == at + 5 and _STREAM.search(message[at + 1]) is not None


def _printed(message: "List[bytes]", session: "Any") -> "Optional[Tuple[Any, str]]":
    """Return stream and text of a plain print of the kernel, None for any other message."""
    try:
        at = message.index(_DELIMITER) + 1
        if (
            len(message) == at + 5
            and _STREAM.search(message[at + 1])
            and session.sign(message[at + 1 :]) == message[at]
        ):
            content = session.unpack(message[at + 4])
            if set(content) == {"name", "text"} and isinstance(content["text"], str):
                content["text"].encode("utf-8")  # a lone surrogate cannot be encoded: pass the message on unchanged
                return content["name"], content["text"]
    except Exception:  # noqa: BLE001, S110 - an unusual message is left to Jupyter
        pass
    return None


def _each_stream(method: str, change: "Callable[[Any, Any, bool], Any]") -> None:
    """Call `change(stream, session, watched)` for each stream that `method` of a kernel's manager makes.

    A page's streams have an identity; the one by which the server itself watches a kernel (busy, idle, last activity) has
    none.
    """
    from jupyter_client.ioloop import manager

    def wrap(kind: "Any") -> None:
        plain = getattr(kind, method)

        def connect(self, *args, **kwargs):  # type: ignore[no-untyped-def]
            stream = plain(self, *args, **kwargs)
            _change(method, lambda: change(stream, self.session, not args and not kwargs) and None)
            return stream

        setattr(kind, method, connect)

    for name in ("IOLoopKernelManager", "AsyncIOLoopKernelManager"):
        if hasattr(manager, name):
            wrap(getattr(manager, name))


class _Bound:
    """Leaves out output while the backlog exceeds a bound, with a note in the cell for each gap; all else is passed on."""

    def __init__(self, session: "Any", most: int, where: str) -> None:
        self.session, self.most, self.where = session, most, where
        self.gap = False

    def passed(self, message: "List[bytes]", waiting: int) -> "Optional[List[bytes]]":
        """Return the message, a note in its place, or None.

        Args:
            message: from the kernel.
            waiting: size of the backlog, bytes.
        """
        at = message.index(_DELIMITER) + 1 if _DELIMITER in message[:-1] else 0
        if not at or len(message) < at + 5 or not _OUTPUT.search(message[at + 1]):
            return message
        # A gap ends when the backlog has halved: so there are few gaps, not one at every other message.
        if waiting < (self.most // 2 if self.gap else self.most):
            self.gap = False
            return message
        if self.gap:
            return None
        self.gap = True
        header = self.session.unpack(message[at + 1])
        header["msg_type"] = "stream"
        text = "jupyman: output is left out here: more than {} MiB waited {}\n".format(self.most >> 20, self.where)
        parts = [*message[:at], b"", self.session.pack(header), message[at + 2], self.session.pack({}), b""]
        return _signed(parts, at, {"name": "stderr", "text": text}, self.session)


def _bounded_waiting(classic: bool) -> None:
    # The backlog while no page is open.
    package = "notebook" if classic else "jupyter_server"
    kind = import_module(package + ".services.kernels.kernelmanager").MappingKernelManager
    plain = kind.start_buffering

    def collected(stream: "Any", session: "Any") -> None:
        keep, bound = stream._recv_callback, _Bound(session, _AWAY, "for this page")
        waiting = [0]

        def collect(message: "List[bytes]") -> None:
            passed = bound.passed(message, waiting[0])
            if passed is not None:
                waiting[0] += sum(map(len, passed))
                keep(passed)

        stream.on_recv(collect)

    def start_buffering(self, kernel_id, session_key, channels):  # type: ignore[no-untyped-def]
        plain(self, kernel_id, session_key, channels)
        stream = channels.get("iopub")
        if stream is not None and not stream.closed():
            _change("the backlog of a page that is away", lambda: collected(stream, self.get_kernel(kernel_id).session))

    kind.start_buffering = start_buffering


def _bounded_sending(classic: bool, two: bool) -> None:
    # The backlog of a page that reads more slowly than the kernel prints, or not at all.
    if classic:
        kind, method = import_module("notebook.services.kernels.handlers").ZMQChannelsHandler, "_on_zmq_reply"
    elif two:
        module = import_module("jupyter_server.services.kernels.connection.channels")
        kind, method = module.ZMQChannelsWebsocketConnection, "handle_outgoing_message"
    else:
        kind, method = import_module("jupyter_server.services.kernels.handlers").ZMQChannelsHandler, "_on_zmq_reply"
    plain = getattr(kind, method)

    def send(self, stream, message):  # type: ignore[no-untyped-def]
        if "iopub" in (stream, getattr(stream, "channel", None)):
            bound = self.__dict__.setdefault("_jupyman_bound", _Bound(self.session, _UNSENT, "for this page"))
            try:
                unsent = len(getattr(self, "websocket_handler", self).ws_connection.stream._write_buffer)
            except (AttributeError, TypeError):  # closed, or another version
                unsent = 0
            message = bound.passed(message, unsent)
        if message is not None:
            plain(self, stream, message)

    setattr(kind, method, send)


def _no_debugger(stream: "Any", session: "Any", _: bool) -> None:
    # Otherwise JupyterLab shows the debugger's button, and waits for its answer.
    plain = stream.on_recv

    def without_debugger(message: "List[bytes]") -> "List[bytes]":
        try:
            at = message.index(_DELIMITER) + 1
            if _INFO.search(message[at + 1]) and session.sign(message[at + 1 : at + 5]) == message[at]:
                content = session.unpack(message[at + 4])
                if "debugger" in content.get("supported_features", ()):
                    content["supported_features"] = [one for one in content["supported_features"] if one != "debugger"]
                    return _signed(message, at, content, session)
        except Exception:  # noqa: BLE001, S110 - an unusual message is left to Jupyter
            pass
        return message

    def on_recv(callback, copy=True):  # type: ignore[no-untyped-def]
        plain(callback if callback is None or not copy else lambda message: callback(without_debugger(message)), copy)

    stream.on_recv = on_recv


def _no_debugger_in_specs() -> None:
    from jupyter_client.kernelspec import KernelSpec

    plain = KernelSpec.to_dict

    def to_dict(self):  # type: ignore[no-untyped-def]
        spec = plain(self)
        metadata = spec.get("metadata") or {}
        if "debugger" in metadata:
            spec["metadata"] = {**metadata, "debugger": False}
        return spec

    KernelSpec.to_dict = to_dict  # type: ignore[method-assign]


def change_jupyter(here: str, *, classic: bool, two: bool, debugger: bool) -> None:
    """Change Jupyter.

    Args:
        here: the session's directory, with kernel_config.py.
        classic: it is notebook 6.
        two: it is jupyter_server 2 or later.
        debugger: whether kernels can be debugged.
    """
    _change("the queue of sockets", _larger_socket_queues)
    _change("the queue of kernels", lambda: _larger_kernel_queues(here))
    _change("merging of output", lambda: _each_stream("connect_iopub", _Output))
    _change("the backlog of a page that is away", lambda: _bounded_waiting(classic))
    _change("the backlog of an open page", lambda: _bounded_sending(classic, two))
    if not debugger:
        _change("the debugger in replies of kernels", lambda: _each_stream("connect_shell", _no_debugger))
        _change("the debugger in replies of kernels", lambda: _each_stream("connect_control", _no_debugger))
        _change("the debugger in kernel specs", _no_debugger_in_specs)
