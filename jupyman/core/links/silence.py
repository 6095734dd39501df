"""PURE: whether to wait for a host that does not answer over an open connection, or to give it up.

A TCP connection that was cut off for some seconds delivers everything when the other end retransmits, at growing
intervals: measured, 15 s without packets cost up to 12 s more, and 30 s up to 25 s. A new login is faster, and loses
what was in flight. So silence alone ends a connection only after `PATIENCE`. If the connection is unlikely to have
survived (the computer slept for long, or is in another network), it ends after `DEADLINE`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

# Silence is noticed after at most INTERVAL + DEADLINE = 5.5 s; on a busy computer it must be within 6 s.
INTERVAL = 2.5
DEADLINE = 3.0
PATIENCE = 30.0

Verdict = Literal["waits", "life", "over"]


@dataclass(frozen=True)
class Silence:
    """What is known of a host's silence; all times in seconds on the monotonic clock.

    Attributes:
        heard: the last sign of life before it.
        since: when the heartbeat was sent that was not answered.
        doubt: since when the connection is not expected to have survived; None: it is.
    """

    heard: float
    since: float
    doubt: float | None = None

    def doubted(self, instant: float) -> Silence:
        """Return the same, with the connection in doubt from now on."""
        return replace(self, doubt=instant)

    def judge(self, *, heard: float, acknowledged: float, instant: float) -> Verdict:
        """Return what is to be done.

        Args:
            heard: the last sign of life now.
            acknowledged: when the host's kernel last acknowledged what we sent: the network is back, and what the host
                has sent meanwhile arrives when its kernel retransmits.
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
