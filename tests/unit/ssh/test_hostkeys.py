"""known_hosts: reading, verdicts, order, writing."""

from __future__ import annotations

import base64
import hashlib
import hmac
from dataclasses import replace
from pathlib import Path

import paramiko
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jupyman import errors
from jupyman.ssh.config.ssh_g import HostConfig
from jupyman.ssh.login import hostkeys
from jupyman.ssh.login.hostkeys import Changed, Known, Revoked, Unknown

ONE = paramiko.ECDSAKey.generate(bits=256)
TWO = paramiko.ECDSAKey.generate(bits=256)
OTHER_TYPE = paramiko.ECDSAKey.generate(bits=384)


def line(key: paramiko.PKey, names: str = "h", marker: str = "") -> str:
    return f"{marker + ' ' if marker else ''}{names} {key.get_name()} {key.get_base64()}"


def hashed(name: str) -> str:
    salt = b"s" * 20
    digest = hmac.new(salt, name.encode(), hashlib.sha1).digest()
    return f"|1|{base64.b64encode(salt).decode()}|{base64.b64encode(digest).decode()}"


@pytest.fixture
def config(tmp_path: Path) -> HostConfig:
    return HostConfig(
        alias="h",
        hostname="h",
        port=22,
        user="u",
        user_known_hosts=(str(tmp_path / "user"), str(tmp_path / "user2")),
        global_known_hosts=(str(tmp_path / "global"),),
    )


def write(config: HostConfig, *lines: str) -> None:
    Path(config.user_known_hosts[0]).write_text("\n".join(lines) + "\n")


@pytest.mark.parametrize(
    ("names", "host", "expected"),
    [
        ("h", "h", True),
        ("h", "H", True),
        ("h", "hh", False),
        ("a,h,b", "h", True),
        ("*.example.org", "login.example.org", True),
        ("*.example.org,!login.example.org", "login.example.org", False),
        ("!login.example.org,*.example.org", "login.example.org", False),
        ("!h", "other", False),
        ("h?", "h1", True),
        ("h", "[h]:2222", False),
        ("[h]:2222", "[h]:2222", True),
        ("[*]:2222", "[h]:2222", True),
        ("[h]:2222", "h", False),
        ("*", "[h]:2222", True),
        ("[::1]:2222", "[::1]:2222", True),
        (hashed("h"), "h", True),
        (hashed("h"), "i", False),
        (hashed("[h]:2222"), "[h]:2222", True),
        ("|1|broken", "h", False),
        ("|1|!!!|???", "h", False),
        ("|2|a|b", "h", False),
    ],
)
def test_names(names: str, host: str, expected: bool) -> None:
    assert hostkeys.matches(names, host) is expected


def test_verdicts(config: HostConfig) -> None:
    cases: list[tuple[list[str], paramiko.PKey, object]] = [
        ([], ONE, Unknown),
        ([line(ONE, "elsewhere")], ONE, Unknown),
        ([line(ONE)], ONE, Known),
        ([line(TWO), line(ONE)], ONE, Known),
        ([line(TWO)], ONE, Changed),
        ([line(OTHER_TYPE)], ONE, Changed),
        ([line(ONE), line(ONE, "*", "@revoked")], ONE, Revoked),
        ([line(TWO, "*", "@revoked")], ONE, Unknown),
        ([line(TWO, "*", "@cert-authority")], ONE, Unknown),
        ([line(ONE, "*", "@cert-authority")], ONE, Unknown),
        (["rubbish", "h ssh-ed25519", "h ssh-ed25519 !!!", "@x h y z", line(ONE)], ONE, Known),
    ]
    for lines, key, expected in cases:
        write(config, *lines)
        assert type(hostkeys.judge(config, key)) is expected, lines


def test_the_line_is_the_one_that_ssh_keygen_would_remove(config: HostConfig) -> None:
    write(config, "# comment", line(OTHER_TYPE), line(TWO))
    verdict = hostkeys.judge(config, ONE)
    assert isinstance(verdict, Changed)
    assert (verdict.line.file, verdict.line.number) == (config.user_known_hosts[0], 3)
    with pytest.raises(errors.HostKeyFault, match="line 3") as caught:
        hostkeys.verify(config, ONE, lambda *_: "yes")
    assert caught.value.hint.endswith(f"ssh-keygen -f {config.user_known_hosts[0]} -R h")


def test_every_file_counts(config: HostConfig) -> None:
    Path(config.global_known_hosts[0]).write_text(line(ONE) + "\n")
    assert isinstance(hostkeys.judge(config, ONE), Known)
    Path(config.user_known_hosts[1]).write_text(line(ONE, "h", "@revoked") + "\n")
    assert isinstance(hostkeys.judge(config, ONE), Revoked)


def test_an_authority_is_mentioned(config: HostConfig) -> None:
    write(config, line(TWO, "*", "@cert-authority"))
    with pytest.raises(errors.HostKeyFault, match="certificate authority"):
        hostkeys.verify(config, ONE, None)


OFFERED = ("ssh-ed25519", "ecdsa-sha2-nistp256", "rsa-sha2-512", "rsa-sha2-256")


def test_known_kinds_are_asked_for_first(config: HostConfig) -> None:
    assert hostkeys.preferred(config, OFFERED) == OFFERED
    write(config, line(ONE))
    assert hostkeys.preferred(config, OFFERED)[0] == "ecdsa-sha2-nistp256"
    write(config, "h ssh-rsa AAAA")
    assert hostkeys.preferred(config, OFFERED)[:2] == ("rsa-sha2-512", "rsa-sha2-256")
    write(config, line(ONE, "h", "@revoked"))
    assert hostkeys.preferred(config, OFFERED) == OFFERED


def test_the_users_algorithms_limit_the_offer(config: HostConfig) -> None:
    narrow = replace(config, host_key_algorithms=("rsa-sha2-256", "ssh-ed25519", "sk-unknown"))
    assert hostkeys.preferred(narrow, OFFERED) == ("ssh-ed25519", "rsa-sha2-256")
    assert hostkeys.preferred(replace(config, host_key_algorithms=("x",)), OFFERED) == OFFERED


def test_writing_makes_a_private_file_and_keeps_what_is_there(config: HostConfig, tmp_path: Path) -> None:
    fresh = replace(config, user_known_hosts=(str(tmp_path / "new" / "known_hosts"),))
    path = hostkeys.append(fresh, ONE)
    assert path is not None
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    path.write_text(path.read_text().rstrip("\n"))  # an editor that leaves out the last newline
    hostkeys.append(replace(fresh, hostname="other"), TWO)
    assert path.read_text() == f"{line(ONE)}\n{line(TWO, 'other')}\n"
    hostkeys.append(replace(fresh, port=2222, hash_known_hosts=True), TWO)
    assert path.read_text().splitlines()[2].startswith("|1|")
    assert isinstance(hostkeys.judge(replace(fresh, port=2222), TWO), Known)
    assert hostkeys.append(replace(config, user_known_hosts=("/dev/null",)), ONE) is None
    with pytest.raises(errors.HostKeyFault, match="cannot be written"):
        hostkeys.append(replace(config, user_known_hosts=("/proc/none/known_hosts",)), ONE)


@given(st.text(max_size=400))
def test_any_text_is_read_and_a_good_line_after_it_is_found(text: str) -> None:
    read = list(hostkeys.parse(f"{text}\n{line(ONE)}", "f"))
    assert read[-1].blob == ONE.asbytes()


@given(st.text(max_size=60), st.text(max_size=60))
def test_any_names_can_be_compared(names: str, host: str) -> None:
    assert hostkeys.matches(names, host) in {True, False}
