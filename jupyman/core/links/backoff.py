"""PURE: how long to wait before the next login attempt; the caller supplies the randomness."""

from __future__ import annotations

# Doubling from half a second to 15 s: after a laptop wakes its session is back at once, and a dead host costs four
# attempts a minute. After an hour, once a minute is enough.
FIRST = 0.5
CEILING = 15.0
SLOW_AFTER = 3600.0
SLOW = 60.0
JITTER = 0.2
# Most outages are short (Wi-Fi, VPN), and a connection attempt without an answer is no login, so it costs nothing. So
# the wait stays at a second for the first minute and at two for the next four, as long as no attempt has reached the
# host. A refused connection has: some firewalls count these (`ufw limit`: six in half a minute), and block further
# ones until there are fewer.
QUICK = ((60.0, 1.0), (300.0, 2.0))


def delay(attempt: int, chance: float, *, away: float = 0.0, reached: bool = True) -> float:
    """Seconds from one attempt to the next.

    Args:
        attempt: 1 for the first retry.
        chance: a random number in 0..1; it spreads the attempts of many clients.
        away: seconds since the link was lost.
        reached: whether the host answered the last attempt in any way.

    Returns:
        Seconds, within 20 % of the nominal delay.
    """
    doubled = FIRST * 2 ** min(max(attempt, 1) - 1, 10)
    nominal = SLOW if away > SLOW_AFTER else min(CEILING, doubled)
    if not reached:
        nominal = min([nominal, *(most for until, most in QUICK if away < until)])
    return nominal * (1 - JITTER + 2 * JITTER * chance)
