"""Destinations, and the output of `ssh -G`."""

from __future__ import annotations

import hashlib
import socket
import string
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jupyman import errors
from jupyman.ssh.config import fallback, ssh_g
from jupyman.ssh.config.destination import Destination
from jupyman.ssh.config.ssh_g import HostConfig

# --- destinations -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("server1", Destination("server1")),
        ("alice@server1", Destination("server1", "alice")),
        ("alice@10.0.0.7:22", Destination("10.0.0.7", "alice", 22)),
        ("server1:2222", Destination("server1", None, 2222)),
        ("::1", Destination("::1")),
        ("fe80::1%eth0", Destination("fe80::1%eth0")),
        ("bob@::1", Destination("::1", "bob")),
        ("[::1]:2222", Destination("::1", None, 2222)),
        ("bob@[::1]:2222", Destination("::1", "bob", 2222)),
        ("alice@corp.example@server1", Destination("server1", "alice@corp.example")),
        ("CORP\\alice@server1:22", Destination("server1", "CORP\\alice", 22)),
        ("ssh://bob@server1:2022", Destination("server1", "bob", 2022)),
        ("ssh://server1/", Destination("server1")),
        ("a" * 255, Destination("a" * 255)),
    ],
)
def test_destinations(text: str, expected: Destination) -> None:
    assert Destination.parse(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "-oProxyCommand=x",
        "bob@-x",
        "-bob@x",
        "a b",
        "a\tb",
        "a\nb",
        "a\x00b",
        "a" * 256,
        "@",
        "bob@",
        "x:",
        "x:0",
        "x:65536",
        "x:port",
        ":22",
        "[::1",
        "[::1]x",
        "$(id)",
        "a;b",
        "a`b`",
        "a|b",
        "bob;@x",
        "bob'@x",
        "x\\y",
        "a&b",
        "bob\\@x",
        "ssh://",
        "ssh://-x",
        "[-x]:22",
        "\x7f",
    ],
)
def test_what_cannot_be_a_host_is_refused_before_anything_runs(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object, **__: object) -> None:
        raise AssertionError("ssh was called")

    monkeypatch.setattr("subprocess.run", never)
    with pytest.raises(errors.UsageFault) as caught:
        ssh_g.read(text)
    assert caught.value.status == 2


@given(st.text(max_size=300))
def test_no_text_becomes_an_option_or_shell_syntax(text: str) -> None:
    try:
        found = Destination.parse(text)
    except errors.UsageFault:
        return
    for part in (found.name, found.user or ""):
        assert not part.startswith("-")
        assert not set(part) & set(" \t\n\x00'\"`;&|<>(){}")
    assert found.name
    assert "$" not in found.name
    assert found.port is None or 1 <= found.port <= 65535


names = st.text(string.ascii_letters + string.digits + ".-_", min_size=1, max_size=40).filter(lambda t: t[0] != "-")


@given(names, names, st.integers(1, 65535))
def test_what_is_put_together_comes_apart_again(user: str, name: str, port: int) -> None:
    assert Destination.parse(f"{user}@{name}:{port}") == Destination(name, user, port)
    assert Destination.parse(f"{user}@{name}") == Destination(name, user)


# --- ssh -G -------------------------------------------------------------------------------------------------------


def parse(*lines: str, alias: str = "server1") -> HostConfig:
    base = ["host server1", "user alice", "hostname login.example.org", "port 22"]
    overridden = {line.split(" ", 1)[0] for line in lines}
    kept = [line for line in base if line.split(" ", 1)[0] not in overridden]
    return ssh_g.parse("\n".join([*kept, *lines, ""]), Destination(alias))


def test_the_plain_facts() -> None:
    found = parse("port 2222")
    assert (found.alias, found.hostname, found.port, found.user) == ("server1", "login.example.org", 2222, "alice")
    assert found.configured
    assert found.known_name == "[login.example.org]:2222"
    assert parse("hostname LOGIN").known_name == "login"
    assert parse("hostkeyalias farm", "port 2222").known_name == "farm"
    assert not parse("hostname server1").configured


HASH = hashlib.sha1(f"{socket.gethostname()}login.example.org22alice".encode(), usedforsecurity=False).hexdigest()


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("identityfile ~/.ssh/%n", f"{ssh_g.home()}/.ssh/server1"),
        ("identityfile %d/key_%r@%h:%p", f"{ssh_g.home()}/key_alice@login.example.org:22"),
        ("identityfile /keys/100%%", "/keys/100%"),
        ("identityfile /keys/%k", "/keys/server1"),
        ("identityfile /keys/%L", f"/keys/{socket.gethostname().split('.')[0]}"),
        ("identityfile /keys/%C", f"/keys/{HASH}"),
        ("identityfile /keys/${JM_TEST}/x", "/keys/from env/x"),
        ("identityfile /keys/with space", "/keys/with space"),
        ("identityfile /keys/%Z", "/keys/%Z"),
    ],
)
def test_tokens_in_paths(line: str, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JM_TEST", "from env")
    assert parse(line).identity_files == (expected,)


def test_the_home_is_the_accounts_as_for_ssh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/somewhere/else")
    assert parse("identityfile ~/.ssh/id").identity_files == (f"{ssh_g.home()}/.ssh/id",)
    assert ssh_g.home() != "/somewhere/else"


def test_several_values() -> None:
    found = parse(
        "identityfile /a",
        "identityfile /b",
        "certificatefile /a-cert.pub",
        "userknownhostsfile /k1 /k2",
        "globalknownhostsfile /dev/null",
    )
    assert found.identity_files == ("/a", "/b")
    assert found.certificate_files == ("/a-cert.pub",)
    assert found.user_known_hosts == ("/k1", "/k2")
    assert found.global_known_hosts == ("/dev/null",)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("identityagent SSH_AUTH_SOCK", None),
        ("identityagent $SSH_AUTH_SOCK", None),
        ("identityagent none", ""),
        ("identityagent /run/agent-%r", "/run/agent-alice"),
        ("identityagent $JM_AGENT", "/from/env"),
        ("identityagent $JM_NOT_SET", ""),
    ],
)
def test_the_agent(line: str, expected: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JM_AGENT", "/from/env")
    assert parse(line).identity_agent == expected
    assert parse().identity_agent is None


@pytest.mark.parametrize(
    ("lines", "jump", "command"),
    [
        ([], (), None),
        (["proxyjump none"], (), None),
        (["proxyjump a"], ("a",), None),
        (["proxyjump bob@a:2222,[::1]:22"], ("bob@a:2222", "[::1]:22"), None),
        (["proxycommand nc -X 5 %h %p"], (), "nc -X 5 login.example.org 22"),
        (["proxycommand none"], (), None),
        (["proxycommand ssh -W '[%h]:%p' %r@%n 100%%"], (), "ssh -W '[login.example.org]:22' alice@server1 100%"),
    ],
)
def test_the_way(lines: list[str], jump: tuple[str, ...], command: str | None) -> None:
    found = parse(*lines)
    assert (found.proxy_jump, found.proxy_command) == (jump, command)


@pytest.mark.parametrize(
    ("word", "expected"),
    [("ask", "ask"), ("true", "yes"), ("yes", "yes"), ("false", "no"), ("off", "no"), ("accept-new", "accept-new")],
)
def test_strictness(word: str, expected: str) -> None:
    assert parse(f"stricthostkeychecking {word}").strict == expected


def test_switches() -> None:
    found = parse(
        "identitiesonly yes",
        "addressfamily inet6",
        "connecttimeout 7",
        "hashknownhosts yes",
        "hostkeyalgorithms ssh-ed25519,rsa-sha2-512",
        "passwordauthentication no",
        "pubkeyauthentication false",
    )
    assert found.identities_only
    assert found.address_family == "inet6"
    assert found.connect_timeout == 7.0
    assert found.hash_known_hosts
    assert found.host_key_algorithms == ("ssh-ed25519", "rsa-sha2-512")
    assert found.methods == ("keyboard-interactive",)
    assert parse("connecttimeout none").connect_timeout is None
    assert parse().methods == ("publickey", "keyboard-interactive", "password")


# --- without an ssh binary ----------------------------------------------------------------------------------------


def plain(tmp_path: Path, text: str, name: str = "server1") -> HostConfig:
    path = tmp_path / "config"
    path.write_text(text)
    return fallback.read(Destination(name), str(path))


def test_paramikos_reader_does_the_plain_things(tmp_path: Path) -> None:
    text = "Host server1\n HostName h\n Port 2200\n User bob\n IdentityFile /k\n IdentitiesOnly yes\n ProxyJump a,b\n"
    found = plain(tmp_path, text + "Match host h\n ConnectTimeout 5\n")
    assert (found.hostname, found.port, found.user, found.identity_files) == ("h", 2200, "bob", ("/k",))
    assert found.identities_only
    assert found.proxy_jump == ("a", "b")
    assert plain(tmp_path, "").hostname == "server1"


@pytest.mark.parametrize(
    "line", ["Include other", "include=other", "  Include  ~/x", "Match tagged x", "Match exec x sessiontype y"]
)
def test_what_paramiko_would_ignore_is_named(tmp_path: Path, line: str) -> None:
    with pytest.raises(errors.ConfigFault, match="line 2"):
        plain(tmp_path, f"# comment\n{line}\n")


def test_words_of_an_exec_are_no_keywords() -> None:
    # By itself: paramiko's `Match exec` leaves its process's pipes to the garbage collector.
    assert fallback.keywords('exec "test a = b" host x') == ["exec", "host"]
    assert fallback.keywords("final !all originalhost a,b") == ["final", "!all", "originalhost"]


def test_it_is_used_if_ssh_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "config"
    path.write_text("Host server1\n Port 2200\n")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert ssh_g.read("server1", ssh_config=str(path)).port == 2200
