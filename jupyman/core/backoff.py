"""How long to wait before the next login attempt. Pure: the caller brings the randomness."""

from __future__ import annotations

# Doubling from half a second to 15 s: a laptop that wakes sees its session at once, and a dead host costs four
# attempts a minute. After an hour (about 240 attempts at 15 s) once a minute is enough.
FIRST = 0.5
CEILING = 15.0
SLOW_AFTER = 240
SLOW = 60.0
JITTER = 0.2


def delay(attempt: int, chance: float) -> float:
    """Seconds to wait before attempt number `attempt`.

    Args:
        attempt: 1 for the first retry.
        chance: a random number in 0..1, spreads the attempts of many clients.

    Returns:
        Seconds, within 20 % of the nominal delay.
    """
    if attempt > SLOW_AFTER:
        nominal = SLOW
    else:
        nominal = min(CEILING, FIRST * 2 ** min(max(attempt, 1) - 1, 10))
    return nominal * (1 - JITTER + 2 * JITTER * chance)
