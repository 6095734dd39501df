"""What several rooms share: an account without SSH in between, an environment for it, a host at the end of a line."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from jupyman.model import Environment
from tests.bed import Bed, Cli, Network, Sshd, private_home
from tests.bed.launches import build_environment
from tests.bed.local_account import Account, new_account, public_folder


@pytest.fixture(scope="session")
def environment() -> Iterator[Environment]:
    """Yield an environment with JupyterLab that every account can run."""
    with public_folder() as folder:
        yield build_environment(folder / "stack")


@pytest.fixture
def account() -> Iterator[Account]:
    """Yield a fresh account; what it left running is ended afterwards."""
    with new_account() as made:
        yield made


@pytest.fixture
def far_sshd(fresh_bed: Bed, network: Network) -> Iterator[Sshd]:
    """Yield an sshd in `network`."""
    with fresh_bed.start_sshd(network=network) as made:
        yield made


@pytest.fixture
def far_cli(far_sshd: Sshd) -> Iterator[Cli]:
    """Yield a command line with a home of its own, for which `server1` is on `far_sshd`."""
    with private_home() as home:
        yield Cli(home, far_sshd.ssh_config)
