"""Launches of servers without SSH in between: the environment, the specification, and what a server has on disk."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import Any

from jupyman.model import App, Environment, LaunchSpec, Running
from tests.bed.http import get
from tests.bed.local_account import Account
from tests.bed.ports import free_ports

SITE = next(Path(entry) for entry in sys.path if entry.endswith("site-packages"))
VENV = Path(sys.prefix)
PATIENCE_S = 60


def build_environment(folder: Path, *, kind: str = "venv", packages: bool = True) -> Environment:
    """Make an environment that other accounts can use: the packages of this one with the system's Python.

    The interpreter of this environment may be in a home that is closed to others.

    Args:
        folder: is made.
        kind: ``venv`` or ``conda``.
        packages: whether it has packages at all.
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


def launch_spec(
    env: Environment, *, name: str = "s1", app: App = "server", timeout: float = 60, **more: Any
) -> LaunchSpec:
    fields: dict[str, Any] = {
        "kernel_env": None,
        "dir": None,
        "ports": free_ports(2),
        "cuda_visible_devices": None,
        **more,
    }
    return LaunchSpec(name=name, env=env, app=app, timeout=timeout, **fields)


def session_dir(account: Account, name: str = "s1") -> Path:
    return account.home / ".local/state/jupyman" / os.uname().nodename / name


def runtime_dir(running: Running) -> Path:
    record = Path(running.directory, "record").read_text()
    return Path(next(line.split(" ", 1)[1] for line in record.splitlines() if line.startswith("runtime ")))


def execute(running: Running, code: str) -> str:
    """Start a kernel by the REST API, run code in it, and return what it printed; the kernel goes on running."""
    from jupyter_client.blocking.client import BlockingKernelClient

    port = running.server.port
    assert port is not None
    status, kernel = get(port, "/api/kernels", running.token, "POST", {"name": "python3"})
    assert status == 201
    file = runtime_dir(running) / f"kernel-{kernel['id']}.json"
    client = BlockingKernelClient(connection_file=str(file))
    client.load_connection_file()
    # By default a kernel that answers no heartbeat within a second counts as dead; a busy machine takes longer.
    client.hb_channel.time_to_dead = PATIENCE_S
    client.start_channels()
    try:
        client.wait_for_ready(timeout=PATIENCE_S)
        printed: list[str] = []

        def hook(message: dict[str, Any]) -> None:
            if message["msg_type"] == "stream":
                printed.append(message["content"]["text"])

        client.execute_interactive(code, timeout=PATIENCE_S, output_hook=hook)
        return "".join(printed)
    finally:
        client.stop_channels()
