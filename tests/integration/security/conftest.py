"""Another account of the host."""

from __future__ import annotations

import contextlib
import os
import random
from collections.abc import Iterator

import pytest

from tests.integration.security.neighbour import Neighbour


@pytest.fixture
def neighbour() -> Iterator[Neighbour]:
    """Yield another account; what it starts ends with the test."""
    if os.getuid() != 0:
        pytest.skip("only root can be two users")
    with contextlib.ExitStack() as stack:
        yield Neighbour(random.randrange(3_000_000, 4_000_000), stack)
