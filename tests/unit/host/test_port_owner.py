"""Whose a forward's target is: which addresses are the host's own, which listener is reached, and who is a person."""

from __future__ import annotations

import pytest

from jupyman.host.report import port_owner
from jupyman.host.shell.script import Facts
from jupyman.tools.host.sockets import Socket


@pytest.mark.parametrize(
    ("address", "places"),
    [
        ("127.0.0.1", ["127.0.0.1"]),
        ("127.0.0.2", ["127.0.0.2"]),
        ("127.1", ["127.0.0.1"]),
        ("0.0.0.0", ["127.0.0.1"]),
        ("::1", ["::1"]),
        ("::", ["::1"]),
        ("::ffff:127.0.0.1", ["127.0.0.1"]),
        ("localhost", ["127.0.0.1", "::1"]),
        ("LocalHost", ["127.0.0.1", "::1"]),
        ("db.localhost", ["127.0.0.1", "::1"]),
        ("10.0.0.3", []),
        ("fe80::1", []),
        ("gpu-node-3", []),
        ("1270.0.0.1", []),
    ],
)
def test_which_addresses_are_the_hosts_own(address: str, places: list[str]) -> None:
    assert port_owner.loopback(address) == places


@pytest.mark.parametrize(
    ("address", "listeners", "reached"),
    [
        ("127.0.0.1", ["127.0.0.1", "0.0.0.0", "::1"], ["127.0.0.1"]),
        ("127.0.0.1", ["127.0.0.2", "::1"], []),
        ("127.0.0.1", ["0.0.0.0"], ["0.0.0.0"]),
        ("127.0.0.1", ["::"], ["::"]),
        ("127.0.0.1", ["::ffff:127.0.0.1", "::"], ["::ffff:127.0.0.1"]),
        ("127.0.0.2", ["127.0.0.1", "127.0.0.2"], ["127.0.0.2"]),
        ("::1", ["127.0.0.1", "0.0.0.0"], []),
        ("::1", ["::", "0.0.0.0"], ["::"]),
    ],
)
def test_which_listener_is_reached(address: str, listeners: list[str], reached: list[str]) -> None:
    seen = [Socket(one, port, 7) for one in listeners for port in (80, 81)]
    assert [one.address for one in port_owner.reached(seen, address, 80)] == reached


@pytest.mark.parametrize(
    ("uid", "person"),
    [(0, False), (1, False), (999, False), (1000, True), (60001, True), (61184, False), (65534, False), (65535, True)],
)
def test_who_is_a_person(uid: int, person: bool) -> None:
    assert port_owner.person(uid) is person


def facts(*uids: int, own: int = 1000) -> Facts:
    rows = [("uid", str(own)), ("account", "1001 bob")]
    rows += [("tcp", f"0: 0100007F:0050 0:0 0A 0:0 0:0 0 {uid} 0 {number}") for number, uid in enumerate(uids, 1)]
    return Facts(rows)


def test_what_the_facts_say_of_a_port() -> None:
    assert port_owner.strangers(facts(1000), "127.0.0.1", 80) == []
    assert port_owner.strangers(facts(0), "localhost", 80) == []
    found = port_owner.strangers(facts(1000, 1001), "127.0.0.1", 80)
    assert found is not None
    assert [(one.uid, one.user, one.ours) for one in found] == [(1001, "bob", False)]
    # Somebody answers, and nobody is seen: in another namespace, perhaps.
    assert port_owner.strangers(facts(), "127.0.0.1", 80) is None
    assert port_owner.strangers(facts(1000), "127.0.0.1", 81) is None
