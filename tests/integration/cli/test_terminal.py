"""Questions, progress, the browser and completion on a terminal, and the output into a pipe."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from jupyman.cli.main import VERBS
from tests.bed import Bed, Cli, User, keygen
from tests.bed.aftermath import no_traceback, nothing_left, says
from tests.bed.ports import free_ports
from tests.bed.terminal import Terminal

ESCAPE = "\x1b"
PASSWORD = "correct horse"


def use(cli: Cli, base: Path, identity: Path | None = None, known_hosts: Path | None = None) -> None:
    """Give the command line an ssh_config of its own, with another key or another known_hosts file."""
    text = base.read_text()
    if identity is not None:
        text = re.sub(r"IdentityFile .*", f"IdentityFile {identity}", text)
    if known_hosts is not None:
        text = re.sub(r"UserKnownHostsFile .*", f"UserKnownHostsFile {known_hosts}", text)
        text = text.replace("StrictHostKeyChecking yes", "StrictHostKeyChecking ask")
    cli.ssh_config = cli.user_home / "ssh_config"
    cli.ssh_config.write_text(text)


# --- questions ----------------------------------------------------------------------------------------------------


def test_an_unknown_host_is_asked_about_once(cli: Cli, user: User, bed: Bed) -> None:
    known = cli.user_home / "known_hosts"
    use(cli, bed.ssh_config, known_hosts=known)
    words = ["ssh-keygen", "-lf", f"{bed.host_keys['ed25519']}.pub"]
    fingerprint = subprocess.run(words, capture_output=True, text=True, check=True).stdout.split()[1]
    with Terminal(cli, "env", "ls", "server1") as terminal:
        terminal.expect("is not known yet")
        terminal.expect(f"ssh-ed25519 {fingerprint}")
        terminal.expect("Do you trust it? [y/N] ")
        assert terminal.echoes()
        terminal.type("\n")  # nobody trusts by accident
        says(terminal.end(), 12)
    assert not known.exists()
    with Terminal(cli, "env", "ls", "server1") as terminal:
        terminal.expect("Do you trust it?")
        terminal.type("yes\n")
        assert terminal.end().rc == 0
    name, kind, key = known.read_text().split()
    assert name == f"[127.0.0.1]:{bed.sshd.port}"
    assert f"{kind} {key}" in Path(f"{bed.host_keys['ed25519']}.pub").read_text()
    assert cli("daemon", "stop").rc == 0
    assert cli("env", "ls", "server1").rc == 0


def test_host_trust_asks_as_well(cli: Cli, user: User, bed: Bed) -> None:
    known = cli.user_home / "known_hosts"
    use(cli, bed.ssh_config, known_hosts=known)
    with Terminal(cli, "host", "trust", "server1") as terminal:
        terminal.expect("SHA256:")
        terminal.expect("[y/N] ")
        terminal.type("y\n")
        ran = terminal.end()
    assert ran.rc == 0, ran
    assert str(known) in ran.stdout
    assert cli("env", "ls", "server1").rc == 0


def test_a_code_is_prompted_for_with_the_hosts_own_text(cli: Cli, user: User, bed: Bed) -> None:
    if not user.made:
        pytest.skip("only root can give an account a password")
    user.set_password(PASSWORD)
    options = ("UsePAM yes", "KbdInteractiveAuthentication yes", "PubkeyAuthentication no")
    with bed.start_sshd(*options) as sshd:
        cli.ssh_config = sshd.ssh_config
        with Terminal(cli, "env", "ls", "server1") as terminal:
            terminal.expect("Password: ")
            assert not terminal.echoes()
            terminal.type(f"{PASSWORD}\n")
            ran = terminal.end()
            assert terminal.echoes()
    assert ran.rc == 0, ran
    assert "pytorch" in ran.stdout
    assert PASSWORD not in ran.stderr
    assert "Keep" not in ran.stderr  # a code is of no use a second time


def test_a_passphrase_is_asked_for_once_and_ctrl_c_leaves_the_terminal_whole(cli: Cli, user: User, bed: Bed) -> None:
    key = keygen(cli.user_home / "key", passphrase=PASSWORD)
    authorized = cli.user_home / "authorized"
    shutil.copy(f"{key}.pub", authorized)
    for folder in (cli.user_home.parent, cli.user_home):
        folder.chmod(0o755)  # sshd reads it as the user
    with bed.start_sshd(f"AuthorizedKeysFile {authorized}") as sshd:
        use(cli, sshd.ssh_config, identity=key)
        with Terminal(cli, "up", "server1") as terminal:
            terminal.expect(f"Passphrase for the key {key}: ")
            assert not terminal.echoes()
            terminal.interrupt()
            says(terminal.end(), 130)
            assert terminal.echoes()
        nothing_left(cli, user)
        with Terminal(cli, "env", "ls", "server1") as terminal:
            terminal.expect("Passphrase for the key")
            terminal.type("guess\n")
            terminal.expect("Passphrase for the key")
            terminal.type(f"{PASSWORD}\n")
            ran = terminal.end()
        assert ran.rc == 0, ran
        assert PASSWORD not in ran.stderr
        for connection in sshd.connections():
            connection.kill()
        assert cli("env", "ls", "server1").rc == 0  # without a terminal: the key is in the daemon's memory
    assert PASSWORD not in "".join(file.read_text() for file in cli.home.rglob("*") if file.is_file())


# --- progress and the browser -------------------------------------------------------------------------------------


def test_up_rewrites_its_line_in_colour_and_opens_the_browser_unless_forbidden(cli: Cli, user: User) -> None:
    with Terminal(cli, "up", "server1", "--port", str(free_ports(1)[0])) as terminal:
        first = terminal.end()
        raw = terminal.raw
    assert first.rc == 0, first
    assert re.fullmatch(r"http://127\.0\.0\.1:[0-9]+/lab\?token=[0-9a-f]+\n", first.stdout)
    assert f"{ESCAPE}[2m…{ESCAPE}[0m connecting to server1\r{ESCAPE}[2K{ESCAPE}[32m✓{ESCAPE}[0m connected" in raw
    assert re.search(r"✓ the right server answers +[0-9]+\.[0-9] s\n$", first.stderr)
    assert "token" not in first.stderr
    assert len(cli.browsed) == 1
    with Terminal(cli, "up", "server1", "--no-browser") as terminal:
        again = terminal.end()
    assert (again.rc, again.stdout) == (0, first.stdout)
    cli.more["NO_COLOR"] = "1"
    with Terminal(cli, "up", "server1", "--no-browser") as terminal:
        assert terminal.end().rc == 0
        assert f"\r{ESCAPE}[2K✓ " in terminal.raw
        assert set(re.findall(rf"{ESCAPE}\[[0-9;]*[A-Za-z]", terminal.raw)) == {f"{ESCAPE}[2K"}
    del cli.more["NO_COLOR"]
    cli.more["TERM"] = "dumb"
    with Terminal(cli, "up", "server1", "--no-browser") as terminal:
        assert terminal.end().rc == 0
        assert ESCAPE not in terminal.raw
    del cli.more["TERM"]
    piped = cli("up", "server1", "--no-browser")
    assert (piped.rc, piped.stdout) == (0, first.stdout)
    assert ESCAPE not in piped.stderr
    assert "\r" not in piped.stderr
    assert "…" not in piped.stderr  # finished steps only
    assert "✓ the right server answers" in piped.stderr
    assert len(cli.browsed) == 1
    # The reader of a pipe may leave at once.
    for words in (("ps",), ("ps", "--json"), ("check", "server1"), ("env", "ls", "server1"), ("url",)):
        reader, writer = os.pipe()
        os.close(reader)
        with cli.start(*words, stdin=subprocess.DEVNULL, stdout=writer) as process:
            os.close(writer)
            _, err = process.communicate(timeout=30)
        assert process.returncode == 0, err
        assert "rror" not in err
    no_traceback(cli)


@pytest.mark.parametrize(
    ("redirection", "status", "said"),
    [
        (">/dev/full", 2, ["error: the output cannot be written: No space left on device", "hint: "]),
        ("2>/dev/full", 0, []),
        (">&-", 0, []),
        ("2>&-", 0, []),
        ("<&-", 0, []),
        ("<&- >&- 2>&-", 0, []),
    ],
)
def test_streams_that_are_full_or_closed(cli: Cli, redirection: str, status: int, said: list[str]) -> None:
    script = f'"$0" -m jupyman ps --json {redirection}'
    ran = subprocess.run(
        ["sh", "-c", script, sys.executable], env=cli.environ, capture_output=True, text=True, check=False, cwd="/"
    )
    assert ran.returncode == status, ran
    for line, start in zip(ran.stderr.splitlines(), said, strict=True):
        assert line.startswith(start)
    no_traceback(cli)


def test_every_verb_shows_an_example_and_starts_no_daemon(cli: Cli) -> None:
    for verb in ((), *((verb,) for verb in VERBS)):
        ran = cli(*verb, "--help")
        assert ran.rc == 0, ran
        assert re.search(rf"Examples?:\s+.*jupyman {' '.join(verb)}", ran.stdout), ran
    assert cli.processes() == []


# --- completion ---------------------------------------------------------------------------------------------------

# Interactive, without the machine's own settings, and a prompt that says when the script is loaded.
SHELLS = {
    "bash": (["bash", "--norc", "--noprofile", "-i"], 'eval "$(jupyman completion bash)"'),
    "zsh": (["zsh", "-f", "-i"], 'autoload -U compinit; compinit -u -D; eval "$(jupyman completion zsh)"'),
    "fish": (["fish", "--no-config", "-i"], "jupyman completion fish | source"),
}
RECORDER = """\
#!/bin/sh
if [ -n "$_JUPYMAN_COMPLETE" ] || [ "$1" = completion ]; then exec "{python}" -m jupyman "$@"; fi
printf '%s\\n' "$*" >>"{log}"
echo "ran: $*."
"""


class Shell(Cli):
    """An interactive shell in place of the command line; `jupyman` in it notes its arguments."""

    def start(self, *words: str, env: Mapping[str, str] | None = None, **how: Any) -> subprocess.Popen[str]:
        environ = {**self.environ, **(env or {})}
        return subprocess.Popen(words, text=True, env=environ, start_new_session=True, **how)


@pytest.mark.parametrize("name", SHELLS)
def test_the_tab_key_completes_from_files(cli: Cli, name: str) -> None:
    if shutil.which(name) is None:
        pytest.skip(f"{name} is not installed")
    (cli.home / "state").mkdir(parents=True)
    (cli.home / "config.toml").write_text("[hosts.cluster]\n")
    session = {"name": "training", "host": "server1"}
    state = {"version": 1, "sessions": {"training": session}, "environments": {"server1": ["base", "pytorch"]}}
    (cli.home / "state" / "state.json").write_text(json.dumps(state))
    programs = cli.user_home / "bin"
    programs.mkdir()
    log = programs / "log"
    (programs / "jupyman").write_text(RECORDER.format(python=sys.executable, log=log))
    (programs / "jupyman").chmod(0o755)
    shell = Shell(cli.home, environ={"PATH": f"{programs}:{os.environ['PATH']}", "TERM": "xterm"})
    words, load = SHELLS[name]
    lines = ["jupyman down tr\t", "jupyman up clu\t", "jupyman up se\t--env pyt\t"]
    with Terminal(shell, *words, whole=True) as terminal:
        terminal.type(f"{load}; echo it is lo'ad'ed\n")
        terminal.expect("it is loaded")
        for line in lines:
            terminal.type(f"{line}\n")
            terminal.expect("ran: ")
        terminal.type("exit\n")
        terminal.end()
    assert [line.rstrip() for line in log.read_text().splitlines()] == [
        "down training",
        "up cluster",
        "up server1 --env pytorch",
    ]
    assert cli.processes() == []
    assert not (cli.home / "run").exists()
