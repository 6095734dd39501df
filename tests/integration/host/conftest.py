"""An account with environments, and the probe of it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from jupyman.host.report import probe
from jupyman.model import HostReport
from tests.bed.local_account import new_account
from tests.integration.host.environment_tree import Look, Tree
from tests.local_shell import LocalShell


@pytest.fixture
def tree() -> Iterator[Tree]:
    """Yield an account whose home is to be filled."""
    with new_account(named=True) as account:
        yield Tree(account)


@pytest.fixture
def look(tree: Tree) -> Look:
    """Return a function that probes the account of `tree`."""

    def look(*, env: dict[str, str] | None = None, depth: str = "launch", **more: object) -> HostReport:
        tree.own()
        shell = LocalShell(tree.home, tree.account.name, env)
        return probe.probe(shell, "here", depth=depth, **more)  # type: ignore[arg-type]

    return look
