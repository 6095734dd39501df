"""The daemon's life: folders, lock, log, core, server and address are set up in this order, and undone in reverse."""

from __future__ import annotations

import logging
import os
import secrets
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from types import FrameType

from jupyman import __version__, errors
from jupyman.api import ClientContext
from jupyman.core.runtime.per_host_pool import PerHostPool
from jupyman.daemon import log as logs
from jupyman.daemon.lock import Lock
from jupyman.local import build, peer
from jupyman.local import daemon_file as address
from jupyman.paths import Paths

log = logging.getLogger(__name__)

CLOSE_TIMEOUT = 5.0  # seconds for links and listeners; a host that hangs must not delay the end of the daemon
# Open files, enough for every connection that a user's programs make through us: each takes one. Many systems start
# with 1024; macOS starts with 256, and refuses more than OPEN_MAX (sys/syslimits.h) even if its limit is "none".
FILES = 65536
OPEN_MAX = 10240
KEEP = 2.0  # seconds between two checks of daemon.json; a client waits for 15


def run(paths: Paths, *, foreground: bool = False) -> int:
    """Serve until stopped.

    Args:
        paths: where everything is kept.
        foreground: log to stderr as well.

    Returns:
        The exit status.

    Raises:
        DaemonUnavailable: another daemon runs, or the folders cannot be used.
        ConfigFault, VersionMismatch: files that cannot be used.
    """
    with ExitStack() as undo:
        try:
            paths.make()
            lock = Lock(paths.runtime / "daemon.lock")
            undo.callback(lock.release)
            logs.set_up(paths.log_file, foreground=foreground)
        except OSError as error:
            raise errors.DaemonUnavailable(f"the daemon's folders cannot be used: {error}") from error
        try:
            _serve(paths, lock, undo)
        except errors.JupymanError as error:
            log.error("the daemon cannot start: %s (%s)", error.message, error.hint)
            raise
        except Exception:
            log.exception("the daemon failed")
            raise
    return 0


def _serve(paths: Paths, lock: Lock, undo: ExitStack) -> None:
    # Imported only by the process that holds the lock.
    import psutil

    from jupyman.core.manager import Manager
    from jupyman.daemon import web_server
    from jupyman.daemon.server import Service

    _more_files()
    manager = Manager(paths)
    undo.callback(log.info, "daemon ended; servers on hosts run on")
    undo.callback(_close, manager.close)
    listener = undo.enter_context(socket.create_server(("127.0.0.1", 0)))
    port = listener.getsockname()[1]
    token = secrets.token_urlsafe(32)

    def stop() -> None:
        server.should_exit = True

    server = web_server.server(Service(manager, token, lambda: port, stop, paths.log_file, manager.events).app)
    _handle_signals(stop)
    # How the daemon logs in until a client supplies something newer.
    client = ClientContext(
        ssh_auth_sock=os.environ.get("SSH_AUTH_SOCK"), ssh_config=os.environ.get("JUPYMAN_SSH_CONFIG")
    )
    threading.Thread(target=manager.start, args=(client,), name="restore", daemon=True).start()
    # The stamp first: if a file changes in between, clients find that it differs, and compare the contents.
    here = address.DaemonAddress(
        pid=os.getpid(),
        create_time=psutil.Process().create_time(),
        port=port,
        token=token,
        version=__version__,
        stamp=build.stamp(),
    )
    address.write(paths.daemon_file, here)
    undo.callback(_withdraw, paths, here)
    undo.enter_context(_kept(paths, here, lock, manager.every))
    log.info("daemon %s (build %s) serves on 127.0.0.1:%s, pid %s", __version__, build.identity(), port, here.pid)
    peer.probe()  # here, because the event loop must not wait for it
    server.run(sockets=[listener])


def _more_files() -> None:
    """Raise our limit of open files as far as the system allows."""
    if sys.platform == "win32":
        return
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    for count in (FILES, OPEN_MAX):
        wanted = count if hard == resource.RLIM_INFINITY else min(count, hard)
        if soft == resource.RLIM_INFINITY or soft >= wanted:
            return
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
            return


def _close(close: Callable[[], None]) -> None:
    """Close the core, within `CLOSE_TIMEOUT`."""
    closing = threading.Thread(target=close, name="close", daemon=True)
    closing.start()
    closing.join(CLOSE_TIMEOUT)
    if closing.is_alive():
        log.warning("links were not closed in %.0f s", CLOSE_TIMEOUT)


@contextmanager
def _kept(
    paths: Paths, here: address.DaemonAddress, lock: Lock, every: Callable[[float, Callable[[], None]], None]
) -> Iterator[None]:
    """Write daemon.json again if it was removed or overwritten: else no client finds this daemon."""
    mutex, ended = threading.Lock(), threading.Event()

    def keep() -> None:
        with mutex:
            if not ended.is_set() and address.read(paths.daemon_file) != here and lock.lasts:
                log.warning("daemon.json was changed by another program: written again")
                with suppress(OSError):
                    address.write(paths.daemon_file, here)

    # A folder on a network may hang, so this runs in a thread of its own.
    pool = PerHostPool(lambda _: keep(), 1)
    every(KEEP, lambda: pool.ask("daemon.json", again=False))
    try:
        yield
    finally:
        with mutex:
            ended.set()


def _withdraw(paths: Paths, here: address.DaemonAddress) -> None:
    """Remove daemon.json if it is still ours."""
    if address.read(paths.daemon_file) == here:
        paths.daemon_file.unlink(missing_ok=True)


def _handle_signals(stop: Callable[[], None]) -> None:
    """End in order on SIGTERM and Ctrl-C; survive the end of the terminal."""

    def end(number: int, frame: FrameType | None) -> None:
        del number, frame
        stop()

    def stay(number: int, frame: FrameType | None) -> None:
        del number, frame  # the terminal that started us may close

    # uvicorn has its own handlers, but raises each signal again when it has ended: the default action of SIGTERM would
    # then end the process before daemon.json is removed and the links are closed.
    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGINT, end)
    hangup = getattr(signal, "SIGHUP", None)
    if hangup is not None:
        signal.signal(hangup, stay)
