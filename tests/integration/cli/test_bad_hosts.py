"""Hosts that are unreachable, have another key or refuse the login, by the real command line."""

from __future__ import annotations

import contextlib
import re
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.bed import Bed, Cli, Sshd, User, keygen
from tests.bed.aftermath import nothing_left, refused, says, servers, tells
from tests.bed.ports import free_port
from tests.bed.terminal import Terminal

PASSWORD = "correct horse"
WITH_PASSWORD = ("PasswordAuthentication yes", "PubkeyAuthentication no")
GARBAGE = bytes(range(256)) * 4096


def configured(cli: Cli, base: Path, *lines: str) -> None:
    """Let lines of an ssh_config win over those of the bed."""
    cli.ssh_config = cli.user_home / "ssh_config"
    cli.ssh_config.write_text("\n".join(["Host *", *(f"    {line}" for line in lines), base.read_text()]))


def aliases(cli: Cli, ports: Mapping[str, int], *lines: str) -> None:
    """Make an alias for each port of this computer."""
    cli.ssh_config = cli.user_home / "ssh_config"
    blocks = [f"Host {name}\n    HostName 127.0.0.1\n    Port {port}\n" for name, port in ports.items()]
    cli.ssh_config.write_text("".join([*(f"{line}\n" for line in lines), *blocks]))


@contextlib.contextmanager
def talker(said: bytes, *, hold: bool = True) -> Iterator[int]:
    """Listen; to each who connects say the same, then hang up or keep silent; yields the port."""
    with socket.create_server(("127.0.0.1", 0)) as listener, contextlib.ExitStack() as held:

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = listener.accept()
                    with contextlib.suppress(OSError):
                        connection.sendall(said)
                    if hold:
                        held.callback(connection.close)
                    else:
                        connection.close()

        threading.Thread(target=serve, daemon=True).start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def black_hole() -> Iterator[int]:
    """A port that drops what comes, as a firewall does: its backlog is full."""
    with socket.socket() as full, contextlib.ExitStack() as stack:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for _ in range(4):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(full.getsockname())
        yield full.getsockname()[1]


# --- nobody there -------------------------------------------------------------------------------------------------


def test_a_name_that_is_no_host(cli: Cli, user: User) -> None:
    ran = refused(cli, "up", "nowhere.invalid", status=2, code="unknown-host")
    assert "nowhere.invalid" in ran.stderr
    assert "~/.ssh/config" in ran.stderr
    nothing_left(cli, user)


def test_an_alias_whose_name_does_not_resolve(cli: Cli, user: User, ssh_config: Path) -> None:
    configured(cli, ssh_config, "HostName nowhere.invalid")
    assert (
        "nowhere.invalid does not resolve" in refused(cli, "up", "server1", status=10, code="host-unreachable").stderr
    )
    nothing_left(cli, user)


def test_a_refused_port(cli: Cli, user: User, ssh_config: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        configured(cli, ssh_config, f"Port {probe.getsockname()[1]}")
        for verb in ("up", "check", "ps"):
            words = [verb, "server1", *(["-a"] if verb == "ps" else [])]
            assert "connection refused" in refused(cli, *words, status=10, code="host-unreachable").stderr
    nothing_left(cli, user)


def test_silence_and_a_black_hole_are_given_up_after_ten_seconds(cli: Cli, user: User) -> None:
    # Both at once: each takes its ten seconds.
    with talker(b"") as silent, black_hole() as hole, talker(b"SSH-2.0-OpenSSH_9.2\r\n") as stuck:
        ports = {"silent": silent, "hole": hole, "stuck": stuck}
        aliases(cli, ports)
        assert cli("ps").rc == 0  # starts the daemon
        begun = time.monotonic()
        waiting = [cli.start("up", name, "--no-browser") for name in ports]
        ended = [process.communicate(timeout=40) for process in waiting]
        assert 9 < time.monotonic() - begun < 30
        for process, (out, err) in zip(waiting, ended, strict=True):
            assert (process.returncode, out) == (10, "")
            assert [line.split(":")[0] for line in err.splitlines()[-2:]] == ["error", "hint"]
    nothing_left(cli, user)


def test_what_is_no_ssh_server(cli: Cli, user: User) -> None:
    http = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"
    greetings = {
        "http": (http, False),
        "http-that-waits": (http, True),
        "garbage": (GARBAGE, False),
        "garbage-that-waits": (GARBAGE, True),
        "endless-line": (b"x" * 1024 * 1024, True),
        "many-lines": (b"welcome\r\n" * 1000, True),
        "ssh-1": (b"SSH-1.5-old\r\n", False),
        "garbage-after-ssh": (b"SSH-2.0-OpenSSH_9.2\r\n" + GARBAGE, True),
        "nothing": (b"", False),
    }
    with contextlib.ExitStack() as stack:
        ports = {name: stack.enter_context(talker(said, hold=hold)) for name, (said, hold) in greetings.items()}
        aliases(cli, ports, "ConnectTimeout 1")
        for name in ports:
            ran = cli("up", name)
            says(ran, 10)
            assert "codec" not in ran.stderr, ran
        tells(cli("up", "garbage", "--json"), 10, "host-unreachable")
    nothing_left(cli, user)


# --- not let in ---------------------------------------------------------------------------------------------------


def test_a_wrong_key(cli: Cli, user: User, ssh_config: Path) -> None:
    wrong = keygen(cli.user_home / "wrong")
    cli.ssh_config = cli.user_home / "ssh_config"
    cli.ssh_config.write_text(re.sub(r"IdentityFile .*", f"IdentityFile {wrong}", ssh_config.read_text()))
    ran = refused(cli, "up", "server1", status=11, code="auth-failed")
    assert str(wrong) in ran.stderr
    assert "publickey" in ran.stderr
    nothing_left(cli, user)


@pytest.fixture
def asking(fresh_bed: Bed, user: User, cli: Cli) -> Iterator[Sshd]:
    """An sshd that wants a password."""
    if not user.made:
        pytest.skip("only root can give an account a password")
    user.set_password(PASSWORD)
    with fresh_bed.start_sshd(*WITH_PASSWORD) as sshd:
        cli.ssh_config = sshd.ssh_config
        yield sshd


def test_a_wrong_password(cli: Cli, user: User, asking: Sshd) -> None:
    with Terminal(cli, "up", "server1", "--no-browser") as terminal:
        for attempt in range(3):
            terminal.expect("password:")
            assert not terminal.echoes()
            terminal.type(f"guess {attempt}\n")
        ran = terminal.end()
        assert terminal.echoes()
    says(ran, 11)
    assert "guess" not in ran.stderr
    assert "guess" not in asking.log.read_text()
    nothing_left(cli, user)


def test_a_right_password_at_the_second_try(cli: Cli, user: User, asking: Sshd) -> None:
    del user, asking
    with Terminal(cli, "env", "ls", "server1") as terminal:
        terminal.expect("password:")
        terminal.type("guess\n")
        terminal.expect("password:")
        terminal.type(f"{PASSWORD}\n")
        terminal.expect("Keep this password")
        terminal.type("n\n")
        ran = terminal.end()
    assert ran.rc == 0, ran
    assert "pytorch" in ran.stdout
    assert PASSWORD not in "".join(log.read_text() for log in cli.home.rglob("*.log"))


def test_a_password_without_a_terminal(cli: Cli, user: User, asking: Sshd) -> None:
    del asking
    assert "on a terminal" in refused(cli, "up", "server1", status=11, code="auth-failed").stderr
    nothing_left(cli, user)


# --- host keys ----------------------------------------------------------------------------------------------------


def attempts(sshd: Sshd) -> list[str]:
    """The lines of its log that tell of a login, good or bad."""
    said = ("Accepted", "Failed", "Postponed", "invalid user")
    return [line for line in sshd.log.read_text().splitlines() if any(word in line for word in said)]


def test_an_unknown_host_key_without_a_terminal(cli: Cli, user: User, fresh_bed: Bed) -> None:
    with fresh_bed.start_sshd() as sshd:
        known = cli.user_home / "known_hosts"
        configured(cli, sshd.ssh_config, f"UserKnownHostsFile {known}", "StrictHostKeyChecking ask")
        ran = refused(cli, "up", "server1", status=12, code="host-key")
        assert "SHA256:" in ran.stderr
        assert "jupyman host trust server1" in ran.stderr
        assert not known.exists()
        assert attempts(sshd) == []
    nothing_left(cli, user)


def test_a_changed_host_key_names_file_and_line_and_sends_nothing(cli: Cli, user: User, fresh_bed: Bed) -> None:
    with fresh_bed.start_sshd(host_keys=["ed25519"]) as sshd:
        known = cli.user_home / "known_hosts"
        other = Path(f"{keygen(cli.user_home / 'other')}.pub").read_text()
        known.write_text(f"# a comment\n\n[127.0.0.1]:{sshd.port} {other}")
        before = known.read_text()
        configured(cli, sshd.ssh_config, f"UserKnownHostsFile {known}", "StrictHostKeyChecking no")
        ran = refused(cli, "up", "server1", status=12, code="host-key")
        assert f"{known} line 3" in ran.stderr
        assert f"ssh-keygen -f {known} -R" in ran.stderr
        assert known.read_text() == before
        with Terminal(cli, "up", "server1", "--no-browser") as terminal:  # no question can override it
            says(terminal.end(), 12)
        assert attempts(sshd) == []
    nothing_left(cli, user)


# --- an sshd that forbids -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("option", ["AllowTcpForwarding no", "DisableForwarding yes", "PermitOpen none"])
def test_an_sshd_that_forbids_forwarding(cli: Cli, user: User, fresh_bed: Bed, option: str) -> None:
    with fresh_bed.start_sshd(option) as sshd:
        cli.ssh_config = sshd.ssh_config
        ran = refused(cli, "up", "server1", status=14, code="forwarding-refused")
        assert "sshd_config" in ran.stderr
        assert not (user.home / ".local/state/jupyman").exists()  # nothing was started
        nothing_left(cli, user)


def test_an_sshd_with_one_session(cli: Cli, user: User, fresh_bed: Bed) -> None:
    with fresh_bed.start_sshd("MaxSessions 1") as sshd:
        cli.ssh_config = sshd.ssh_config
        up = cli("up", "server1", "--json", "--app", "server", "--port", str(free_port()))
        assert up.rc == 0, up
        assert up.json["state"] == "running"
        assert cli("check", "server1", "--json").json["environments"]
        assert len(servers(user)) == 1
        assert cli("kill", "server1").rc == 0
        nothing_left(cli, user)


def test_an_sshd_that_starts_no_shell(cli: Cli, user: User, fresh_bed: Bed) -> None:
    with fresh_bed.start_sshd("MaxSessions 0") as sshd:
        cli.ssh_config = sshd.ssh_config
        ran = cli("up", "server1")
        says(ran, 27)
        assert "MaxSessions" in ran.stderr
    with fresh_bed.start_sshd("ForceCommand echo 'this account is closed'; echo 'ask the admin' >&2") as sshd:
        cli.ssh_config = sshd.ssh_config
        ran = refused(cli, "up", "server1", status=27, code="remote-failed")
    nothing_left(cli, user)
