"""How long to wait before the next login attempt. Pure: the caller brings the randomness."""

from __future__ import annotations

# Doubling from half a second to 15 s: a laptop that wakes sees its session at once, and a dead host costs four
# attempts a minute. After an hour (about 240 attempts at 15 s) once a minute is enough.
FIRST = 0.5
CEILING = 15.0
SLOW_AFTER = 240
SLOW = 60.0
JITTER = 0.2
# Outages are short as a rule (Wi-Fi, VPN), and a connection that nobody answers costs nobody anything: for the first
# minute the wait stays below this, as long as no attempt has even reached the host.
QUICK = 1.0
QUICK_FOR = 60.0


def delay(attempt: int, chance: float, unreached: float | None = None) -> float:
    """Seconds to wait before attempt number `attempt`.

    Args:
        attempt: 1 for the first retry.
        chance: a random number in 0..1, spreads the attempts of many clients.
        unreached: seconds since the link was lost, where the last attempt got no connection at all; None where the
            host answered and then failed.

    Returns:
        Seconds, within 20 % of the nominal delay.
    """
    doubled = FIRST * 2 ** min(max(attempt, 1) - 1, 10)
    nominal = SLOW if attempt > SLOW_AFTER else min(CEILING, doubled)
    if unreached is not None and unreached < QUICK_FOR:
        nominal = min(nominal, QUICK)
    return nominal * (1 - JITTER + 2 * JITTER * chance)
