"""Real servers, started under nohup, keep the contract of a launcher."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from jupyman.host.servers.base import UnmanagedServer
from jupyman.host.servers.nohup import NohupLauncher
from jupyman.model import Environment
from tests.bed import wait_until
from tests.bed.launches import launch_spec
from tests.bed.local_account import Account
from tests.bed.ports import free_port
from tests.unit.host.launcher_contract import LauncherBed, LauncherContract


class TestNohupLauncher(LauncherContract):
    """Over a shell of this machine, as an account of its own."""

    @pytest.fixture(params=[False, True], ids=["port", "socket"])
    def bed(self, request: pytest.FixtureRequest, account: Account, environment: Environment) -> LauncherBed:
        launcher = NohupLauncher(account, "tester@here")

        @contextmanager
        def by_hand() -> Iterator[UnmanagedServer]:
            options = (f"--ServerApp.port={free_port()}", "--IdentityProvider.token=mine", "--allow-root")
            process = subprocess.Popen(
                account.command(
                    f"{environment.prefix}/bin/python", f"{environment.prefix}/bin/jupyter-server", *options
                ),
                env=account.variables(),
                cwd=account.home,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            try:
                yield wait_until(lambda: launcher.find().servers, timeout=60)[0]
            finally:
                process.kill()
                process.wait()

        return LauncherBed(launcher, launcher.client, launch_spec(environment, sock=request.param), by_hand)
