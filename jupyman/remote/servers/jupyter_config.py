# ruff: noqa: UP006, UP032, UP035 - this runs on the host, on Python 3.6 as well
"""The configuration of a server that jupyman starts: one file on top of the user's own, so what stands here wins.

It lies in the session's directory (0700) beside `token`, `endpoint` and `kernel_config.py`. The token is read here, so it
is on no command line and in no environment variable that kernels would inherit. Runs on Python 3.6+, with notebook 6,
jupyter_server 1 and 2, JupyterLab 3 and 4. The text of jupyter_inside.py travels in front of it, in the same file.
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
_say = _complain  # type: ignore[name-defined]  # noqa: F821 - jupyter_inside.py stands in front of this

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
            with contextlib.suppress(OSError):
                os.unlink(new)
            _say("jupyman: {} cannot be written: {}\n".format(path, error))
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
        try:
            token = _read_private(self._path)
            self._stamp = stamp
            if not re.match(r"[0-9a-f]{48}\Z", token):
                raise ValueError("the token file does not hold a token")
        except (OSError, ValueError) as error:  # an OSError passes, and the next request reads again
            _say("jupyman: the token was not read again: {}\n".format(error))
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
        _say("jupyman: the runtime file was not written again: {!r}\n".format(error))


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
    "allow_password_change": False,  # who knows the token could set a password that outlives it
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
                _say("jupyman: {} in {} was left out: {!r}\n".format(_base, _folder, _error))
                continue
            for _section, _values in _loaded.items():
                if _section.endswith("App"):
                    _clashes.update((_section, _key) for _key in set(_values) & set(_ours))
                if _section in ("MappingKernelManager", "AsyncMappingKernelManager"):
                    _said = _values.get("allowed_message_types", _allowed)
                    if hasattr(_said, "get_value"):  # what .append and .extend leave (traitlets, LazyConfigValue)
                        _said = _said.get_value([])
                    _allowed = [str(_kind) for _kind in _said or ()]
            if _base == _name:
                c.merge(_loaded)
for _section, _key in _clashes:
    c[_section][_key] = _ours[_key]

_app = c.NotebookApp if _classic else c.ServerApp  # notebook 6 reads NotebookApp, later ones ServerApp
for _key in _ours:
    # jupyter_server 2 reads these three from the identity provider, and complains of the old place.
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
    _say("jupyman: websockets are pinged as Jupyter does it: {!r}\n".format(_error))

# systemd-tmpfiles leaves a directory alone while somebody holds this lock (tmpfiles.d(5), "Age"): the sockets and
# connection files of a server that runs for weeks must not be tidied away.
_lock = os.open(os.environ["JUPYTER_RUNTIME_DIR"], os.O_RDONLY)
try:
    fcntl.flock(_lock, fcntl.LOCK_SH)
except OSError as _error:
    _say("jupyman: no lock on {}: {}\n".format(os.environ["JUPYTER_RUNTIME_DIR"], _error))

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

# Its text, jupyter_inside.py, stands above this one.
change_jupyter(_here, classic=_classic, two=_two, debugger=_debugger)  # type: ignore[name-defined]  # noqa: F821

# nohup and the starting shell's `&` leave these ignored, and kernels and terminals would inherit it: no Ctrl-C in a
# terminal, no hang-up of its jobs. A handler, unlike "ignored", does not pass through exec.
signal.signal(signal.SIGHUP, lambda *_: None)
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
if signal.getsignal(signal.SIGQUIT) == signal.SIG_IGN:
    signal.signal(signal.SIGQUIT, signal.SIG_DFL)
