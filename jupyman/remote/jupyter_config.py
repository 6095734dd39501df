# ruff: noqa: UP032 - this runs on the host, on Python 3.6 as well
"""The configuration of a server that jupyman starts: one file on top of the user's own, so what stands here wins.

It lies in the session's directory (0700) beside `token` and `port`. The token is read here, so it is on no command
line and in no environment variable that kernels would inherit. Runs on Python 3.6+, with notebook 6, jupyter_server 1
and 2, JupyterLab 3 and 4.
"""

import os
import signal
import sys

from jupyter_core.paths import jupyter_config_path
from traitlets.config.loader import ConfigFileNotFound, JSONFileConfigLoader, PyFileConfigLoader

c = get_config()  # type: ignore[name-defined]  # noqa: F821 - traitlets puts it there

_classic = "notebook.notebookapp" in sys.modules  # notebook 6
_two = False  # jupyter_server 2 and later
if "jupyter_server.serverapp" in sys.modules:
    import jupyter_server

    _two = int(jupyter_server.__version__.split(".")[0]) >= 2

# With --config Jupyter leaves out the user's own file of that kind: read it first, in Jupyter's order (traitlets,
# Application._load_config_files), so that what the user set holds where it does not contradict what follows.
_name = "jupyter_notebook_config" if _classic else "jupyter_server_config"
for _folder in reversed(jupyter_config_path()):
    for _loader in (PyFileConfigLoader(_name + ".py", path=_folder), JSONFileConfigLoader(_name + ".json", path=_folder)):
        try:
            c.merge(_loader.load_config())
        except ConfigFileNotFound:
            pass
        except Exception as _error:  # noqa: BLE001 - Jupyter too goes on without a file that it cannot read
            sys.stderr.write("jupyman: {} in {} was left out: {!r}\n".format(_name, _folder, _error))

_here = os.path.dirname(os.path.abspath(__file__))
with open(os.path.join(_here, "token")) as _file:
    _token = _file.read().strip()
with open(os.path.join(_here, "port")) as _file:
    _port = int(_file.read())
if not _token:
    sys.exit("jupyman: the token file is empty")

# notebook 6 reads NotebookApp. Later ones read ServerApp; there a NotebookApp of the user's would be moved to it
# by notebook_shim, and does no harm beside ours.
_app = c.NotebookApp if _classic else c.ServerApp
_app.ip = "127.0.0.1"
_app.port = _port
_app.port_retries = 0
_app.base_url = "/"
_app.certfile = ""
_app.keyfile = ""
_app.client_ca = ""
_app.open_browser = False
_app.allow_root = os.getuid() == 0
_app.allow_remote_access = False
_app.disable_check_xsrf = False
_app.cookie_secret_file = os.path.join(_here, "cookie_secret")  # a restarted server knows the browser's cookie again
_app.tornado_settings.update({"ws_ping_interval": 2000, "ws_ping_timeout": 5000})  # ms; a dead link is noticed in 7 s
_app.sock = ""
if _classic:
    _app.notebook_dir = os.getcwd()
else:
    _app.root_dir = os.getcwd()
if _two:
    c.ServerApp.identity_provider_class = "jupyter_server.auth.identity.PasswordIdentityProvider"
    for _section in (c.IdentityProvider, c.PasswordIdentityProvider):
        _section.token = _token
    c.PasswordIdentityProvider.hashed_password = ""
    c.PasswordIdentityProvider.password_required = False
else:
    _app.token = _token
    _app.password = ""
    _app.password_required = False

# With TCP any user of the host can read the cells and their outputs.
c.KernelManager.transport = "ipc"
c.ConnectionFileMixin.transport = "ipc"
_kernel = ""  # jupyman: default kernel
if _kernel:
    c.MappingKernelManager.default_kernel_name = _kernel
    c.MultiKernelManager.default_kernel_name = _kernel
    c.AsyncMappingKernelManager.default_kernel_name = _kernel

# nohup and the starting shell's `&` leave these ignored, and kernels and terminals would inherit it: no Ctrl-C in a
# terminal, no hang-up of its jobs. A handler, unlike "ignored", does not pass through exec.
signal.signal(signal.SIGHUP, lambda *_: None)
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
if signal.getsignal(signal.SIGQUIT) == signal.SIG_IGN:
    signal.signal(signal.SIGQUIT, signal.SIG_DFL)
