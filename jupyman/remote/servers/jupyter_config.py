# ruff: noqa: UP006, UP032, UP035 - this runs on the host, on Python 3.6 as well
"""The configuration of a server that jupyman starts; its settings override the user's own.

It is in the session's directory (0700) beside `token`, `endpoint` and `kernel_config.py`. The token is read here, so that
it is on no command line and in no environment variable, which kernels would inherit. Runs on Python 3.6+, with notebook
6, jupyter_server 1 and 2, JupyterLab 3 and 4. The text of jupyter_inside.py precedes it in the same file.

Over 300 lines because Jupyter reads its configuration from one file.
"""

import base64
import contextlib
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
_log = _log_line  # type: ignore[name-defined]  # noqa: F821 - jupyter_inside.py precedes this text

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
_tokens = [_token]  # all tokens of this server, the present one last

# Jupyter redacts the token in its log, except in requests that fail.
_make_record = logging.getLogRecordFactory()


def _redacting(*args, **kwargs):  # type: ignore[no-untyped-def]
    record = _make_record(*args, **kwargs)
    try:
        message = record.getMessage()
    except Exception:  # noqa: BLE001 - a wrong logging call: logging itself reports it
        return record
    for secret in _tokens:
        if secret in message:
            message = message.replace(secret, "***")
            record.msg, record.args = message, None
    return record


logging.setLogRecordFactory(_redacting)


# --- a token that can change while the server runs ---------------------------------------------------------------------
# jupyman replaces the token file (renew.sh) when another user may know the token. The file is checked before each request
# is authenticated, so the first request after the change needs the new token. The key that signs login cookies changes
# with it. Open websockets stay open.


def _read_private(path: str) -> str:
    """Return the content of a small file that only we can read or write; OSError if it is not such a file."""
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    with os.fdopen(handle, "rb") as file:
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid() or status.st_nlink != 1:
            raise OSError("{} is not a regular file of ours with one name".format(path))
        if status.st_mode & 0o077:
            raise OSError("{} can be read or written by others".format(path))
        return file.read(4096).decode("ascii")


def _signing_key(path: str, fresh: bool) -> bytes:
    """Return the key that Jupyter makes of its cookie_secret file (_default_cookie_secret, serverapp.py, notebookapp.py).

    With `fresh`, or without a file, a new one is made first. If it cannot be written, the key is used until the server
    ends.
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
            with contextlib.suppress(OSError):
                os.unlink(new)
            _log("jupyman: {} cannot be written: {}\n".format(path, error))
    return hmac.new(text, digestmod=hashlib.sha256).digest()


class _TokenFile:
    """The token file, and what it contained when it was last read."""

    def __init__(self, folder: str) -> None:
        self._path = os.path.join(folder, "token")
        self._cookies = os.path.join(folder, "cookie_secret")
        self._stamp = None  # type: Optional[Tuple[int, ...]]
        self._keyed = False  # cookies are signed by the key in our own file

    def changed(self, settings: Dict[str, Any]) -> bool:
        """Read the file if it changed, and update the settings of the web application.

        A file that is missing or not valid changes nothing.

        Args:
            settings: tornado's.

        Returns:
            Whether the token, the last of `_tokens`, is new.
        """
        try:
            status = os.lstat(self._path)
        except OSError:
            return False
        stamp = (status.st_ino, status.st_mtime_ns, status.st_ctime_ns, status.st_size)
        if stamp == self._stamp:
            return False
        try:
            token = _read_private(self._path)
            self._stamp = stamp
            if not re.match(r"[0-9a-f]{48}\Z", token):
                raise ValueError("the token file does not hold a token")
        except (OSError, ValueError) as error:  # an OSError may be temporary: the next request reads again
            _log("jupyman: the token was not read again: {}\n".format(error))
            return False
        new = token != _tokens[-1]
        if new or not self._keyed:
            # At the first time, too: a cookie_secret in the user's own configuration must not outlive a change.
            settings["cookie_secret"] = _signing_key(self._cookies, new)
            self._keyed = True
        if new:
            _tokens.append(token)
            settings["token"] = token
            page = settings.get("page_config_data")  # JupyterLab passes it to its pages (labapp.py)
            if isinstance(page, dict) and page.get("token"):
                page["token"] = token
        return new


_token_file = _TokenFile(_here)


def _rewrite(app: Any) -> None:
    """Write the runtime files again, which contain the token (for `jupyter server list`; jupyman does not read it there)."""
    try:
        app.write_server_info_file()
        app.write_browser_open_file()
    except Exception as error:  # noqa: BLE001 - requests must not fail because of it
        _log("jupyman: the runtime file was not written again: {!r}\n".format(error))


if _two:
    from jupyter_server.auth.identity import PasswordIdentityProvider

    class JupymanIdentityProvider(PasswordIdentityProvider):
        """Jupyter's own class, with a token that can change."""

        def get_user(self, handler: Any) -> Any:
            """Check the token file before the request is authenticated."""
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
        """Jupyter's own class, with a token that can change."""

        @classmethod
        def get_user(cls, handler: Any) -> Any:
            """Check the token file before the request is authenticated."""
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
    "allow_password_change": False,  # a password set with a known token would outlive that token
    "open_browser": False,
    "allow_root": os.getuid() == 0,
    "allow_remote_access": False,
    "disable_check_xsrf": False,
    "cookie_secret_file": os.path.join(_here, "cookie_secret"),  # after a restart the browser's cookie is still valid
    "notebook_dir" if _classic else "root_dir": os.getcwd(),
}
if _two:
    _ours["identity_provider_class"] = JupymanIdentityProvider
else:
    _ours["login_handler_class"] = JupymanLoginHandler
if _endpoint.startswith("/"):
    # With a socket, Jupyter refuses a port other than its default.
    _ours.update({"sock": _endpoint, "sock_mode": "0600", "port": 8888})
else:
    _ours.update({"sock": "", "port": int(_endpoint)})
# With --config Jupyter does not read the user's own file of that kind. It is read here, in Jupyter's order (traitlets,
# Application._load_config_files), so that the user's settings apply unless they contradict ours. notebook_shim moves
# NotebookApp.*, LabApp.* and so on to ServerApp, so ours must be set in each section in which the user's are; not in
# others, or each line would cause a warning in the log.
_name = "jupyter_notebook_config" if _classic else "jupyter_server_config"
_clashes = set()  # type: Set[Tuple[str, str]]
_allowed = []  # type: List[str]  # what the user allows clients to send to kernels; empty: all
for _base in ("jupyter_config", "jupyter_lab_config", "jupyter_notebook_config", "jupyter_server_config"):
    for _folder in reversed(jupyter_config_path()):
        _py = PyFileConfigLoader(_base + ".py", path=_folder)
        for _loader in (_py, JSONFileConfigLoader(_base + ".json", path=_folder)):
            try:
                _loaded = _loader.load_config()
            except ConfigFileNotFound:
                continue
            except Exception as _error:  # noqa: BLE001 - Jupyter also ignores a file that it cannot read
                _log("jupyman: {} in {} was ignored: {!r}\n".format(_base, _folder, _error))
                continue
            for _section, _values in _loaded.items():
                if _section.endswith("App"):
                    _clashes.update((_section, _key) for _key in set(_values) & set(_ours))
                if _section in ("MappingKernelManager", "AsyncMappingKernelManager"):
                    _user_value = _values.get("allowed_message_types", _allowed)
                    if hasattr(_user_value, "get_value"):  # from .append and .extend (traitlets, LazyConfigValue)
                        _user_value = _user_value.get_value([])
                    _allowed = [str(_kind) for _kind in _user_value or ()]
            if _base == _name:
                c.merge(_loaded)
for _section, _key in _clashes:
    c[_section][_key] = _ours[_key]

_app = c.NotebookApp if _classic else c.ServerApp  # notebook 6 reads NotebookApp, later ones ServerApp
for _key in _ours:
    # jupyter_server 2 reads these from the identity provider, and warns about the old place.
    if not _two or _key not in {"token", "password", "password_required", "allow_password_change"}:
        _app[_key] = _ours[_key]
if _two:
    for _section in ("IdentityProvider", "PasswordIdentityProvider"):
        c[_section].token = _token
    c.PasswordIdentityProvider.hashed_password = ""
    c.PasswordIdentityProvider.password_required = False
    c.PasswordIdentityProvider.allow_password_change = False
# Milliseconds. jupyter_server closes a healthy websocket if both are equal, so the timeout is more than twice the interval.
_app.tornado_settings.update({"ws_ping_interval": 10000, "ws_ping_timeout": 30000})

_BACKLOG = 64 * 1024  # bytes behind which a ping or its answer may wait for seconds on a slow line
_STOCK_TIMEOUT = 90000  # ms that jupyter_server itself waits for the answer (base/websocket.py)


def _patch_pings() -> None:
    """Change in three points how Jupyter's pings detect a dead websocket.

    A ping waits behind a long message of the server, and its answer behind one of the browser: then Jupyter's own
    timeout applies. Data may be under way outside this process, so the bytes sent since the last answer count. The check
    runs once per interval, a few milliseconds early or late, so half an interval is added: an answer that is due at that
    moment would decide by chance. And Jupyter closes a dead websocket by a handshake of five seconds
    (tornado/websocket.py), in which all output is lost: the connection is closed at once, and output is kept from then
    on.
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
        if sent > _BACKLOG or coming > _BACKLOG:
            return _STOCK_TIMEOUT
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
    _patch_pings()
except Exception as _error:  # noqa: BLE001 - an unknown version of Jupyter: it works without this
    _log("jupyman: the pings of websockets are not changed: {!r}\n".format(_error))

# systemd-tmpfiles leaves a directory alone while a process holds this lock (tmpfiles.d(5), "Age"): the sockets and
# connection files of a server that runs for weeks must not be removed.
_lock = os.open(os.environ["JUPYTER_RUNTIME_DIR"], os.O_RDONLY)
try:
    fcntl.flock(_lock, fcntl.LOCK_SH)
except OSError as _error:
    _log("jupyman: no lock on {}: {}\n".format(os.environ["JUPYTER_RUNTIME_DIR"], _error))

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

# debugpy, once started, listens on a TCP port of loopback and accepts every connection: every account of the host could
# run code as this user. The launch script writes True here if nobody else has an account, or the user wants it.
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

# Defined in jupyter_inside.py, which precedes this text.
change_jupyter(_here, classic=_classic, two=_two, debugger=_debugger)  # type: ignore[name-defined]  # noqa: F821

# nohup and the shell's `&` leave these signals ignored. Kernels and terminals would inherit that: no Ctrl-C in a terminal,
# no hang-up of its jobs. A handler, unlike "ignored", is not inherited through exec.
signal.signal(signal.SIGHUP, lambda *_: None)
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
if signal.getsignal(signal.SIGQUIT) == signal.SIG_IGN:
    signal.signal(signal.SIGQUIT, signal.SIG_DFL)
