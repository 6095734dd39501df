"""Logins to a real sshd: keys, agents, passwords, codes, and several of them."""

from __future__ import annotations

import contextlib
import os
import secrets
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from jupyman import errors
from jupyman.ssh.channels import transport
from jupyman.ssh.login.auth import Keyring
from tests.bed import needs_root
from tests.bed.sshd import Sshd, keygen, private_sshd, public
from tests.integration.ssh.answers import Answers


def works(sshd: Sshd, ask: Answers | None = None, *, agent: str | None = None, keyring: Keyring | None = None) -> bool:
    with contextlib.closing(sshd.open(ask=ask, agent=agent, keyring=keyring)) as link:
        return link.run("echo hello\n", timeout=10).stdout == b"hello\n"


# --- keys ---------------------------------------------------------------------------------------------------------


def test_a_wrong_key_is_refused_and_named(sshd: Sshd, tmp_path: Path) -> None:
    wrong = keygen(tmp_path / "wrong")
    sshd.configure(f"IdentityFile {wrong}")
    sshd.authorized.write_text("")
    with pytest.raises(errors.AuthenticationFailed, match="publickey") as caught:
        sshd.open(ask=Answers())
    assert caught.value.details["needs_prompt"] is False
    assert caught.value.details["allowed"] == ["publickey"]
    assert caught.value.details["tried"] == [f"key {wrong}", f"key {sshd.client_key}"]
    with pytest.raises(errors.AuthenticationFailed) as caught:
        sshd.open()
    assert caught.value.details["needs_prompt"] is False, "no answer would have helped"


@pytest.mark.parametrize("kind", ["rsa", "ecdsa", "ed25519"])
def test_every_kind_of_key(sshd: Sshd, tmp_path: Path, kind: str) -> None:
    key = keygen(tmp_path / "key", kind=kind)
    sshd.authorized.write_text(public(key) + "\n")
    sshd.configure(f"IdentityFile {key}")
    assert works(sshd)


def test_the_passphrase_of_a_key_is_requested_once(sshd: Sshd, tmp_path: Path) -> None:
    key = keygen(tmp_path / "key", passphrase="open sesame")
    sshd.authorized.write_text(public(key) + "\n")
    sshd.configure(f"IdentityFile {key}")
    keyring = Keyring()
    with pytest.raises(errors.AuthenticationFailed, match="no terminal") as caught:
        sshd.open(keyring=keyring)
    assert caught.value.details["needs_prompt"] is True
    answers = Answers("wrong", "open sesame")
    assert works(sshd, answers, keyring=keyring)
    assert [kind for kind, _ in answers.asked] == ["secret", "secret"]
    assert str(key) in answers.asked[0][1]
    assert works(sshd, keyring=keyring)
    assert "sesame" not in repr(keyring)


def test_a_plain_key_is_tried_before_a_passphrase_is_asked_for(sshd: Sshd, tmp_path: Path) -> None:
    sshd.configure(f"IdentityFile {keygen(tmp_path / 'key', passphrase='x')}")
    assert works(sshd, Answers())


def test_three_wrong_passphrases_end_the_login(sshd: Sshd, tmp_path: Path) -> None:
    key = keygen(tmp_path / "key", passphrase="right")
    sshd.authorized.write_text(public(key) + "\n")
    sshd.configure(f"IdentityFile {key}")
    with pytest.raises(errors.AuthenticationFailed, match="wrong passphrase"):
        sshd.open(ask=Answers("a", "b", "c"))


def test_an_unreadable_key_does_not_stop_the_next(sshd: Sshd, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.write_text("-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n-----END OPENSSH PRIVATE KEY-----\n")
    sshd.configure(f"IdentityFile {broken}", f"IdentityFile {tmp_path}/absent")
    assert works(sshd)


def test_a_user_certificate(tmp_path: Path) -> None:
    authority = keygen(tmp_path / "authority")
    with private_sshd(tmp_path / "bed", f"TrustedUserCAKeys {authority}.pub") as sshd:
        sshd.authorized.write_text("")
        with pytest.raises(errors.AuthenticationFailed):
            sshd.open()
        user = subprocess.run(["id", "-un"], capture_output=True, text=True, check=True).stdout.strip()
        signing = ["ssh-keygen", "-q", "-s", str(authority), "-I", "test", "-n", user, f"{sshd.client_key}.pub"]
        subprocess.run(signing, check=True)
        assert works(sshd)
        moved = tmp_path / "elsewhere.pub"
        Path(f"{sshd.client_key}-cert.pub").rename(moved)
        sshd.configure(f"CertificateFile {moved}")
        assert works(sshd)


# --- agents -------------------------------------------------------------------------------------------------------


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[str]:
    path = f"/tmp/jm-agent-{secrets.token_hex(6)}"
    process = subprocess.Popen(["ssh-agent", "-D", "-a", path], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    process.stdout.readline()  # it says where it is once it listens
    yield path
    process.terminate()
    process.wait()
    process.stdout.close()
    Path(path).unlink(missing_ok=True)


def add(agent: str, *keys: Path) -> None:
    environment = {**os.environ, "SSH_AUTH_SOCK": agent}
    subprocess.run(["ssh-add", "-q", *map(str, keys)], env=environment, check=True, stdin=subprocess.DEVNULL)


def test_the_callers_agent_is_asked(sshd: Sshd, agent: str, monkeypatch: pytest.MonkeyPatch) -> None:
    add(agent, sshd.client_key)
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    sshd.ssh_config.write_text(
        sshd.ssh_config.read_text()
        .replace("IdentityAgent none", "")
        .replace("IdentitiesOnly yes", "")
        .replace(f"IdentityFile {sshd.client_key}", "IdentityFile none")
    )
    assert works(sshd, agent=agent)
    assert "SSH_AUTH_SOCK" not in os.environ
    with pytest.raises(errors.AuthenticationFailed):
        sshd.open()


def test_identity_agent_wins_over_the_callers(sshd: Sshd, agent: str) -> None:
    add(agent, sshd.client_key)
    hidden = Path(f"{sshd.client_key}.hidden")
    sshd.client_key.rename(hidden)
    try:
        sshd.configure(f"IdentityAgent {agent}")
        assert works(sshd, agent="/nowhere")  # its .pub file says which of the agent's keys it is
    finally:
        hidden.rename(sshd.client_key)


def test_the_right_one_of_many_agent_keys_comes_first(sshd: Sshd, agent: str, tmp_path: Path) -> None:
    keys = [keygen(tmp_path / f"key{n}") for n in range(8)]
    add(agent, *keys, sshd.client_key)
    sshd.configure("IdentityAgent SSH_AUTH_SOCK", "IdentitiesOnly no")
    assert works(sshd, agent=agent), "sshd ends the connection after six"


def test_too_many_keys_are_named(sshd: Sshd, agent: str, tmp_path: Path) -> None:
    add(agent, *[keygen(tmp_path / f"key{n}") for n in range(8)])
    sshd.authorized.write_text("")
    sshd.configure("IdentityAgent SSH_AUTH_SOCK", "IdentitiesOnly no")
    with pytest.raises(errors.AuthenticationFailed, match="Too many authentication failures"):
        sshd.open(agent=agent)


def test_only_configured_agent_keys_are_offered_with_identities_only(sshd: Sshd, agent: str, tmp_path: Path) -> None:
    add(agent, sshd.client_key)
    sshd.configure("IdentityAgent SSH_AUTH_SOCK")
    text = sshd.ssh_config.read_text()
    wrong = keygen(tmp_path / "wrong")
    sshd.ssh_config.write_text(text.replace(f"IdentityFile {sshd.client_key}", f"IdentityFile {wrong}"))
    with pytest.raises(errors.AuthenticationFailed) as caught:
        sshd.open(agent=agent)
    assert caught.value.details["tried"] == [f"key {wrong}"]


def test_a_dead_agent_does_not_matter(sshd: Sshd, tmp_path: Path) -> None:
    sshd.configure(f"IdentityAgent {tmp_path}/nobody")
    assert works(sshd)


# --- people -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def account() -> Iterator[tuple[str, str]]:
    name, password = f"jmt{secrets.token_hex(4)}", secrets.token_hex(8)
    subprocess.run(["useradd", "-M", "-d", "/", "-s", "/bin/sh", name], check=True)
    try:
        subprocess.run(["chpasswd"], input=f"{name}:{password}", text=True, check=True)
        yield name, password
    finally:
        subprocess.run(["userdel", name], check=False, capture_output=True)


@contextlib.contextmanager
def account_bed(folder: Path, account: tuple[str, str], *options: str) -> Iterator[Sshd]:
    with private_sshd(folder / "bed", *options) as sshd:
        for path in (folder, *folder.parents):
            if path.stat().st_uid == os.getuid() and str(path).startswith("/tmp/"):
                path.chmod(path.stat().st_mode | 0o011)  # sshd reads the account's keys as the account
        sshd.authorized.chmod(0o644)
        sshd.configure(f"User {account[0]}", "PubkeyAuthentication yes")
        yield sshd


@needs_root
def test_a_password_is_requested_and_kept_only_after_a_yes(tmp_path: Path, account: tuple[str, str]) -> None:
    with account_bed(tmp_path, account, "PasswordAuthentication yes") as sshd:
        sshd.authorized.write_text("")
        keyring = Keyring()
        with pytest.raises(errors.AuthenticationFailed) as caught:
            sshd.open(keyring=keyring)
        assert caught.value.details["needs_prompt"] is True
        answers = Answers("wrong", account[1], "no")
        assert works(sshd, answers, keyring=keyring)
        assert [kind for kind, _ in answers.asked] == ["secret", "secret", "confirm"]
        with pytest.raises(errors.AuthenticationFailed):
            sshd.open(keyring=keyring)
        assert works(sshd, Answers(account[1], "yes"), keyring=keyring)
        assert works(sshd, keyring=keyring)
        assert account[1] not in repr(keyring)


@needs_root
def test_three_wrong_passwords_end_the_login(tmp_path: Path, account: tuple[str, str]) -> None:
    with account_bed(tmp_path, account, "PasswordAuthentication yes") as sshd:
        sshd.authorized.write_text("")
        with pytest.raises(errors.AuthenticationFailed, match="password"):
            sshd.open(ask=Answers("a", "b", "c"))


@needs_root
def test_keyboard_interactive_is_asked_and_never_kept(tmp_path: Path, account: tuple[str, str]) -> None:
    with account_bed(tmp_path, account, "UsePAM yes", "KbdInteractiveAuthentication yes") as sshd:
        sshd.authorized.write_text("")
        keyring = Keyring()
        answers = Answers(account[1])
        assert works(sshd, answers, keyring=keyring)
        assert [kind for kind, _ in answers.asked] == ["secret"]
        with pytest.raises(errors.AuthenticationFailed) as caught:
            sshd.open(keyring=keyring)
        assert caught.value.details["needs_prompt"] is True


@needs_root
@pytest.mark.parametrize(
    ("methods", "answers"),
    [
        ("publickey,keyboard-interactive", 1),
        ("publickey,password", 2),
        ("keyboard-interactive,publickey", 1),
        ("password,publickey", 2),
    ],
)
def test_two_factors(tmp_path: Path, account: tuple[str, str], methods: str, answers: int) -> None:
    options = ["UsePAM yes", "KbdInteractiveAuthentication yes", "PasswordAuthentication yes"]
    with account_bed(tmp_path, account, f"AuthenticationMethods {methods}", *options) as sshd:
        given = Answers(account[1], "no")
        assert works(sshd, given)
        assert len(given.asked) == answers


@needs_root
def test_an_interrupt_at_the_prompt_ends_the_login(tmp_path: Path, account: tuple[str, str]) -> None:
    def gives_up(kind: str, text: str) -> str:
        raise errors.Interrupted("gave up")

    for option in ("PasswordAuthentication yes", "KbdInteractiveAuthentication yes"):
        with account_bed(tmp_path / option.split()[0], account, "UsePAM yes", option) as sshd:
            sshd.authorized.write_text("")
            start = time.monotonic()
            with pytest.raises(errors.Interrupted, match="gave up"):
                sshd.open(ask=gives_up)
            assert time.monotonic() - start < 5


@needs_root
def test_a_cancelled_login_ends_at_once(tmp_path: Path, account: tuple[str, str]) -> None:
    cancelled, asked = threading.Event(), threading.Event()

    def ask(kind: str, text: str) -> str:
        asked.set()
        cancelled.wait(10)
        raise errors.Interrupted("the client went away")

    with account_bed(tmp_path, account, "PasswordAuthentication yes") as sshd, ThreadPoolExecutor(1) as pool:
        sshd.authorized.write_text("")
        opening = pool.submit(sshd.open, ask=ask, cancelled=cancelled)
        assert asked.wait(5)
        cancelled.set()
        with pytest.raises(errors.Interrupted):
            opening.result(3)


@needs_root
def test_silence_during_the_login_is_no_refusal(
    tmp_path: Path, account: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A network that is lost in the middle: what was not answered was not refused, and is tried again later."""
    silent = Path("/run") / f"jmbed-{secrets.token_hex(4)}"  # sshd insists on a path that is root's alone
    silent.write_text("#!/bin/sh\nexec sleep 5\n")
    silent.chmod(0o755)
    monkeypatch.setattr(transport.Transport, "start_client", impatient(transport.Transport.start_client))
    try:
        options = (f"AuthorizedKeysCommand {silent}", "AuthorizedKeysCommandUser root")
        with account_bed(tmp_path, account, *options) as sshd:
            sshd.authorized.write_text("")
            with pytest.raises(errors.LinkLost, match="did not answer during the login"):
                sshd.open()
    finally:
        silent.unlink()


def impatient(start: Callable[..., None]) -> Callable[..., None]:
    def start_client(self: transport.Transport, *args: Any, **more: Any) -> None:
        self.auth_timeout = 1.0
        start(self, *args, **more)

    return start_client


def test_a_connection_that_ends_during_the_login_is_no_refusal(sshd: Sshd) -> None:
    import signal

    def ask(kind: str, text: str) -> str:
        sshd.signal_children(signal.SIGKILL)
        return "yes"

    known = sshd.known_hosts.read_text()
    sshd.trust("")
    try:
        with pytest.raises(errors.LinkLost):
            sshd.open(ask=ask)
    finally:
        sshd.trust(known)
