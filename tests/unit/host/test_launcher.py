"""The fake launcher keeps the contract, so what runs against it runs against a host."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from jupyman.host.servers.base import UnmanagedServer
from jupyman.model import Environment, LaunchSpec
from tests.fake_shell import FakeShell
from tests.unit.host.fake_launcher import FakeLauncher, fake_host, ticks
from tests.unit.host.launcher_contract import LauncherBed, LauncherContract

ENVIRONMENT = Environment(
    name="lab", prefix="/opt/lab", kind="venv", python="3.12", jupyter="2.0.0", ipykernel="6.29", torch=None
)
SPEC = LaunchSpec(
    name="s1",
    env=ENVIRONMENT,
    kernel_env=None,
    dir=None,
    app="server",
    ports=[8888],
    cuda_visible_devices=None,
    timeout=5.0,
)


class TestFakeLauncher(LauncherContract):
    """The fake."""

    @pytest.fixture
    def bed(self) -> Iterator[LauncherBed]:
        with fake_host() as host:

            @contextmanager
            def by_hand() -> Iterator[UnmanagedServer]:
                process = host.start()
                server = UnmanagedServer(
                    pid=process.pid,
                    start_ticks=ticks(process.pid),
                    boot_id=host.boot_id,
                    port=process.port,
                    sock=None,
                    base_url="/",
                    token=process.token,
                    root_dir="/home/tester",
                    version="2.0.0",
                    app="server",
                    started=None,
                    exposed=False,
                    secure=False,
                    file="/home/tester/jpserver.json",
                    node=host.node,
                )
                host.by_hand.append(server)
                yield server

            launcher = FakeLauncher(host, FakeShell())
            yield LauncherBed(launcher, launcher.client, SPEC, by_hand, host.kill)
