"""PURE: whether a host that does not answer over a connection that stands is to be waited for, or given up.

A TCP connection that was cut off for some seconds delivers everything when the other end tries again, which it does
ever more seldom: measured, 15 s without packets cost up to 12 s more, and 30 s up to 25 s. A new login is there sooner,
and has lost what was under way. So silence alone ends a connection only after `PATIENCE`. If the connection is unlikely
to live (the computer slept for long, or is in another network), it ends it after `DEADLINE`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

# A host that falls silent is noticed after at most INTERVAL + DEADLINE = 5.5 s, and shall be in 6 on a busy computer.
INTERVAL = 2.5
DEADLINE = 3.0
PATIENCE = 30.0

Verdict = Literal["waits", "life", "over"]


@dataclass(frozen=True)
class Silence:
    """What is known of a host's silence; all times in seconds on the monotonic clock.

    Attributes:
        heard: the last sign of life before it.
        since: when the host was asked what it has not answered.
        doubt: since when the connection is not expected to live; None: it is.
    """

    heard: float
    since: float
    doubt: float | None = None

    def doubted(self, instant: float) -> Silence:
        """Return the same, with the connection in doubt from now on."""
        return replace(self, doubt=instant)

    def judge(self, *, heard: float, acknowledged: float, instant: float) -> Verdict:
        """Say what is to be done.

        Args:
            heard: the last sign of life now.
            acknowledged: when the host's kernel last took what we sent: the way is there again, and what the host has
                sent meanwhile comes when its kernel tries again.
            instant: now.

        Returns:
            "life": it has answered; "over": it is to be given up; "waits": neither.
        """
        if heard > self.heard:
            return "life"
        if self.doubt is not None and instant - self.doubt >= DEADLINE:
            return "over"
        return "over" if self.lasts(acknowledged, instant) >= PATIENCE else "waits"

    def lasts(self, acknowledged: float, instant: float) -> float:
        """Return for how many seconds nothing has come back."""
        return instant - max(self.since, acknowledged)
