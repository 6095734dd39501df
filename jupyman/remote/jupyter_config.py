# ruff: noqa: UP006, UP032, UP035 - this runs on the host, on Python 3.6 as well
"""The configuration of a server that jupyman starts: one file on top of the user's own, so what stands here wins.

It lies in the session's directory (0700) beside `token` and `endpoint`. The token is read here, so it is on no command
line and in no environment variable that kernels would inherit. Runs on Python 3.6+, with notebook 6, jupyter_server 1
and 2, JupyterLab 3 and 4.
"""

import fcntl
import importlib
import logging
import os
import signal
import sys
from typing import Any, Set, Tuple

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

# Jupyter blots the token out of what it logs, but not of requests that fail.
_make_record = logging.getLogRecordFactory()


def _discreet(*args, **kwargs):  # type: ignore[no-untyped-def]
    record = _make_record(*args, **kwargs)
    try:
        message = record.getMessage()
    except Exception:  # noqa: BLE001 - a faulty call of somebody's: logging itself complains of it
        return record
    if _token in message:
        record.msg, record.args = message.replace(_token, "***"), None
    return record


logging.setLogRecordFactory(_discreet)

_ours = {
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
    _app.identity_provider_class = "jupyter_server.auth.identity.PasswordIdentityProvider"
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
            mixin = importlib.import_module(name).WebSocketMixin
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

# nohup and the starting shell's `&` leave these ignored, and kernels and terminals would inherit it: no Ctrl-C in a
# terminal, no hang-up of its jobs. A handler, unlike "ignored", does not pass through exec.
signal.signal(signal.SIGHUP, lambda *_: None)
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
if signal.getsignal(signal.SIGQUIT) == signal.SIG_IGN:
    signal.signal(signal.SIGQUIT, signal.SIG_DFL)
