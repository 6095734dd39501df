"""PURE: how often a server that keeps dying is started again."""

from __future__ import annotations

from collections.abc import Sequence

# As systemd's StartLimitBurst and StartLimitIntervalSec, with room for Jupyter's slow starts.
LIMIT = 3
SPAN = 600.0  # seconds


def allowed(times: Sequence[float], instant: float) -> bool:
    """Tell whether one more start is due.

    Args:
        times: when it was restarted before, on the monotonic clock, seconds.
        instant: now, on the same clock.
    """
    return sum(instant - moment < SPAN for moment in times) < LIMIT
