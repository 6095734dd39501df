"""The temporary SSH host of `jupyman demo`: asyncssh on loopback, with keys and a home of its own."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import getpass
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psutil

from jupyman import errors

ALIAS = "demo"
START_TIMEOUT = 15.0  # seconds
UNDO_TIMEOUT = 10.0  # seconds for commands to end by themselves; an interrupted launch undoes what it made
END_TIMEOUT = 5.0  # seconds between SIGTERM and SIGKILL for what sessions left running
# Variables that a login on a real host does not have. They would point the demo's Jupyter outside its home.
_FOREIGN = ("JUPYTER", "JUPYMAN", "XDG_", "CONDA", "_CONDA", "MAMBA", "PYTHON", "IPYTHON", "SSH_", "VIRTUAL_ENV")


class DemoHost:
    """An SSH host for the user that starts it, with a home of its own; use as a context manager.

    It runs commands with the rights of that user, so it listens on loopback only and accepts only the one key that it
    made, which lies in its folder (0700).

    Args:
        folder: created for all its files; the caller removes it.

    Attributes:
        port: where it listens, after it was entered.
        home: HOME of its sessions.
        ssh_config: for JUPYMAN_SSH_CONFIG; it knows the host as ``demo``.

    Raises:
        UsageFault: the extra `demo` is not installed, or this system cannot be a host.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = 0
        self.home = folder / "home"
        self.ssh_config = folder / "ssh_config"
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop = asyncio.Event()
        self._connections: set[Any] = set()
        self._commands: set[asyncio.Task[None]] = set()
        self._ready = threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="demo host", daemon=True)

    def __enter__(self) -> Self:
        if os.name != "posix":
            raise errors.UsageFault("the demo's host needs a POSIX shell", "run it on Linux or macOS")
        try:
            import asyncssh  # noqa: F401 - only to see whether it is installed
        except ImportError as error:
            raise errors.UsageFault("the extra `demo` is not installed", "pip install 'jupyman[demo]'") from error
        self.folder.mkdir(mode=0o700, parents=True)
        self.home.mkdir(mode=0o700)
        self._thread.start()
        if not self._ready.wait(START_TIMEOUT):
            raise errors.InternalError(f"the demo's host did not start in {START_TIMEOUT:.0f} s")
        if self._error is not None:
            raise errors.InternalError(f"the demo's host did not start: {self._error}") from self._error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop has ended by itself
                self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(UNDO_TIMEOUT + 3 * END_TIMEOUT)

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except Exception as error:  # __enter__ raises it
            self._error = error
        finally:
            self._ready.set()

    async def _serve(self) -> None:
        import asyncssh

        self._loop = asyncio.get_running_loop()
        host_key = asyncssh.generate_private_key("ssh-ed25519", "jupyman demo host")
        client_key = asyncssh.generate_private_key("ssh-ed25519", "jupyman demo")
        key_file = self.folder / "id_ed25519"
        with os.fdopen(os.open(key_file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(client_key.export_private_key())
        trusted = asyncssh.import_authorized_keys(client_key.export_public_key().decode())
        server = await asyncssh.listen(
            "127.0.0.1",
            0,
            server_factory=functools.partial(_server_class(), self._connections),
            server_host_keys=[host_key],
            authorized_client_keys=trusted,
            process_factory=self._process,
            sftp_factory=True,
            encoding=None,
            line_editor=False,
            agent_forwarding=False,
        )
        self.port = server.get_port()
        self._describe(host_key.export_public_key().decode().split()[:2], key_file)
        self._ready.set()
        await self._stop.wait()
        server.close()
        for connection in [*self._connections]:
            connection.abort()
        if self._commands:
            await asyncio.wait(self._commands, timeout=UNDO_TIMEOUT)
        await asyncio.to_thread(self._end_processes)
        await server.wait_closed()

    def _describe(self, host_key: list[str], key_file: Path) -> None:
        known = self.folder / "known_hosts"
        known.write_text(f"[127.0.0.1]:{self.port} {' '.join(host_key)}\n", encoding="utf-8")
        lines = [
            f"Host {ALIAS}",
            "    HostName 127.0.0.1",
            f"    Port {self.port}",
            f"    User {getpass.getuser()}",
            f"    IdentityFile {key_file}",
            "    IdentitiesOnly yes",
            f"    UserKnownHostsFile {known}",
            "    StrictHostKeyChecking yes",
        ]
        self.ssh_config.write_text("\n".join(lines) + "\n", encoding="utf-8")

    def _environment(self, connection: tuple[Any, ...]) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(_FOREIGN)}
        programs = str(Path(sys.executable).parent)
        return {
            **kept,
            "HOME": str(self.home),
            # This Python's environment first, as on a login's PATH, so that its Jupyter is found; then what every login
            # has.
            "PATH": os.pathsep.join([programs, kept.get("PATH", os.defpath), os.defpath]),
            "SSH_CONNECTION": " ".join(str(part) for part in connection),
        }

    async def _process(self, process: Any) -> None:
        """Run a command as sshd does: with a shell, and with streams that end with the channel."""
        import asyncssh

        task = asyncio.current_task()
        assert task is not None
        self._commands.add(task)
        task.add_done_callback(self._commands.discard)
        child = await asyncio.to_thread(self._start, process)
        # Leaving it waits until asyncssh has written everything to the command.
        async with process:
            with contextlib.suppress(asyncssh.Error, OSError):  # the client has disconnected
                # Pipes, not asyncio's streams, which stay open after the channel is closed.
                await process.redirect(stdin=child.stdin, stdout=child.stdout, stderr=child.stderr, send_eof=False)
                await _end_of_output(process)
            process.exit(await asyncio.to_thread(child.wait))

    def _start(self, process: Any) -> subprocess.Popen[bytes]:
        peer, own = process.get_extra_info("peername"), process.get_extra_info("sockname")
        return subprocess.Popen(
            ["/bin/sh", *(["-c", process.command] if process.command else [])],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            cwd=self.home,
            env=self._environment((*peer[:2], *own[:2])),
            start_new_session=True,
        )

    def _end_processes(self) -> None:
        """End what sessions left running: this user's processes whose HOME is this host's."""
        for end in (psutil.Process.terminate, psutil.Process.kill):
            for one in self._processes():
                with contextlib.suppress(psutil.Error):
                    end(one)
            deadline = time.monotonic() + END_TIMEOUT
            while self._processes():
                if time.monotonic() > deadline:
                    break
                time.sleep(0.05)
            else:
                return

    def _processes(self) -> list[psutil.Process]:
        found = []
        for one in psutil.process_iter():
            with contextlib.suppress(psutil.Error):  # another user's, or ended
                if one.pid != os.getpid() and one.environ().get("HOME") == str(self.home):
                    found.append(one)
        return found


async def _end_of_output(process: Any) -> None:
    """Wait until a command has closed its output, or the client its channel, which `drain` does not notice."""
    import asyncssh

    async def drain() -> None:
        with contextlib.suppress(asyncssh.Error, OSError):
            await process.stdout.drain()
            await process.stderr.drain()

    waits = [asyncio.create_task(drain()), asyncio.create_task(process.channel.wait_closed())]
    await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    for one in waits:
        one.cancel()


def _server_class() -> Callable[[set[Any]], Any]:
    """Return asyncssh's server class with forwarding allowed; a function, because asyncssh is an optional import."""
    import asyncssh

    class Server(asyncssh.SSHServer):
        """Lets the client open streams to this computer's own addresses.

        Args:
            connections: contains this one while it is open.
        """

        def __init__(self, connections: set[Any]) -> None:
            self._connections = connections
            self._own: Any = None

        def connection_made(self, conn: Any) -> None:
            """Remember the connection: the host aborts it when it stops."""
            self._own = conn
            self._connections.add(conn)

        def connection_lost(self, exc: Exception | None) -> None:
            """Forget the connection."""
            del exc
            self._connections.discard(self._own)

        def connection_requested(self, dest_host: str, dest_port: int, orig_host: str, orig_port: int) -> bool:
            """Allow loopback only: the demo needs no more."""
            del dest_port, orig_host, orig_port
            return dest_host in {"127.0.0.1", "localhost", "::1"}

        def unix_connection_requested(self, dest_path: str) -> bool:
            """Allow UNIX sockets: the user of the demo can open them anyway."""
            del dest_path
            return True

    return Server
