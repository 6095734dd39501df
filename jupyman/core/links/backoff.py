"""How long to wait before the next login attempt. Pure: the caller brings the randomness."""

from __future__ import annotations

# Doubling from half a second to 15 s: a laptop that wakes sees its session at once, and a dead host costs four
# attempts a minute. After an hour once a minute is enough.
FIRST = 0.5
CEILING = 15.0
SLOW_AFTER = 3600.0
SLOW = 60.0
JITTER = 0.2
# Outages are short as a rule (Wi-Fi, VPN), and a connection that nobody answers costs nobody anything: it is no login,
# and no half of one. So the wait stays below a second for the first minute and below two for five, as long as no
# attempt has even reached the host. A refused connection has: some firewalls count these (`ufw limit`: six in half a
# minute), and let nobody in until there are fewer.
QUICK = ((60.0, 1.0), (300.0, 2.0))


def delay(attempt: int, chance: float, *, away: float = 0.0, reached: bool = True) -> float:
    """Seconds from one attempt to the next.

    Args:
        attempt: 1 for the first retry.
        chance: a random number in 0..1, spreads the attempts of many clients.
        away: seconds since the link was lost.
        reached: whether the host said anything to the last attempt, be it no.

    Returns:
        Seconds, within 20 % of the nominal delay.
    """
    doubled = FIRST * 2 ** min(max(attempt, 1) - 1, 10)
    nominal = SLOW if away > SLOW_AFTER else min(CEILING, doubled)
    if not reached:
        nominal = min([nominal, *(most for until, most in QUICK if away < until)])
    return nominal * (1 - JITTER + 2 * JITTER * chance)
