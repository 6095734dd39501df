# ruff: noqa: UP006, UP032, UP035 - this runs on the host, on Python 3.6 as well
"""The configuration of a server that jupyman starts: one file on top of the user's own, so what stands here wins.

It lies in the session's directory (0700) beside `token`, `endpoint` and `kernel_config.py`. The token is read here, so it
is on no command line and in no environment variable that kernels would inherit. Runs on Python 3.6+, with notebook 6,
jupyter_server 1 and 2, JupyterLab 3 and 4.

Over 400 lines because Jupyter takes one file, and everything in it must be there when the file is read.
"""

import base64
import fcntl
import hashlib
import hmac
import logging
import os
import re
import signal
import stat
import sys
from importlib import import_module
from typing import Any, Callable, Dict, List, Optional, Set, Tuple

from jupyter_core.paths import jupyter_config_path
from traitlets.config.loader import ConfigFileNotFound, JSONFileConfigLoader, PyFileConfigLoader

c = get_config()  # type: ignore[name-defined]  # noqa: F821 - traitlets puts it there

_classic = "notebook.notebookapp" in sys.modules  # notebook 6
_two = False  # jupyter_server 2 and later
if "jupyter_server.serverapp" in sys.modules:
    import jupyter_server

    _two = int(jupyter_server.__version__.split(".")[0]) >= 2

_here = os.path.dirname(os.path.abspath(__file__))
with open(os.path.join(_here, "token")) as _file:
    _token = _file.read().strip()
with open(os.path.join(_here, "endpoint")) as _file:
    _endpoint = _file.read().strip()  # a port, or the path of a UNIX socket
if not _token:
    sys.exit("jupyman: the token file is empty")
_tokens = [_token]  # all that it has had, the present one last

# Jupyter blots the token out of what it logs, but not of requests that fail.
_make_record = logging.getLogRecordFactory()


def _discreet(*args, **kwargs):  # type: ignore[no-untyped-def]
    record = _make_record(*args, **kwargs)
    try:
        message = record.getMessage()
    except Exception:  # noqa: BLE001 - a faulty call of somebody's: logging itself complains of it
        return record
    for secret in _tokens:
        if secret in message:
            message = message.replace(secret, "***")
            record.msg, record.args = message, None
    return record


logging.setLogRecordFactory(_discreet)


# --- a token that can change while the server runs ---------------------------------------------------------------------
# jupyman replaces the token file (renew.sh) where another user may know the token. Each request looks whether that has
# happened before it is judged, so the first request after the change already needs the new token. With the token the
# key that signs login cookies changes. Websockets that are open stay open: they were let in before.


def _read_private(path: str) -> str:
    """The content of a small file that nobody but us can read or write; OSError where it is not such a file."""
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    with os.fdopen(handle, "rb") as file:
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid() or status.st_nlink != 1:
            raise OSError("{} is not a regular file of ours with one name".format(path))
        if status.st_mode & 0o077:
            raise OSError("{} can be read or written by others".format(path))
        return file.read(4096).decode("ascii")


def _signing_key(path: str, fresh: bool) -> bytes:
    """The key that Jupyter makes of its cookie_secret file (_default_cookie_secret in serverapp.py and notebookapp.py).

    With `fresh`, or where there is no file, a new one is made first. Where it cannot be written, the key holds until
    the server ends.
    """
    text = None  # type: Optional[bytes]
    if not fresh:
        try:
            text = _read_private(path).encode("ascii")
        except (OSError, ValueError):
            text = None
    if not text:
        text = base64.encodebytes(os.urandom(32))
        new = "{}.new.{}".format(path, os.getpid())
        try:
            if os.path.lexists(new):
                os.unlink(new)
            handle = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            with os.fdopen(handle, "wb") as file:
                file.write(text)
            os.rename(new, path)
        except OSError as error:
            sys.stderr.write("jupyman: {} cannot be written: {}\n".format(path, error))
    return hmac.new(text, digestmod=hashlib.sha256).digest()


class _TokenFile:
    """What the token file said when it was last read."""

    def __init__(self, folder: str) -> None:
        self._path = os.path.join(folder, "token")
        self._cookies = os.path.join(folder, "cookie_secret")
        self._stamp = None  # type: Optional[Tuple[int, ...]]
        self._keyed = False  # cookies are signed by the key in our own file

    def changed(self, settings: Dict[str, Any]) -> bool:
        """Read the file where it is another one than before, and let the settings of the web application follow.

        A file that is missing or is not as it should be changes nothing.

        Args:
            settings: tornado's.

        Returns:
            Whether the token is a new one, the last of `_tokens`.
        """
        try:
            status = os.lstat(self._path)
        except OSError:
            return False
        stamp = (status.st_ino, status.st_mtime_ns, status.st_ctime_ns, status.st_size)
        if stamp == self._stamp:
            return False
        self._stamp = stamp
        try:
            token = _read_private(self._path)
            if not re.match(r"[0-9a-f]{48}\Z", token):
                raise ValueError("the token file does not hold a token")
        except (OSError, ValueError) as error:
            sys.stderr.write("jupyman: the token was not read again: {}\n".format(error))
            return False
        new = token != _tokens[-1]
        if new or not self._keyed:
            # The first time too: a cookie_secret in the user's own configuration must not outlive a change.
            settings["cookie_secret"] = _signing_key(self._cookies, new)
            self._keyed = True
        if new:
            _tokens.append(token)
            settings["token"] = token
            page = settings.get("page_config_data")  # JupyterLab hands it to its pages (labapp.py)
            if isinstance(page, dict) and page.get("token"):
                page["token"] = token
        return new


_token_file = _TokenFile(_here)


def _rewrite(app: Any) -> None:
    """Write the runtime files again, which name the token (`jupyter server list`); nothing of ours reads it there."""
    try:
        app.write_server_info_file()
        app.write_browser_open_file()
    except Exception as error:  # noqa: BLE001 - requests must not fail for it
        sys.stderr.write("jupyman: the runtime file was not written again: {!r}\n".format(error))


if _two:
    from jupyter_server.auth.identity import PasswordIdentityProvider

    class JupymanIdentityProvider(PasswordIdentityProvider):
        """Jupyter's own, with a token that may change."""

        def get_user(self, handler: Any) -> Any:
            """Look at the token file before the request is judged."""
            if _token_file.changed(handler.settings):
                self.token = _tokens[-1]
                _rewrite(self.parent)
            return super().get_user(handler)

else:
    if _classic:
        from notebook.auth.login import LoginHandler as _LoginHandler  # type: ignore[import-not-found]
        from notebook.notebookapp import NotebookApp as _RunningApp  # type: ignore[import-not-found]
    else:
        from jupyter_server.auth.login import LoginHandler as _LoginHandler  # jupyter_server 1
        from jupyter_server.serverapp import ServerApp as _RunningApp

    class JupymanLoginHandler(_LoginHandler):  # type: ignore[misc]
        """Jupyter's own, with a token that may change."""

        @classmethod
        def get_user(cls, handler: Any) -> Any:
            """Look at the token file before the request is judged."""
            if _token_file.changed(handler.settings):
                app = _RunningApp.instance()
                app.token = _tokens[-1]
                _rewrite(app)
            return super().get_user(handler)


_ours = {  # type: Dict[str, Any]
    "ip": "127.0.0.1",
    "port_retries": 0,
    "base_url": "/",
    "certfile": "",
    "keyfile": "",
    "client_ca": "",
    "token": _token,
    "password": "",
    "password_required": False,
    "open_browser": False,
    "allow_root": os.getuid() == 0,
    "allow_remote_access": False,
    "disable_check_xsrf": False,
    "cookie_secret_file": os.path.join(_here, "cookie_secret"),  # a restarted server knows the browser's cookie again
    "notebook_dir" if _classic else "root_dir": os.getcwd(),
}
if _two:
    _ours["identity_provider_class"] = JupymanIdentityProvider
else:
    _ours["login_handler_class"] = JupymanLoginHandler
if _endpoint.startswith("/"):
    # Jupyter refuses a socket beside a port other than its own default.
    _ours.update({"sock": _endpoint, "sock_mode": "0600", "port": 8888})
else:
    _ours.update({"sock": "", "port": int(_endpoint)})
# With --config Jupyter leaves out the user's own file of that kind: it is read here, in Jupyter's order (traitlets,
# Application._load_config_files), so that what the user set holds where it does not contradict ours. notebook_shim
# moves NotebookApp.*, LabApp.* and the like to ServerApp, so ours must stand in each section where the user's stands;
# not in others, or each line would be complained of in the log.
_name = "jupyter_notebook_config" if _classic else "jupyter_server_config"
_clashes = set()  # type: Set[Tuple[str, str]]
_allowed = []  # type: List[str]  # what the user allows clients to send to kernels; nothing said: all
for _base in ("jupyter_config", "jupyter_lab_config", "jupyter_notebook_config", "jupyter_server_config"):
    for _folder in reversed(jupyter_config_path()):
        _py = PyFileConfigLoader(_base + ".py", path=_folder)
        for _loader in (_py, JSONFileConfigLoader(_base + ".json", path=_folder)):
            try:
                _loaded = _loader.load_config()
            except ConfigFileNotFound:
                continue
            except Exception as _error:  # noqa: BLE001 - Jupyter too goes on without a file that it cannot read
                sys.stderr.write("jupyman: {} in {} was left out: {!r}\n".format(_base, _folder, _error))
                continue
            for _section, _values in _loaded.items():
                if _section.endswith("App"):
                    _clashes.update((_section, _key) for _key in set(_values) & set(_ours))
                if _section in ("MappingKernelManager", "AsyncMappingKernelManager"):
                    _allowed = list(_values.get("allowed_message_types", _allowed))
            if _base == _name:
                c.merge(_loaded)
for _section, _key in _clashes:
    c[_section][_key] = _ours[_key]

_app = c.NotebookApp if _classic else c.ServerApp  # notebook 6 reads NotebookApp, later ones ServerApp
for _key in _ours:
    # jupyter_server 2 reads these three from the identity provider, and complains of the old place.
    if not _two or _key not in {"token", "password", "password_required"}:
        _app[_key] = _ours[_key]
if _two:
    for _section in ("IdentityProvider", "PasswordIdentityProvider"):
        c[_section].token = _token
    c.PasswordIdentityProvider.hashed_password = ""
    c.PasswordIdentityProvider.password_required = False
# Milliseconds. jupyter_server closes a healthy websocket if both are equal, so the timeout is more than twice the interval.
_app.tornado_settings.update({"ws_ping_interval": 10000, "ws_ping_timeout": 30000})

_LONG = 64 * 1024  # bytes behind which a ping and its answer may wait for seconds, on a slow line
_STOCK = 90000  # ms that jupyter_server itself waits for the answer (base/websocket.py)


def _mend_pings() -> None:
    """Change in three points how Jupyter tells from its pings that a websocket is dead.

    A ping waits behind a long message that the server sends, and its answer behind one that the browser sends: then
    Jupyter's own patience holds. What is on its way need not be in this process any more, so what was sent since the last
    answer counts. It looks once in an interval, a few milliseconds early or late, and would decide by chance about an
    answer that is due at that moment: half an interval is added. And it closes a dead websocket by a handshake, which
    takes five seconds (tornado/websocket.py) in which all output is lost: the connection is closed at once, and output
    is kept from then on.
    """
    modules = ("notebook.base.zmqhandlers",)  # type: Tuple[str, ...]  # notebook 6
    if not _classic:  # jupyter_server 2, and 1
        modules = ("jupyter_server.base.websocket", "jupyter_server.base.zmqhandlers")
    mixin = None  # type: Any
    for name in modules:
        try:
            mixin = import_module(name).WebSocketMixin
            break
        except ImportError:
            pass
    _on_pong, _send_ping = mixin.on_pong, mixin.send_ping

    def stream_of(handler: Any) -> Any:
        return getattr(getattr(handler, "ws_connection", None), "stream", None)

    def ping_timeout(self: Any) -> Any:
        stream = stream_of(self)
        sent = getattr(stream, "_total_write_index", 0) - getattr(self, "jupyman_answered", 0)
        coming = getattr(stream, "_read_buffer_size", 0)
        if sent > _LONG or coming > _LONG:
            return _STOCK
        return self.settings["ws_ping_timeout"] + self.settings["ws_ping_interval"] / 2

    def on_pong(self: Any, data: Any) -> Any:
        self.jupyman_answered = getattr(stream_of(self), "_total_write_index", 0)
        return _on_pong(self, data)

    def send_ping(self: Any) -> None:
        connection = self.ws_connection
        _send_ping(self)
        if connection is not None and self.ws_connection is None:
            connection._abort()

    mixin.ping_timeout = property(ping_timeout)
    mixin.on_pong = on_pong
    mixin.send_ping = send_ping


try:
    _mend_pings()
except Exception as _error:  # noqa: BLE001 - another Jupyter than we know: it works without
    sys.stderr.write("jupyman: websockets are pinged as Jupyter does it: {!r}\n".format(_error))

# systemd-tmpfiles leaves a directory alone while somebody holds this lock (tmpfiles.d(5), "Age"): the sockets and
# connection files of a server that runs for weeks must not be tidied away.
_lock = os.open(os.environ["JUPYTER_RUNTIME_DIR"], os.O_RDONLY)
try:
    fcntl.flock(_lock, fcntl.LOCK_SH)
except OSError as _error:
    sys.stderr.write("jupyman: no lock on {}: {}\n".format(os.environ["JUPYTER_RUNTIME_DIR"], _error))

# With TCP any user of the host can read the cells and their outputs.
for _section in ("ConnectionFileMixin", "KernelManager", "AsyncKernelManager", "IOLoopKernelManager"):
    c[_section].transport = "ipc"
for _section in ("AsyncIOLoopKernelManager", "ServerKernelManager"):
    c[_section].transport = "ipc"
_kernel = ""  # jupyman: default kernel
if _kernel:
    for _section in ("MultiKernelManager", "MappingKernelManager", "AsyncMappingKernelManager"):
        c[_section].default_kernel_name = _kernel

# --- the debugger ---------------------------------------------------------------------------------------------------

# debugpy, once asked, listens on a TCP port of loopback and lets in whoever connects: every account of the host could
# run code as this user. The launch script writes True here where nobody else has an account, or the user wants it.
_debugger = False  # jupyman: debugger
# Every request and reply that a client may send: jupyter_client's messaging.rst (5.5), ipykernel's own (usage, subshells)
# and ipyparallel's; all but debug_request.
_MESSAGES = """
    execute_request inspect_request complete_request history_request is_complete_request connect_request
    comm_info_request kernel_info_request shutdown_request interrupt_request input_reply comm_open comm_msg comm_close
    create_subshell_request delete_subshell_request list_subshell_request usage_request
    apply_request abort_request clear_request
"""
if not _debugger:
    _left = [_kind for _kind in _allowed if _kind != "debug_request"] or _MESSAGES.split()
    for _section in ("MappingKernelManager", "AsyncMappingKernelManager"):
        c[_section].allowed_message_types = _left


# --- inside Jupyter -------------------------------------------------------------------------------------------------
# What no setting of Jupyter's reaches is changed in its classes. Where these are built otherwise (older, newer), that
# part stays as Jupyter has it, and the log says so.


def _change(what: str, how: "Callable[[], None]") -> None:
    try:
        how()
    except Exception as error:  # noqa: BLE001 - whatever it is: the server starts
        sys.stderr.write("jupyman: {} as Jupyter has it: {!r}\n".format(what, error))


# ZeroMQ drops what exceeds a socket's mark (1000 messages at each end) without a word: of 15 000 flushed prints a
# third was lost, sometimes with the `idle` that ends the cell. A bound must be: without one the server's memory grows
# for as long as a cell prints.
_MARK = 200000
# Jupyter keeps what comes while a page is away, and what it does not take yet, without any bound. Of output, more than
# this is left out. The second must have room for all of the first, which is sent at once when the page is back.
_AWAY = 32 << 20  # bytes
_UNSENT = 96 << 20
# One message of output that was put together is not longer: Jupyter's limit (1 MB/s, over 3 s) drops whole messages.
_TOGETHER = 131072  # characters


def _roomy_sockets() -> None:
    import zmq
    from jupyter_client.connect import ConnectionFileMixin

    plain = ConnectionFileMixin._create_connected_socket

    def create(self, channel, *args, **kwargs):  # type: ignore[no-untyped-def]
        options = getattr(self.context, "sockopts", None)  # what new sockets of this context begin with
        if channel != "iopub" or options is None or zmq.RCVHWM in options:
            return plain(self, channel, *args, **kwargs)
        options[zmq.RCVHWM] = _MARK  # before it connects: the mark of a connection is that of its beginning
        try:
            return plain(self, channel, *args, **kwargs)
        finally:
            del options[zmq.RCVHWM]

    ConnectionFileMixin._create_connected_socket = create  # type: ignore[method-assign]


def _roomy_kernels() -> None:
    # The other end: kernel_config.py raises the mark in kernels that are ipykernels, by whatever spec.
    from jupyter_client.manager import KernelManager

    plain = KernelManager.format_kernel_cmd
    config = os.path.join(_here, "kernel_config.py")

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
    """Receives for a stream of a kernel's output; what a cell printed and what waits already becomes one message.

    A server handles some thousand messages in a second, a kernel prints more, and so they pile up. Put together they
    do not: nothing is lost, the server's memory stays, and `idle` comes soon after the last line. ipykernel itself does
    the same with prints that are not flushed.
    """

    def __init__(self, stream: "Any", session: "Any", watched: bool) -> None:
        self.stream, self.session = stream, session
        self.watched = watched  # only for what kind of messages come: one of those that print stands for all
        self.held = None  # type: Optional[List[bytes]]  # was read, and is to be passed on before all others
        self.plain, self.on_recv = stream._handle_recv, stream.on_recv
        for used in ("_flushed", "_recv_callback", "_recv_copy", "_run_callback", "closed", "io_loop", "socket"):
            getattr(stream, used)  # before anything is replaced
        stream._handle_recv, stream.on_recv = self.receive, self.listen

    def listen(self, callback: "Any", copy: bool = True) -> None:
        """Stand for on_recv."""
        self.on_recv(callback, copy)
        if callback is not None and self.held is not None:
            self.stream.io_loop.add_callback(self.receive)

    def receive(self) -> None:
        """Stand for _handle_recv: the next messages, put together where they can be, and the one behind them."""
        if self.stream.closed():
            return
        if self.stream._flushed or not self.stream._recv_callback or not self.stream._recv_copy:
            if self.held is None:
                self.plain()
            elif self.stream._flushed:  # until the loop's next turn
                self.stream.io_loop.add_callback(self.receive)
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
                self.stream.io_loop.add_callback(self.receive)

    def read(self) -> "Optional[List[bytes]]":
        """Read a message, if there is one."""
        import zmq

        try:
            found = self.stream.socket.recv_multipart(zmq.NOBLOCK)  # type: List[bytes]
        except zmq.Again:
            return None
        return found

    def gather(self, first: "List[bytes]") -> "List[bytes]":
        """Return it with what follows of the same cell and stream; the next one that cannot be added is held."""
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
    """Return stream and text of a message that says nothing else, and is from the kernel; else None."""
    try:
        at = message.index(_DELIMITER) + 1
        if (
            len(message) == at + 5
            and _STREAM.search(message[at + 1])
            and session.sign(message[at + 1 :]) == message[at]
        ):
            content = session.unpack(message[at + 4])
            if set(content) == {"name", "text"} and isinstance(content["text"], str):
                return content["name"], content["text"]
    except Exception:  # noqa: BLE001, S110 - an odd message is Jupyter's to judge
        pass
    return None


def _each_stream(method: str, change: "Callable[[Any, Any, bool], Any]") -> None:
    """Call `change(stream, session, watched)` for each stream that `method` of a kernel's manager makes.

    A page's streams have an identity; that by which the server itself watches a kernel (busy, idle, last activity) has none.
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
    """Leaves out output while more than a bound waits, and says so in the cell, once for each gap; all else goes on."""

    def __init__(self, session: "Any", most: int, where: str) -> None:
        self.session, self.most, self.where = session, most, where
        self.gap = False

    def passed(self, message: "List[bytes]", waiting: int) -> "Optional[List[bytes]]":
        """Return the message, what stands for it, or None.

        Args:
            message: as it comes from the kernel.
            waiting: bytes.
        """
        at = message.index(_DELIMITER) + 1 if _DELIMITER in message[:-1] else 0
        if not at or len(message) < at + 5 or not _OUTPUT.search(message[at + 1]):
            return message
        # A gap ends when half of what waited has gone: there are a few, and not one at every other message.
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


def _bounded_waiting() -> None:
    # While no page is there.
    package = "notebook" if _classic else "jupyter_server"
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
            _change("what waits for a page", lambda: collected(stream, self.get_kernel(kernel_id).session))

    kind.start_buffering = start_buffering


def _bounded_sending() -> None:
    # While the page is there, and reads more slowly than the kernel prints, or not at all.
    if _classic:
        kind, method = import_module("notebook.services.kernels.handlers").ZMQChannelsHandler, "_on_zmq_reply"
    elif _two:
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
            except (AttributeError, TypeError):  # closed; or built otherwise
                unsent = 0
            message = bound.passed(message, unsent)
        if message is not None:
            plain(self, stream, message)

    setattr(kind, method, send)


def _no_debugger(stream: "Any", session: "Any", _: bool) -> None:
    # Or JupyterLab shows its button, and hangs for its answer.
    plain = stream.on_recv

    def told(message: "List[bytes]") -> "List[bytes]":
        try:
            at = message.index(_DELIMITER) + 1
            if _INFO.search(message[at + 1]) and session.sign(message[at + 1 : at + 5]) == message[at]:
                content = session.unpack(message[at + 4])
                if "debugger" in content.get("supported_features", ()):
                    content["supported_features"] = [one for one in content["supported_features"] if one != "debugger"]
                    return _signed(message, at, content, session)
        except Exception:  # noqa: BLE001, S110 - an odd message is Jupyter's to judge
            pass
        return message

    def on_recv(callback, copy=True):  # type: ignore[no-untyped-def]
        plain(callback if callback is None or not copy else lambda message: callback(told(message)), copy)

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


_change("the mark of sockets", _roomy_sockets)
_change("the mark of kernels", _roomy_kernels)
_change("output, message by message,", lambda: _each_stream("connect_iopub", _Output))
_change("what waits for a page", _bounded_waiting)
_change("what a page does not take", _bounded_sending)
if not _debugger:
    _change("what kernels say of a debugger", lambda: _each_stream("connect_shell", _no_debugger))
    _change("what kernels say of a debugger", lambda: _each_stream("connect_control", _no_debugger))
    _change("what specs say of a debugger", _no_debugger_in_specs)


# nohup and the starting shell's `&` leave these ignored, and kernels and terminals would inherit it: no Ctrl-C in a
# terminal, no hang-up of its jobs. A handler, unlike "ignored", does not pass through exec.
signal.signal(signal.SIGHUP, lambda *_: None)
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
if signal.getsignal(signal.SIGQUIT) == signal.SIG_IGN:
    signal.signal(signal.SIGQUIT, signal.SIG_DFL)
