"""A host that says odd things at every step of a login and after it: one attempt is lost, or nothing is."""

from __future__ import annotations

import contextlib
import functools
import socket
import struct
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from jupyman import errors
from jupyman.api import ClientContext
from jupyman.core.links.supervisor import Supervisor
from jupyman.core.runtime.background import Background
from jupyman.ssh.config.ssh_g import HostConfig
from jupyman.ssh.link import Link
from jupyman.ssh.login import keys
from jupyman.ssh.login.auth import Credentials, Keyring
from jupyman.ssh.wire import compat
from tests.bed import Bed, Cli, keygen, wait_until
from tests.bed.hostile import MOMENTS, Gateway, Moment, Oddity, gateway, text
from tests.integration.aftermath import no_traceback, says
from tests.integration.notebooks import now, up

BAD = b"\xff\xfe \x1b[2J\xc3("  # no UTF-8, and a terminal would obey it
DISCONNECT = b"\x01" + struct.pack(">I", 2) + text(BAD) + text(b"\xff")
LOGIN_FAULTS = {10, 11, 13}
KEXINIT = b"\x14" + bytes(16) + 10 * text(BAD) + bytes(5)
HUGE = b"\xff\xff\xff\xff"

ODD: dict[str, Oddity] = {
    "greeting: no UTF-8, and then nothing": Oddity("greeting", (b"\xff\xfe\r\n",), "wait"),
    "greeting: a version of no UTF-8": Oddity("greeting", (b"SSH-2.0-\xff\xfe\r\n",)),
    "greeting: bytes without an end": Oddity("greeting", (b"\xff" * 100_000,)),
    "kexinit: DISCONNECT": Oddity("kexinit", (DISCONNECT,)),
    "kexinit: names of no UTF-8": Oddity("kexinit", (KEXINIT,)),
    "kexinit: nothing in it": Oddity("kexinit", (b"\x14",)),
    "kexinit: lists of any length": Oddity("kexinit", (b"\x14" + bytes(16) + HUGE,)),
    "kexinit: an unknown type": Oddity("kexinit", (b"\xc8odd",)),
    "exchange: DISCONNECT": Oddity("exchange", (DISCONNECT,)),
    "exchange: a key of nothing": Oddity("exchange", (b"\x1f",)),
    "exchange: a key of no kind": Oddity("exchange", (b"\x1f" + text(text(BAD)) + text(b"x" * 32) + text(BAD),)),
    "exchange: an unknown type": Oddity("exchange", (b"\xc8odd",)),
    "newkeys: DISCONNECT": Oddity("newkeys", (DISCONNECT,)),
    "newkeys: DISCONNECT, cut": Oddity("newkeys", (b"\x01\x00",)),
    "newkeys: DISCONNECT, of any length": Oddity("newkeys", (b"\x01" + struct.pack(">I", 2) + HUGE + BAD,)),
    "newkeys: new keys once more": Oddity("newkeys", (b"\x15",)),
    "newkeys: any number of extensions": Oddity("newkeys", (b"\x07" + HUGE,)),
    "service: DISCONNECT": Oddity("service", (DISCONNECT,)),
    "service: an unknown type, then the end": Oddity("service", (b"\xc8odd",)),
    "service: another service": Oddity("service", (b"\x06" + text(BAD),)),
    "auth: DISCONNECT": Oddity("auth", (DISCONNECT,)),
    "auth: an unknown type, then the end": Oddity("auth", (b"\xc8odd",)),
    "auth: a question that nobody asked for": Oddity("auth", (b"\x3c" + text(BAD) * 3 + HUGE,)),
    "auth: a banner, cut": Oddity("auth", (b"\x35" + HUGE,)),
    "auth: a refusal, cut": Oddity("auth", (b"\x33" + HUGE,)),
    "auth: the end": Oddity("auth", ()),
    "auth: an opened channel": Oddity("auth", (b"\x5b" + bytes(16),)),
    "auth: data for no channel": Oddity("auth", (b"\x5e" + HUGE * 2,)),
}


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return keygen(tmp_path_factory.mktemp("odd") / "key")


@pytest.fixture
def odd(key: Path) -> Iterator[Gateway]:
    with gateway(key) as made:
        yield made


def configuration(key: Path, port: int) -> HostConfig:
    known = key.parent / f"known-{port}"
    known.write_text(f"[127.0.0.1]:{port} " + Path(f"{key}.pub").read_text())
    return HostConfig(
        alias="server1",
        hostname="127.0.0.1",
        port=port,
        user="alice",
        identity_files=(str(key),),
        identities_only=True,
        identity_agent="",
        user_known_hosts=(str(known),),
        global_known_hosts=(),
    )


def log_in(key: Path, port: int) -> Link:
    return Link.open(configuration(key, port), Credentials(), Keyring(), timeout=3.0)


def entered(key: Path, port: int) -> Link | None:
    """Log in; return None where that ends in an error with a name."""
    try:
        return log_in(key, port)
    except errors.JupymanError as error:
        fault = error
    assert fault.status in LOGIN_FAULTS
    assert fault.message.isprintable()
    return None


# --- during the login ---------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("packets")
@pytest.mark.parametrize("what", ODD)
def test_an_odd_answer_during_the_login_is_an_error_with_a_name(odd: Gateway, key: Path, what: str) -> None:
    odd.oddity = ODD[what]
    with pytest.raises(errors.JupymanError) as caught:
        log_in(key, odd.port).close()
    assert caught.value.status in {10, 13}, "no credential was refused"
    assert caught.value.message.isprintable()
    assert "Traceback" not in caught.value.message


def test_a_disconnect_is_a_refusal_where_it_says_so_or_a_credential_was_refused(odd: Gateway, key: Path) -> None:
    refusal = b"\x33" + text(b"publickey") + b"\x00"
    partial = b"\x33" + text(b"publickey") + b"\x01"
    for said, status in {
        (b"\x01" + struct.pack(">I", 2) + text(b"Too many authentication failures") + text(b""),): 11,
        (b"\x01" + struct.pack(">I", 14) + text(b"") + text(b""),): 11,
        (b"\x01" + struct.pack(">I", 12) + text(b"too many users") + text(b""),): 13,
        (refusal, DISCONNECT): 11,
        (partial, DISCONNECT): 13,
    }.items():
        odd.oddity = Oddity("auth", said)
        with pytest.raises(errors.JupymanError) as caught:
            log_in(key, odd.port).close()
        assert caught.value.status == status, (said, caught.value.message)


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
    assert odd.connections[-1].unimplemented == []


# --- on a link ----------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("packets")
def test_unknown_messages_are_answered_and_the_link_lives(odd: Gateway, key: Path) -> None:
    with contextlib.closing(log_in(key, odd.port)) as link:
        wait_until(lambda: len(odd.connections[-1]._channels.values()) == 3, 10, "the channels opened ahead")
        server = odd.connections[-1]
        unknown = [
            kind for kind in range(1, 256) if kind not in compat.KNOWN and kind not in {2, 3, 4}
        ]  # among them those of a login, which is over
        server.say(*(bytes([kind]) + BAD for kind in unknown))
        server.say(b"\x02", b"\x02" + HUGE, b"\x03", b"\x03" + HUGE, b"\x04", b"\x04" + HUGE)
        link.open_channel(("127.0.0.1", 1)).close()
        assert len(unknown) == 234
        wait_until(lambda: len(server.unimplemented) >= len(unknown), 10, "an answer to each")
        # By its sequence number, and none to what needs none.
        assert server.unimplemented == server.sent[: len(unknown)]
        assert link.alive


@pytest.mark.usefixtures("packets")
def test_what_may_come_during_a_later_exchange_of_keys_does_not_disturb_it(odd: Gateway, key: Path) -> None:
    odd.oddity = None
    with contextlib.closing(log_in(key, odd.port)) as link:
        server = odd.connections[-1]
        # Else paramiko's server answers to them in the middle, which is not allowed.
        wait_until(lambda: len(link._sessions._ahead) == 3, 10, "the channels opened ahead")
        said = (b"\x08" + BAD, b"\x13", b"\x1d", b"\x02", b"\x04" + HUGE, b"\x03" + HUGE)  # RFC 4253, section 7.1
        server.say_in_exchange(said)
        server.renegotiate_keys()
        wait_until(lambda: len(server.unimplemented) == 3, 10, "the answers")
        assert server.unimplemented == server.sent[:3]
        assert link.heartbeat(5) < 5
        link.open_channel(("127.0.0.1", 1)).close()


def test_an_answer_of_sftp_that_is_no_utf8_is_an_error_with_a_name(odd: Gateway, key: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    version, status = b"\x02" + struct.pack(">I", 3), b"\x65" + struct.pack(">II", 1, 4) + text(BAD) + text(b"")
    answers = text(version) + text(status)
    odd.oddity = Oddity("request", (b"\x63" + bytes(4), b"\x5e" + bytes(4) + text(answers)), "wait")
    with contextlib.closing(log_in(key, odd.port)) as link:
        wait_until(lambda: len(link._sessions._ahead) == 3, 10, "the channels opened ahead, of which 0 is the first")
        with pytest.raises(errors.RemoteFailed):
            link.put(str(tmp_path / "file"), "/tmp/file")


def test_a_key_of_the_agent_may_have_any_comment(tmp_path: Path, key: Path) -> None:
    blob = keys.public_blob(str(key))
    assert blob is not None
    answer = text(b"\x0c" + struct.pack(">I", 1) + text(blob) + text(BAD))
    path = tmp_path / "agent"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(100)
                connection.sendall(answer)
                connection.recv(100)

        thread = threading.Thread(target=serve)
        thread.start()
        agent = keys.Agent(str(path))
        assert [one.asbytes() for one in agent.get_keys()] == [blob]
        agent.close()
        thread.join()


@pytest.mark.usefixtures("packets")
def test_a_flood_of_unknown_messages_takes_bounded_memory(
    odd: Gateway, key: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("outbox", "plainpackets"):
        monkeypatch.setattr(f"jupyman.ssh.{module}.FLOOD", 1 << 20)
    ended, over = threading.Event(), threading.Event()
    with contextlib.closing(log_in(key, odd.port)) as link:
        link.on_lost(lambda _: ended.set())
        server = odd.connections[-1]
        # It stops reading at the first answer.
        server.on_unimplemented = lambda _: over.wait(120)
        sock: Any = link.transport.sock
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)
        said = 0
        with contextlib.suppress(OSError, EOFError):
            while not ended.is_set() and said < 50_000:
                server.say(*[b"\xc8"] * 100)
                said += 100
        try:
            assert ended.wait(60), f"{said} unknown messages whose answers nobody reads"
        finally:
            over.set()


CHANNEL = [
    b"\x50" + text(BAD) + b"\x01",
    b"\x50" + HUGE,
    b"\x5a" + text(BAD) + bytes(12),
    b"\x5a" + HUGE,
    b"\x5b" + bytes(4),
    b"\x5c" + bytes(4) + struct.pack(">I", 1) + text(BAD) + text(BAD),
    b"\x5c" + bytes(4) + HUGE * 2,
    b"\x5c" + bytes(4),
    b"\x62" + bytes(4) + text(b"exit-signal") + b"\x00" + text(BAD) + b"\x01" + text(BAD) + text(BAD),
    b"\x62" + bytes(4) + text(BAD) + b"\x01",
    b"\x62" + bytes(4) + HUGE,
    b"\x5e" + bytes(4) + HUGE,
    b"\x5f" + bytes(4) + HUGE * 2,
    b"\x5d" + bytes(4) + HUGE,
    b"\x5d" + bytes(4),
    b"\x5e\x01\x00\x00\x00" + HUGE,
    b"\x5b\x01\x00\x00\x00",
    b"\x62\x01\x00\x00\x00" + HUGE,
]


@pytest.mark.usefixtures("packets")
@pytest.mark.parametrize("moment", ["after", "open", "request"])
@pytest.mark.parametrize("number", range(len(CHANNEL)))
def test_odd_words_on_channels_end_in_an_error_with_a_name_or_in_nothing(
    odd: Gateway, key: Path, moment: Moment, number: int
) -> None:
    odd.oddity = Oddity(moment, (CHANNEL[number],), "go on")
    reasons: list[str] = []
    link = entered(key, odd.port)
    if link is None:
        return
    with contextlib.closing(link):
        link.on_lost(reasons.append)
        with contextlib.suppress(errors.JupymanError):
            link.open_channel(("127.0.0.1", 1), timeout=2.0).close()
        with contextlib.suppress(errors.JupymanError):
            link.run("true\n", timeout=1.0)
        if not link.alive:
            wait_until(lambda: reasons, 5, "the reason")
            assert reasons[0].isprintable()


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
def test_whatever_a_host_says_is_an_error_with_a_name_or_a_link(odd: Gateway, key: Path, oddity: Oddity) -> None:
    odd.oddity = oddity
    link = entered(key, odd.port)
    if link is not None:
        with contextlib.closing(link), contextlib.suppress(errors.JupymanError):
            link.open_channel(("127.0.0.1", 1), timeout=1.0).close()


@pytest.mark.usefixtures("packets")
def test_a_supervisor_goes_on_after_every_odd_answer(odd: Gateway, key: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_a_person_who_meets_an_odd_host_reads_two_lines(cli: Cli, road: Gateway) -> None:
    for what, oddity in ODD.items():
        if oddity.then == "close":
            road.oddity = oddity
            ran = cli("check", "server1")
            assert ran.rc in {10, 13}, (what, ran)
            says(ran, ran.rc)
    no_traceback(cli)


def test_a_session_comes_back_after_every_odd_answer(cli: Cli, road: Gateway) -> None:
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
