"""A session that the tests of one module share."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.bed import Bed, Cli
from tests.bed.notebooks import a_session


@pytest.fixture(scope="module")
def shared(bed: Bed) -> Iterator[tuple[Cli, dict[str, Any]]]:
    """Yield a command line and its session on `server1`."""
    with a_session(bed) as made:
        yield made


@pytest.fixture
def session(shared: tuple[Cli, dict[str, Any]]) -> dict[str, Any]:
    """Return the shared session."""
    return shared[1]
