"""The daemon's life, as a list: folders, log, lock, core, server, address, and back."""

from __future__ import annotations

import logging
import logging.handlers
import os
import re
import secrets
import signal
import socket
import threading
from pathlib import Path
from types import FrameType

from jupyman import __version__, address
from jupyman.api import ClientContext
from jupyman.daemon.lock import Lock
from jupyman.paths import Paths

log = logging.getLogger(__name__)

_SECRET = re.compile(r"(token=|code=|Authorization: token )[^\s&\"']+")


class Discreet(logging.Filter):
    """Blots tokens out of whatever is logged; nothing should carry one, this is for the day when something does."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Replace the message where needed."""
        message = record.getMessage()
        blotted = _SECRET.sub(r"\1…", message)
        if blotted != message:
            record.msg, record.args = blotted, ()
        return True


def run(paths: Paths, *, foreground: bool = False) -> int:
    """Serve until told to stop.

    Args:
        paths: where everything is kept.
        foreground: log to stderr as well.

    Returns:
        The exit status.

    Raises:
        DaemonUnavailable: another daemon runs, or no port can be bound.
        ConfigFault, VersionMismatch: files that cannot be used.
    """
    paths.make()
    _log_to(paths.log_file, foreground=foreground)
    lock = Lock(paths.runtime / "daemon.lock")
    import psutil
    import uvicorn

    from jupyman.core.manager import Manager
    from jupyman.daemon.server import Service

    manager = Manager(paths)
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    token = secrets.token_urlsafe(32)
    server: uvicorn.Server

    def stop() -> None:
        server.should_exit = True

    service = Service(manager, token, lambda: port, stop, paths.log_file)
    server = uvicorn.Server(
        uvicorn.Config(
            service.app,
            log_config=None,
            access_log=False,
            lifespan="off",
            loop="asyncio",
            http="h11",
            ws="none",
            timeout_keep_alive=30,
            timeout_graceful_shutdown=1,
            server_header=False,
            date_header=False,
        )
    )
    _outlive_the_terminal()
    # What the daemon was started with is how it logs in until a client brings something newer.
    client = ClientContext(
        ssh_auth_sock=os.environ.get("SSH_AUTH_SOCK"), ssh_config=os.environ.get("JUPYMAN_SSH_CONFIG")
    )
    threading.Thread(target=manager.start, args=(client,), name="restore", daemon=True).start()
    here = address.Address(
        pid=os.getpid(), create_time=psutil.Process().create_time(), port=port, token=token, version=__version__
    )
    address.write(paths.daemon_file, here)
    log.info("daemon %s serves on 127.0.0.1:%s, pid %s", __version__, port, here.pid)
    try:
        server.run(sockets=[listener])
    finally:
        if address.read(paths.daemon_file) == here:
            paths.daemon_file.unlink(missing_ok=True)
        manager.close()
        log.info("daemon ended; servers on hosts run on")
        lock.release()
    return 0


def _outlive_the_terminal() -> None:
    """Ignore SIGHUP; uvicorn handles SIGINT and SIGTERM itself."""
    hangup = getattr(signal, "SIGHUP", None)
    if hangup is not None:

        def ignore(number: int, frame: FrameType | None) -> None:
            del number, frame

        # The terminal that started us may close; we stay.
        signal.signal(hangup, ignore)


def _log_to(path: Path, *, foreground: bool) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.close(handle)
    handlers: list[logging.Handler] = [
        logging.handlers.RotatingFileHandler(path, maxBytes=1024 * 1024, backupCount=3, encoding="utf-8")
    ]
    if foreground:
        handlers.append(logging.StreamHandler())
    for handler in handlers:
        handler.addFilter(Discreet())
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    root = logging.getLogger()
    root.handlers[:] = handlers
    root.setLevel(logging.INFO)
    # Everything below warning of these is noise, and paramiko's may name keys.
    for name in ("paramiko", "asyncio", "uvicorn"):
        logging.getLogger(name).setLevel(logging.WARNING)

