"""Reaching a host, and knowing that it is the one: faults of the network and of host keys, against a real sshd."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from jupyman import errors
from jupyman.ssh.config import ssh_g as ssh_config
from jupyman.ssh.link import scan
from jupyman.ssh.login import dial, hostkeys
from tests.integration.ssh.test_sshd_bed import Answers, Sshd, keygen, public, sshd


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    with sshd(tmp_path_factory.mktemp("hosts") / "bed", rsa=True) as one:
        yield one


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return keygen(tmp_path_factory.mktemp("other") / "key")


@pytest.fixture
def bed(server: Sshd) -> Iterator[Sshd]:
    yield server
    server.trust()
    server.configure()


def works(bed: Sshd, ask: Answers | None = None) -> bool:
    with contextlib.closing(bed.open(ask=ask)) as link:
        return link.run("echo hello\n", timeout=10).stdout == b"hello\n"


# --- the network --------------------------------------------------------------------------------------------------


def test_a_refused_port_is_unreachable(bed: Sshd) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        bed.configure(f"Port {probe.getsockname()[1]}")
        start = time.monotonic()
        with pytest.raises(errors.HostUnreachable, match="connection refused") as caught:
            bed.open()
        assert time.monotonic() - start < 2
        assert not isinstance(caught.value, errors.HostSilent), "a no is an answer"


def test_a_name_that_does_not_resolve(bed: Sshd) -> None:
    with pytest.raises(errors.UnknownHost, match=r"nowhere\.invalid"):
        bed.open(host="nowhere.invalid")
    bed.configure("HostName nowhere.invalid")
    with pytest.raises(errors.HostUnreachable, match=r"nowhere\.invalid does not resolve") as caught:
        bed.open()
    assert isinstance(caught.value, errors.HostSilent)


def test_a_silent_listener_is_given_up_in_time(bed: Sshd) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        bed.configure(f"Port {silent.getsockname()[1]}")
        start = time.monotonic()
        with pytest.raises(errors.HostUnreachable, match="no SSH handshake") as caught:
            bed.open(timeout=1.0)
        assert time.monotonic() - start < 2.5
        assert not isinstance(caught.value, errors.HostSilent)


def test_a_full_backlog_is_given_up_in_time(bed: Sshd) -> None:
    # Nothing is dropped by a firewall here; a full backlog looks the same to the one who connects.
    with socket.socket() as full, contextlib.ExitStack() as stack:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for _ in range(4):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(full.getsockname())
        bed.configure(f"Port {full.getsockname()[1]}")
        start = time.monotonic()
        with pytest.raises(errors.HostUnreachable) as caught:
            bed.open(timeout=1.0)
        assert time.monotonic() - start < 2.5
        assert isinstance(caught.value, errors.HostSilent)
        each_address_has_its_turn(bed, full.getsockname())


def each_address_has_its_turn(bed: Sshd, silent: tuple[str, int]) -> None:
    """An attempt in the background is short, and the second address may be the one that works."""
    good = ("127.0.0.1", bed.port)
    answers = [(socket.AF_INET, socket.SOCK_STREAM, 0, "", address) for address in (silent, good)]
    config = ssh_config.read(bed.host, ssh_config=str(bed.config_file))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket, "getaddrinfo", lambda *_: answers)
        with dial.tcp(config, 10.0, None, 0.3) as connection:
            assert connection.getpeername() == good


def test_waiting_for_a_silent_host_can_be_cancelled(bed: Sshd) -> None:
    cancelled = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as silent, ThreadPoolExecutor(1) as pool:
        bed.configure(f"Port {silent.getsockname()[1]}")
        opening = pool.submit(bed.open, timeout=20.0, cancelled=cancelled)
        connection, _ = silent.accept()
        cancelled.set()
        start = time.monotonic()
        with pytest.raises(errors.Interrupted):
            opening.result(5)
        assert time.monotonic() - start < 1
        connection.close()


def test_something_else_than_ssh_is_named(bed: Sshd) -> None:
    with socket.create_server(("127.0.0.1", 0)) as web, ThreadPoolExecutor(1) as pool:
        bed.configure(f"Port {web.getsockname()[1]}")
        opening = pool.submit(bed.open, timeout=3.0)
        connection, _ = web.accept()
        with connection:
            connection.sendall(b"HTTP/1.0 400 Bad Request\r\n\r\n")
            connection.shutdown(socket.SHUT_WR)
            with pytest.raises(errors.HostUnreachable):
                opening.result(5)


def test_ipv6_and_address_family(tmp_path: Path) -> None:
    with sshd(tmp_path / "six", address="::1") as six:
        six.trust(f"[::1]:{six.port} {public(six.host_key)}\n")
        assert works(six)
        six.configure("AddressFamily inet")
        with pytest.raises(errors.HostUnreachable):
            six.open()


# --- host keys ----------------------------------------------------------------------------------------------------


def test_an_unknown_key_is_refused_without_a_terminal_and_nothing_is_sent(bed: Sshd) -> None:
    bed.trust("")
    seen = len(bed.log)
    with pytest.raises(errors.HostKeyFault, match=r"unknown.*SHA256:") as caught:
        bed.open()
    assert "jupyman host trust bed" in caught.value.hint
    assert bed.known_hosts.read_text() == ""
    assert not [line for line in bed.log[seen:] if "Accepted" in line or "Failed" in line]


def test_an_unknown_key_is_written_after_a_yes(bed: Sshd) -> None:
    bed.known_hosts.unlink()
    answers = Answers("yes")
    assert works(bed, answers)
    ((kind, text),) = answers.asked
    assert kind == "confirm"
    expected = base64.b64encode(hashlib.sha256(base64.b64decode(public(bed.host_key).split()[1])).digest()).decode()
    assert f"SHA256:{expected.rstrip('=')}" in text
    assert bed.known_hosts.read_text() == f"{bed.name} {public(bed.host_key)}\n"
    assert bed.known_hosts.stat().st_mode & 0o777 == 0o600
    assert works(bed)


def test_a_no_sends_nothing(bed: Sshd) -> None:
    bed.trust("")
    with pytest.raises(errors.HostKeyFault, match="not accepted"):
        bed.open(ask=Answers("no"))
    assert bed.known_hosts.read_text() == ""


def test_a_changed_key_names_file_line_and_cure(bed: Sshd, other: Path) -> None:
    bed.trust(f"# comment\n{bed.name} {public(other)}\n")
    with pytest.raises(errors.HostKeyFault, match=f"CHANGED.*{bed.known_hosts} line 2") as caught:
        bed.open(ask=Answers())
    assert f"ssh-keygen -f {bed.known_hosts} -R '{bed.name}'" in caught.value.hint
    assert caught.value.details == {"file": str(bed.known_hosts), "line": 2}


def test_a_changed_key_is_refused_even_with_checking_off(bed: Sshd, other: Path) -> None:
    bed.configure("StrictHostKeyChecking no")
    bed.trust(f"{bed.name} {public(other)}\n")
    with pytest.raises(errors.HostKeyFault, match="CHANGED"):
        bed.open()


@pytest.mark.parametrize("mode", ["accept-new", "no"])
def test_an_unknown_key_is_accepted_where_the_user_says_so(bed: Sshd, mode: str) -> None:
    bed.configure(f"StrictHostKeyChecking {mode}")
    bed.trust("")
    assert works(bed)
    assert bed.known_hosts.read_text() == f"{bed.name} {public(bed.host_key)}\n"


def test_strict_yes_never_asks(bed: Sshd) -> None:
    bed.configure("StrictHostKeyChecking yes")
    bed.trust("")
    with pytest.raises(errors.HostKeyFault):
        bed.open(ask=Answers())


def test_a_revoked_key_is_refused(bed: Sshd) -> None:
    key = public(bed.host_key)
    bed.trust(f"{bed.name} {key}\n@revoked * {key}\n")
    with pytest.raises(errors.HostKeyFault, match=r"revoked.*line 2"):
        bed.open(ask=Answers())


def test_authorities_other_revocations_and_rubbish_do_not_break_the_file(bed: Sshd, other: Path) -> None:
    bed.trust(
        f"@cert-authority *.example.org {public(other)}\n"
        f"@revoked * {public(other)}\n"
        "rubbish\n\x00\xff\n[broken]:x ssh-ed25519 !!!\n@unknown x y z\n"
        f"{bed.name} {public(bed.host_key)}\n"
    )
    assert works(bed)


def test_hashed_names_are_read_and_written(bed: Sshd) -> None:
    salt = b"0123456789abcdefghij"
    digest = hmac.new(salt, bed.name.encode(), hashlib.sha1).digest()
    hashed = f"|1|{base64.b64encode(salt).decode()}|{base64.b64encode(digest).decode()}"
    bed.trust(f"{hashed} {public(bed.host_key)}\n")
    assert works(bed)
    bed.trust("")
    bed.configure("HashKnownHosts yes", "StrictHostKeyChecking accept-new")
    assert works(bed)
    assert bed.known_hosts.read_text().startswith("|1|")
    bed.configure("StrictHostKeyChecking yes")
    assert works(bed)


def test_a_host_known_by_its_rsa_key_does_not_look_changed(bed: Sshd) -> None:
    assert bed.rsa_key is not None
    bed.trust(f"{bed.name} {public(bed.rsa_key)}\n")
    assert works(bed)


def test_an_alias_for_the_key_is_looked_up(bed: Sshd) -> None:
    bed.configure("HostKeyAlias cluster-login")
    bed.trust(f"cluster-login {public(bed.host_key)}\n")
    assert works(bed)


def test_the_key_can_be_looked_at_and_trusted(bed: Sshd) -> None:
    bed.trust("")
    config = ssh_config.read("bed", ssh_config=str(bed.config_file))
    key = scan(config)
    assert f"{key.get_name()} {key.get_base64()}" == public(bed.host_key)
    assert hostkeys.append(config, key) == bed.known_hosts
    assert works(bed)


# --- the configuration --------------------------------------------------------------------------------------------


def test_include_and_match_exec_count(bed: Sshd, tmp_path: Path) -> None:
    main = tmp_path / "main"
    main.write_text(
        f'Match originalhost roundabout exec "test %n = roundabout"\n  HostName 127.0.0.1\n  Port {bed.port}\n'
        f"  HostKeyAlias {bed.name}\n  IdentityFile {bed.user_key}\n  UserKnownHostsFile {bed.known_hosts}\n"
        f"Match all\nInclude {bed.config_file}\n"
    )
    for host in ("bed", "roundabout"):
        config = ssh_config.read(host, ssh_config=str(main))
        assert (config.hostname, config.port) == ("127.0.0.1", bed.port)
        assert str(bed.user_key) in config.identity_files


def test_a_broken_configuration_is_quoted(tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.write_text("Host x\n  NoSuchKeyword 1\n")
    with pytest.raises(errors.ConfigFault, match=r"line 2: Bad configuration option: nosuchkeyword"):
        ssh_config.read("x", ssh_config=str(broken))
    with pytest.raises(errors.ConfigFault, match="does not exist"):
        ssh_config.read("x", ssh_config=str(tmp_path / "absent"))
