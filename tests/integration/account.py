"""An account of its own on this machine, environments that it can run, and looks at its servers."""

from __future__ import annotations

import http.client
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jupyman import errors
from jupyman.model import App, Environment, LaunchSpec, Running
from jupyman.ssh.exec.command import CompletedCommand

SITE = next(Path(entry) for entry in sys.path if entry.endswith("site-packages"))
VENV = Path(sys.prefix)


@dataclass
class Account:
    """A uid of its own with a home: a host without SSH in between. Implements `jupyman.host.shell.script.Shell`."""

    uid: int
    home: Path
    shell: str = "/bin/sh"
    environ: dict[str, str] = field(default_factory=dict)
    cut_at: str | None = None  # a line that ends so closes the channel, as a lost link does

    def command(self, *argv: str) -> list[str]:
        if os.getuid() == self.uid:
            return list(argv)
        return ["setpriv", f"--reuid={self.uid}", f"--regid={self.uid}", "--clear-groups", *argv]

    def variables(self) -> dict[str, str]:
        base = {"HOME": str(self.home), "PATH": "/usr/local/bin:/usr/bin:/bin", "USER": "tester", "LANG": "C.UTF-8"}
        return {**base, **self.environ}

    def run(
        self,
        script: str,
        *,
        timeout: float,
        limit: int = 0,
        on_line: Callable[[str], None] | None = None,
        cancelled: threading.Event | None = None,
    ) -> CompletedCommand:
        del limit
        with tempfile.TemporaryFile() as complaints:
            process = subprocess.Popen(
                self.command(self.shell, "-s"),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=complaints,
                env=self.variables(),
                cwd="/",
                start_new_session=True,
                umask=0o022,
            )
            assert process.stdin is not None
            assert process.stdout is not None
            watch = threading.Timer(timeout, process.kill)
            watch.start()
            lines: list[bytes] = []
            try:
                process.stdin.write(script.encode())
                process.stdin.close()
                for line in process.stdout:
                    lines.append(line)
                    text = line.decode("utf-8", "replace").rstrip("\n")
                    if on_line is not None:
                        on_line(text)
                    lost = self.cut_at is not None and self.cut_at in text
                    stopped = cancelled is not None and cancelled.is_set()
                    if lost or stopped:
                        process.stdout.close()  # as sshd does when the channel closes; the script runs on
                        threading.Thread(target=process.wait, daemon=True).start()
                        raise errors.Interrupted("interrupted") if stopped else errors.LinkLost("the link was lost")
                process.wait()
            finally:
                watch.cancel()
                process.stdout.close()
            complaints.seek(0)
            return CompletedCommand(b"".join(lines), complaints.read(), process.returncode)


@contextmanager
def new_account() -> Iterator[Account]:
    """Yield a fresh account; whatever it left running is ended afterwards."""
    uid = random.randrange(200_000, 2_000_000) if os.getuid() == 0 else os.getuid()
    home = Path(tempfile.mkdtemp(prefix="jmh-", dir="/tmp"))
    os.chown(home, uid, -1)
    try:
        yield Account(uid, home)
    finally:
        # Without root the uid is a person's, too: only what has this home is the account's.
        ours = [pid for pid in processes(uid) if os.getuid() == 0 or environ(pid).get("HOME") == str(home)]
        folders = {environ(pid).get("JUPYTER_RUNTIME_DIR") for pid in ours}
        for pid in ours:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for left in Path("/tmp").glob("jm-*"):
            if left.lstat().st_uid == uid and (os.getuid() == 0 or str(left) in folders):
                shutil.rmtree(left, ignore_errors=True)
        home.chmod(0o700)
        shutil.rmtree(home, ignore_errors=True)


def processes(uid: int) -> list[int]:
    """Return the living processes of a uid."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if entry.stat().st_uid == uid and "\nState:\tZ" not in (entry / "status").read_text():
                found.append(int(entry.name))
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found


def environ(pid: int) -> dict[str, str]:
    """Return a process's variables; none where it is gone."""
    try:
        entries = Path(f"/proc/{pid}/environ").read_text(errors="replace").split("\0")
    except OSError:
        return {}
    return dict(entry.split("=", 1) for entry in entries if "=" in entry)


def build_environment(folder: Path, *, kind: str = "venv", packages: bool = True) -> Environment:
    """Make an environment that another account can reach: this one's packages with the system's Python of its version.

    (This environment's own interpreter may lie in a home that is closed to others.)
    """
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    base = Path(f"/usr/bin/python{version}")
    if not base.exists():
        base = Path(sys.executable).resolve()
    (folder / "bin").mkdir(parents=True)
    (folder / "lib" / f"python{version}").mkdir(parents=True)
    (folder / "pyvenv.cfg").write_text(f"home = {base.parent}\ninclude-system-site-packages = false\n")
    (folder / "bin" / "python").symlink_to(base)
    target = folder / "lib" / f"python{version}" / "site-packages"
    if packages:
        target.symlink_to(SITE)
        for name in ("jupyter-lab", "jupyter-server"):
            shutil.copy(VENV / "bin" / name, folder / "bin" / name)
        (folder / "share").symlink_to(VENV / "share")
    else:
        target.mkdir()
    if kind == "conda":
        (folder / "etc" / "conda" / "activate.d").mkdir(parents=True)
        (folder / "conda-meta").mkdir()
        (folder / "conda-meta" / "history").touch()
    elif packages:
        (folder / "etc").symlink_to(VENV / "etc")
    return Environment(
        name=folder.name,
        prefix=str(folder),
        kind="conda" if kind == "conda" else "venv",
        python=version,
        jupyter="2" if packages else None,
        ipykernel="7" if packages else None,
        torch=None,
    )


@contextmanager
def public_folder() -> Iterator[Path]:
    """Yield a temporary folder that other accounts can read."""
    folder = Path(tempfile.mkdtemp(prefix="jme-", dir="/tmp"))
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


def free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        held = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [one.getsockname()[1] for one in held]


def wish(env: Environment, *, name: str = "s1", app: App = "server", timeout: float = 60, **more: Any) -> LaunchSpec:
    fields: dict[str, Any] = {
        "kernel_env": None,
        "dir": None,
        "ports": free_ports(2),
        "cuda_visible_devices": None,
        **more,
    }
    return LaunchSpec(name=name, env=env, app=app, timeout=timeout, **fields)


def get(port: int, path: str, token: str | None = None, method: str = "GET", body: Any = None) -> tuple[int, Any]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    headers = {"Authorization": f"token {token}"} if token else {}
    connection.request(method, path, headers=headers, body=json.dumps(body) if body is not None else None)
    answer = connection.getresponse()
    content = answer.read()
    connection.close()
    return answer.status, json.loads(content) if content[:1] in {b"{", b"["} else content


def until(condition: Callable[[], Any], timeout: float = 20) -> Any:
    """Wait for a condition that no event tells of."""
    end = time.monotonic() + timeout
    pause = threading.Event()
    while not (found := condition()):
        assert time.monotonic() < end, "the condition did not come true"
        pause.wait(0.05)
    return found


def alive(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


def session_dir(account: Account, name: str = "s1") -> Path:
    return account.home / ".local/state/jupyman" / os.uname().nodename / name


def runtime_dir(running: Running) -> Path:
    record = Path(running.directory, "record").read_text()
    return Path(next(line.split(" ", 1)[1] for line in record.splitlines() if line.startswith("runtime ")))


def execute(running: Running, code: str) -> str:
    """Start a kernel by the server's REST interface, run code in it, return what it printed; the kernel stays."""
    from jupyter_client.blocking.client import BlockingKernelClient

    port = running.server.port
    assert port is not None
    status, kernel = get(port, "/api/kernels", running.token, "POST", {"name": "python3"})
    assert status == 201
    file = runtime_dir(running) / f"kernel-{kernel['id']}.json"
    client = BlockingKernelClient(connection_file=str(file))
    client.load_connection_file()
    client.start_channels()
    try:
        client.wait_for_ready(timeout=60)
        printed: list[str] = []

        def hook(message: dict[str, Any]) -> None:
            if message["msg_type"] == "stream":
                printed.append(message["content"]["text"])

        client.execute_interactive(code, timeout=60, output_hook=hook)
        return "".join(printed)
    finally:
        client.stop_channels()
