"""A host that sends odd messages at every step of a login: at most the attempt is lost, with a named error."""

from __future__ import annotations

import contextlib
import functools
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from jupyman import errors
from jupyman.api import ClientContext
from jupyman.core.links.supervisor import Supervisor
from jupyman.core.runtime.background import Background
from jupyman.ssh.login.auth import Keyring
from tests.bed import Bed, Cli, wait_until
from tests.bed.aftermath import no_traceback, says
from tests.bed.hostile import MOMENTS, Gateway, Moment, Oddity, gateway, text
from tests.bed.notebooks import now, up
from tests.integration.ssh.odd_host import BAD, DISCONNECT, HUGE, LOGIN_FAULTS, ODD, configuration, entered, log_in

# --- during the login ---------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("packets")
@pytest.mark.parametrize("what", ODD)
def test_an_odd_answer_during_the_login_is_a_named_error(odd: Gateway, key: Path, what: str) -> None:
    odd.oddity = ODD[what]
    with pytest.raises(errors.JupymanError) as caught:
        log_in(key, odd.port).close()
    assert caught.value.status in {10, 13}, "no credential was refused"
    assert caught.value.message.isprintable()
    assert "Traceback" not in caught.value.message


def test_a_disconnect_is_a_refusal_by_its_code_or_after_a_refused_credential(odd: Gateway, key: Path) -> None:
    refusal = b"\x33" + text(b"publickey") + b"\x00"
    partial = b"\x33" + text(b"publickey") + b"\x01"
    for said, status in {
        (b"\x01" + struct.pack(">I", 2) + text(b"Too many authentication failures") + text(b""),): 11,
        (b"\x01" + struct.pack(">I", 14) + text(b"") + text(b""),): 11,
        (b"\x01" + struct.pack(">I", 12) + text(b"too many users") + text(b""),): 13,
        (refusal, DISCONNECT): 11,
        (partial, DISCONNECT): 13,
    }.items():
        # After the partial success no key is left, which is a refusal, too, if it is noticed before the disconnect.
        for attempt in reversed(range(5 if said[0] == partial else 1)):
            odd.oddity = Oddity("auth", said)
            with pytest.raises(errors.JupymanError) as caught:
                log_in(key, odd.port).close()
            if caught.value.status == status:
                break
            assert attempt, (said, caught.value.message)


@pytest.mark.usefixtures("packets")
def test_what_is_no_utf8_and_harmless_ends_nothing(odd: Gateway, key: Path) -> None:
    extensions = b"\x07" + struct.pack(">I", 2) + text(BAD) + text(BAD) + text(b"server-sig-algs") + text(BAD)
    said = (
        b"\x35" + text(BAD) + text(BAD),  # a banner
        b"\x04\x01" + text(BAD) + text(BAD),  # DEBUG
        b"\x04",
        b"\x04\x01" + HUGE,
        b"\x02",  # IGNORE
        b"\x02" + HUGE + BAD,
        b"\x03",  # UNIMPLEMENTED
        b"\x03" + HUGE,
        b"\x50" + text(BAD) + b"\x01",  # a global request
        b"\xc8" + BAD,
    )
    moments: tuple[Moment, ...] = ("newkeys", "service", "auth")
    # A banner belongs to the login (RFC 4252, section 5.4).
    oddities = [Oddity(at, (extensions, *(said if at == "auth" else said[1:])), "go on") for at in moments]
    for oddity in [Oddity("greeting", (b"\xff\xfe welcome\r\n" * 3,), "go on"), *oddities]:
        odd.oddity = oddity
        with contextlib.closing(log_in(key, odd.port)) as link:
            assert link.heartbeat(5) < 5
            link.open_channel(("127.0.0.1", 1)).close()


@pytest.mark.usefixtures("packets")
@pytest.mark.parametrize("moment", ["kexinit", "exchange"])
@pytest.mark.parametrize("kind", [2, 3, 4, 7, 8, 30, 50, 52, 80, 94, 200])
def test_nothing_else_may_come_during_the_first_exchange_of_keys(
    odd: Gateway, key: Path, moment: Moment, kind: int
) -> None:
    # Strict key exchange, against Terrapin (CVE-2023-48795): what is dropped there shifts the sequence numbers.
    odd.oddity = Oddity(moment, (bytes([kind]) + bytes(20),), "go on")
    with pytest.raises(errors.HostUnreachable):
        log_in(key, odd.port).close()
    # On a busy machine the client may give up before the host has accepted.
    wait_until(lambda: odd.connections, what="the connection")
    assert odd.connections[-1].unimplemented == []


# --- anything at any time -----------------------------------------------------------------------------------------

_pieces = st.one_of(
    st.binary(max_size=40),
    st.integers(0, 2**32 - 1).map(lambda number: struct.pack(">I", number)),
    st.sampled_from([HUGE, bytes(4), text(BAD), text(b"publickey"), text(b"ssh-userauth"), b"\x00", b"\x01"]),
)
_messages = st.builds(
    lambda kind, pieces: bytes([kind]) + b"".join(pieces), st.integers(1, 255), st.lists(_pieces, max_size=5)
)
_oddities = st.builds(
    Oddity,
    st.sampled_from(MOMENTS),
    st.lists(_messages, min_size=1, max_size=4).map(tuple),
    st.sampled_from(["go on", "close"]),
)


@pytest.mark.usefixtures("packets")
@settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(_oddities)
@example(Oddity("auth", (DISCONNECT,)))
@example(Oddity("auth", (b"\xc8",)))
def test_any_messages_of_a_host_end_in_a_named_error_or_a_link(odd: Gateway, key: Path, oddity: Oddity) -> None:
    odd.oddity = oddity
    link = entered(key, odd.port)
    if link is not None:
        with contextlib.closing(link), contextlib.suppress(errors.JupymanError):
            link.open_channel(("127.0.0.1", 1), timeout=1.0).close()


@pytest.mark.usefixtures("packets")
def test_a_supervisor_reconnects_after_every_odd_answer(
    odd: Gateway, key: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jupyman.ssh.config.ssh_g.read", lambda *_, **__: configuration(key, odd.port))

    def tried(times: int) -> bool:
        return len(odd.connections) >= times

    supervisor = Supervisor("server1", "server1", Keyring(), lambda _: None, lambda _: None, ClientContext())
    try:
        supervisor.want(wanted=True)
        wait_until(lambda: supervisor.link is not None, 20, "the link")
        for what, oddity in ODD.items():
            if oddity.then == "wait":  # it takes ten seconds to be given up
                continue
            before = len(odd.connections)
            odd.oddity = oddity
            odd.connections[-1].close()
            wait_until(functools.partial(tried, before + 2), 30, f"another attempt after {what}")
            assert supervisor.status.state == "reconnecting", what
            odd.oddity = None
            supervisor.disturbed(doubtful=True)
            wait_until(lambda: supervisor.link is not None, 30, f"the link after {what}")
        # A person's login, as well.
        supervisor.want(wanted=False)
        odd.oddity = ODD["auth: DISCONNECT"]
        odd.connections[-1].close()
        wait_until(lambda: supervisor.link is None, 10, "its end")
        with pytest.raises(errors.JupymanError) as caught:
            supervisor.acquire(Background(ClientContext()))
        assert caught.value.status in LOGIN_FAULTS
    finally:
        supervisor.close()


# --- by the real daemon -------------------------------------------------------------------------------------------


@pytest.fixture
def road(fresh_bed: Bed, cli: Cli) -> Iterator[Gateway]:
    """The way to the bed's host, on which it can be replaced by an odd one with the same key."""
    sshd = fresh_bed.sshd
    with gateway(fresh_bed.host_keys["ed25519"], ("127.0.0.1", sshd.port)) as made:
        folder = cli.user_home
        known = folder / "known_hosts"
        known.write_text(sshd.known_hosts.read_text().replace(f":{sshd.port} ", f":{made.port} "))
        text = sshd.ssh_config.read_text().replace(f"Port {sshd.port}", f"Port {made.port}")
        cli.ssh_config = folder / "ssh_config"
        cli.ssh_config.write_text(text.replace(str(sshd.known_hosts), str(known)))
        yield made


def test_the_command_line_reports_an_odd_host_in_two_lines(cli: Cli, road: Gateway) -> None:
    for what, oddity in ODD.items():
        if oddity.then == "close":
            road.oddity = oddity
            ran = cli("check", "server1")
            assert ran.rc in {10, 13}, (what, ran)
            says(ran, ran.rc)
    no_traceback(cli)


def test_a_session_recovers_after_every_odd_answer(cli: Cli, road: Gateway) -> None:
    session = up(cli, "server1", "--no-browser")
    for what in ("auth: DISCONNECT", "auth: an unknown type, then the end", "newkeys: new keys once more"):
        before = len(road.connections)
        road.oddity = ODD[what]
        road.cut()
        wait_until(lambda before=before: len(road.connections) > before + 2, 30, f"a third attempt after {what}")  # type: ignore[misc]
        link = wait_until(lambda: now(cli)["link"], what="the link as ps shows it")
        assert link["state"] == "reconnecting", link
        wait_until(lambda: now(cli)["link"]["next_attempt"], 10, "the next attempt")
        road.oddity = None
        wait_until(lambda: now(cli)["link"]["state"] == "up", 30, f"the link after {what}")
    assert now(cli)["server"] == session["server"]
    no_traceback(cli)
