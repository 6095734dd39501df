"""Reaching a host and verifying it: faults of the network and of host keys, against a real sshd."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import re
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from jupyman import errors
from jupyman.ssh.config import ssh_g as ssh_config
from jupyman.ssh.link import scan
from jupyman.ssh.login import dial, hostkeys
from tests.bed.sshd import Sshd, keygen, private_sshd, public
from tests.integration.ssh.answers import Answers


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return keygen(tmp_path_factory.mktemp("other") / "key")


def works(sshd: Sshd, ask: Answers | None = None) -> bool:
    with contextlib.closing(sshd.open(ask=ask)) as link:
        return link.run("echo hello\n", timeout=10).stdout == b"hello\n"


# --- the network --------------------------------------------------------------------------------------------------


def test_a_refused_port_is_unreachable(sshd: Sshd) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        sshd.configure(f"Port {probe.getsockname()[1]}")
        start = time.monotonic()
        with pytest.raises(errors.HostUnreachable, match="connection refused") as caught:
            sshd.open()
        assert time.monotonic() - start < 2
        assert not isinstance(caught.value, errors.HostSilent), "a no is an answer"


def test_a_name_that_does_not_resolve(sshd: Sshd) -> None:
    with pytest.raises(errors.UnknownHost, match=r"nowhere\.invalid"):
        sshd.open(host="nowhere.invalid")
    sshd.configure("HostName nowhere.invalid")
    with pytest.raises(errors.HostUnreachable, match=r"nowhere\.invalid does not resolve") as caught:
        sshd.open()
    assert isinstance(caught.value, errors.HostSilent)


def test_a_silent_listener_is_given_up_in_time(sshd: Sshd) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        sshd.configure(f"Port {silent.getsockname()[1]}")
        start = time.monotonic()
        with pytest.raises(errors.HostUnreachable, match="no SSH handshake") as caught:
            sshd.open(timeout=1.0)
        assert time.monotonic() - start < 2.5
        assert not isinstance(caught.value, errors.HostSilent)


def test_a_full_backlog_is_given_up_in_time(sshd: Sshd) -> None:
    # Nothing is dropped by a firewall here; a full backlog looks the same to the one who connects.
    with socket.socket() as full, contextlib.ExitStack() as stack:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for _ in range(4):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(full.getsockname())
        sshd.configure(f"Port {full.getsockname()[1]}")
        start = time.monotonic()
        with pytest.raises(errors.HostUnreachable) as caught:
            sshd.open(timeout=1.0)
        assert time.monotonic() - start < 2.5
        assert isinstance(caught.value, errors.HostSilent)
        each_address_has_its_turn(sshd, full.getsockname())


def each_address_has_its_turn(sshd: Sshd, silent: tuple[str, int]) -> None:
    """An attempt in the background is short, and the second address may be the one that works."""
    good = ("127.0.0.1", sshd.port)
    answers = [(socket.AF_INET, socket.SOCK_STREAM, 0, "", address) for address in (silent, good)]
    config = ssh_config.read(sshd.host, ssh_config=str(sshd.ssh_config))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket, "getaddrinfo", lambda *_: answers)
        with dial.tcp(config, 10.0, None, 0.3) as connection:
            assert connection.getpeername() == good


def test_waiting_for_a_silent_host_can_be_cancelled(sshd: Sshd) -> None:
    cancelled = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as silent, ThreadPoolExecutor(1) as pool:
        sshd.configure(f"Port {silent.getsockname()[1]}")
        opening = pool.submit(sshd.open, timeout=20.0, cancelled=cancelled)
        connection, _ = silent.accept()
        cancelled.set()
        start = time.monotonic()
        with pytest.raises(errors.Interrupted):
            opening.result(5)
        assert time.monotonic() - start < 1
        connection.close()


def test_something_else_than_ssh_is_named(sshd: Sshd) -> None:
    with socket.create_server(("127.0.0.1", 0)) as web, ThreadPoolExecutor(1) as pool:
        sshd.configure(f"Port {web.getsockname()[1]}")
        opening = pool.submit(sshd.open, timeout=3.0)
        connection, _ = web.accept()
        with connection:
            connection.sendall(b"HTTP/1.0 400 Bad Request\r\n\r\n")
            connection.shutdown(socket.SHUT_WR)
            with pytest.raises(errors.HostUnreachable):
                opening.result(5)


def test_ipv6_and_address_family(tmp_path: Path) -> None:
    with private_sshd(tmp_path / "six", address="::1") as six:
        six.trust(f"[::1]:{six.port} {public(six.host_keys[0])}\n")
        assert works(six)
        six.configure("AddressFamily inet")
        with pytest.raises(errors.HostUnreachable):
            six.open()


# --- host keys ----------------------------------------------------------------------------------------------------


def test_an_unknown_key_is_refused_without_a_terminal_and_nothing_is_sent(sshd: Sshd) -> None:
    sshd.trust("")
    seen = sshd.log.stat().st_size
    with pytest.raises(errors.HostKeyFault, match=r"unknown.*SHA256:") as caught:
        sshd.open()
    assert "jupyman host trust bed" in caught.value.hint
    assert sshd.known_hosts.read_text() == ""
    assert not re.findall(r"Accepted|Failed", sshd.log.read_text()[seen:])


def test_an_unknown_key_is_written_after_a_yes(sshd: Sshd) -> None:
    sshd.known_hosts.unlink()
    answers = Answers("yes")
    assert works(sshd, answers)
    ((kind, text),) = answers.asked
    assert kind == "confirm"
    expected = base64.b64encode(
        hashlib.sha256(base64.b64decode(public(sshd.host_keys[0]).split()[1])).digest()
    ).decode()
    assert f"SHA256:{expected.rstrip('=')}" in text
    assert sshd.known_hosts.read_text() == f"{sshd.name} {public(sshd.host_keys[0])}\n"
    assert sshd.known_hosts.stat().st_mode & 0o777 == 0o600
    assert works(sshd)


def test_a_no_sends_nothing(sshd: Sshd) -> None:
    sshd.trust("")
    with pytest.raises(errors.HostKeyFault, match="not accepted"):
        sshd.open(ask=Answers("no"))
    assert sshd.known_hosts.read_text() == ""


def test_a_changed_key_names_file_line_and_cure(sshd: Sshd, other: Path) -> None:
    sshd.trust(f"# comment\n{sshd.name} {public(other)}\n")
    with pytest.raises(errors.HostKeyFault, match=f"CHANGED.*{sshd.known_hosts} line 2") as caught:
        sshd.open(ask=Answers())
    assert f"ssh-keygen -f {sshd.known_hosts} -R '{sshd.name}'" in caught.value.hint
    assert caught.value.details == {"file": str(sshd.known_hosts), "line": 2}


def test_a_changed_key_is_refused_even_with_checking_off(sshd: Sshd, other: Path) -> None:
    sshd.configure("StrictHostKeyChecking no")
    sshd.trust(f"{sshd.name} {public(other)}\n")
    with pytest.raises(errors.HostKeyFault, match="CHANGED"):
        sshd.open()


@pytest.mark.parametrize("mode", ["accept-new", "no"])
def test_an_unknown_key_is_accepted_if_configured_so(sshd: Sshd, mode: str) -> None:
    sshd.configure(f"StrictHostKeyChecking {mode}")
    sshd.trust("")
    assert works(sshd)
    assert sshd.known_hosts.read_text() == f"{sshd.name} {public(sshd.host_keys[0])}\n"


def test_strict_yes_never_asks(sshd: Sshd) -> None:
    sshd.configure("StrictHostKeyChecking yes")
    sshd.trust("")
    with pytest.raises(errors.HostKeyFault):
        sshd.open(ask=Answers())


def test_a_revoked_key_is_refused(sshd: Sshd) -> None:
    key = public(sshd.host_keys[0])
    sshd.trust(f"{sshd.name} {key}\n@revoked * {key}\n")
    with pytest.raises(errors.HostKeyFault, match=r"revoked.*line 2"):
        sshd.open(ask=Answers())


def test_authorities_other_revocations_and_rubbish_do_not_break_the_file(sshd: Sshd, other: Path) -> None:
    sshd.trust(
        f"@cert-authority *.example.org {public(other)}\n"
        f"@revoked * {public(other)}\n"
        "rubbish\n\x00\xff\n[broken]:x ssh-ed25519 !!!\n@unknown x y z\n"
        f"{sshd.name} {public(sshd.host_keys[0])}\n"
    )
    assert works(sshd)


def test_hashed_names_are_read_and_written(sshd: Sshd) -> None:
    salt = b"0123456789abcdefghij"
    digest = hmac.new(salt, sshd.name.encode(), hashlib.sha1).digest()
    hashed = f"|1|{base64.b64encode(salt).decode()}|{base64.b64encode(digest).decode()}"
    sshd.trust(f"{hashed} {public(sshd.host_keys[0])}\n")
    assert works(sshd)
    sshd.trust("")
    sshd.configure("HashKnownHosts yes", "StrictHostKeyChecking accept-new")
    assert works(sshd)
    assert sshd.known_hosts.read_text().startswith("|1|")
    sshd.configure("StrictHostKeyChecking yes")
    assert works(sshd)


def test_a_host_known_by_its_rsa_key_does_not_look_changed(sshd: Sshd) -> None:
    sshd.trust(f"{sshd.name} {public(sshd.host_keys[1])}\n")
    assert works(sshd)


def test_an_alias_for_the_key_is_looked_up(sshd: Sshd) -> None:
    sshd.configure("HostKeyAlias cluster-login")
    sshd.trust(f"cluster-login {public(sshd.host_keys[0])}\n")
    assert works(sshd)


def test_the_key_can_be_looked_at_and_trusted(sshd: Sshd) -> None:
    sshd.trust("")
    config = ssh_config.read("bed", ssh_config=str(sshd.ssh_config))
    key = scan(config)
    assert f"{key.get_name()} {key.get_base64()}" == public(sshd.host_keys[0])
    assert hostkeys.append(config, key) == sshd.known_hosts
    assert works(sshd)


# --- the configuration --------------------------------------------------------------------------------------------


def test_include_and_match_exec_count(sshd: Sshd, tmp_path: Path) -> None:
    main = tmp_path / "main"
    main.write_text(
        f'Match originalhost roundabout exec "test %n = roundabout"\n  HostName 127.0.0.1\n  Port {sshd.port}\n'
        f"  HostKeyAlias {sshd.name}\n  IdentityFile {sshd.client_key}\n  UserKnownHostsFile {sshd.known_hosts}\n"
        f"Match all\nInclude {sshd.ssh_config}\n"
    )
    for host in ("bed", "roundabout"):
        config = ssh_config.read(host, ssh_config=str(main))
        assert (config.hostname, config.port) == ("127.0.0.1", sshd.port)
        assert str(sshd.client_key) in config.identity_files


def test_a_broken_configuration_is_quoted(tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.write_text("Host x\n  NoSuchKeyword 1\n")
    with pytest.raises(errors.ConfigFault, match=r"line 2: Bad configuration option: nosuchkeyword"):
        ssh_config.read("x", ssh_config=str(broken))
    with pytest.raises(errors.ConfigFault, match="does not exist"):
        ssh_config.read("x", ssh_config=str(tmp_path / "absent"))
