"""Ctrl-C on a running session, during other commands, and at every question: nothing is undone or left."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.bed import Bed, Cli, User, private_home, wait_until
from tests.bed.aftermath import no_traceback, nothing_left, programs, servers, stuck
from tests.bed.kernels import own
from tests.bed.ports import free_port
from tests.bed.terminal import PROMPTLY, Terminal, interrupted

SLOWLY = 'sleep 1\nexec /usr/bin/awk "$@"'


@pytest.fixture(scope="module")
def cli(bed: Bed) -> Iterator[Cli]:
    """A command line with a session that runs, which every test here leaves so."""
    user = bed.user("bash")
    with private_home() as home:
        cli = Cli(home, bed.ssh_config)
        ran = cli("up", "server1", "--json", "--app", "server", "--port", str(free_port()))
        assert ran.rc == 0, ran
        yield cli
        assert cli("kill", "server1").rc == 0
        nothing_left(cli, user)
    bed.reset()


@pytest.fixture
def user(bed: Bed, cli: Cli) -> Iterator[User]:
    """Yield the user of the session; afterwards the user runs nothing that was not there before."""
    user = bed.user("bash")
    before, sessions = programs(user), cli("ps", "--json").json["sessions"]
    yield user
    # Not equal: one of the daemon's own scripts may have been running.
    wait_until(lambda: programs(user).keys() <= before.keys(), what=f"the end of what is beside {before}")
    (session,) = cli("ps", "--json").json["sessions"]
    assert (session["state"], session["server"], session["url"]) == (
        "running",
        sessions[0]["server"],
        sessions[0]["url"],
    )
    assert [one["state"] for one in session["forwards"]] == ["up"]
    no_traceback(cli)


def kernels(user: User) -> dict[str, str]:
    folder = user.home / ".local/share/jupyter/kernels"
    return {path.parent.name: path.read_text() for path in folder.glob("*/kernel.json")}


def lines(file: Path) -> int:
    return len(file.read_text().splitlines()) if file.exists() else 0


# --- the session --------------------------------------------------------------------------------------------------


def test_up_of_a_session_that_runs(cli: Cli, user: User) -> None:
    busy = stuck(user, "awk", SLOWLY)
    try:
        with Terminal(cli, "up", "server1", "--no-browser") as terminal:
            terminal.expect("looking for the session's server")
            wait_until(lambda: lines(busy) >= 1)
            interrupted(terminal)
    finally:
        (user.programs / "awk").unlink()
        busy.unlink()
    ran = cli("up", "server1", "--json")
    assert ran.json["server"]["pid"] in [process.pid for process in servers(user)]


def test_up_of_a_session_that_is_down(cli: Cli, user: User) -> None:
    assert cli("down", "server1").rc == 0
    busy = stuck(user, "awk", SLOWLY)
    try:
        with Terminal(cli, "up", "server1", "--no-browser") as terminal:
            terminal.expect("looking for the session's server")
            wait_until(lambda: lines(busy) >= 1)
            interrupted(terminal)
    finally:
        (user.programs / "awk").unlink()
        busy.unlink()
    wait_until(lambda: cli("ps", "--json").json["sessions"][0]["forwards"] == [])
    assert len(servers(user)) == 1
    assert cli("up", "server1", "--no-browser").rc == 0


def test_a_log_that_is_followed(cli: Cli, user: User) -> None:
    before = programs(user)
    with Terminal(cli, "logs", "server1", "-n", "0", "-f") as terminal:
        wait_until(lambda: programs(user).keys() > before.keys())
        terminal.interrupt()
        assert terminal.end(PROMPTLY).rc == 130


# --- other commands -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("words", [["check", "server1", "--json"], ["env", "ls", "server1"]])
def test_a_look_at_the_host(cli: Cli, user: User, words: list[str]) -> None:
    busy = stuck(user, "nvidia-smi")
    try:
        with Terminal(cli, *words) as terminal:
            wait_until(busy.exists)
            if "--json" in words:
                terminal.interrupt()
                ran = terminal.end()
                assert (ran.rc, ran.json["error"]["code"]) == (130, "interrupted")
            else:
                interrupted(terminal)
    finally:
        (user.programs / "nvidia-smi").unlink()
        busy.unlink()


def test_ps_of_all(cli: Cli, user: User) -> None:
    busy = stuck(user, "uname", 'sleep 1\nexec /usr/bin/uname "$@"')
    try:
        with Terminal(cli, "ps", "-a") as terminal:
            wait_until(busy.exists)
            interrupted(terminal)
    finally:
        (user.programs / "uname").unlink()
        busy.unlink()


# A program of the host that the script runs in each step: it is made slow, and tells that the step is under way.
STEPS = [("registering kernel", "mktemp"), ("starting a kernel", "tail")]


@pytest.mark.parametrize(("step", "program"), STEPS)
def test_a_kernel_that_is_added(cli: Cli, user: User, step: str, program: str) -> None:
    interrupted_add(cli, user, step, program)
    wait_until(lambda: kernels(user) == {})


@pytest.mark.parametrize(("step", "program"), STEPS)
def test_a_kernel_that_is_refreshed_is_as_before(cli: Cli, user: User, step: str, program: str) -> None:
    assert cli("kernel", "add", "pytorch", "server1", "--display-name", "mine").rc == 0
    before = kernels(user)
    interrupted_add(cli, user, step, program)
    wait_until(lambda: kernels(user) == before)
    assert not list((user.home / ".local/share/jupyter").glob(".jupyman-*"))
    assert cli("kernel", "rm", "pytorch", "-y", "--host", "server1").rc == 0


def test_a_kernel_that_hangs_ends_with_the_command(cli: Cli, user: User, bed: Bed) -> None:
    own(user, bed)
    busy = stuck(user, "slow", "exec sleep 1000")
    user.put("work/env/etc/conda/activate.d/slow.sh", f"{user.programs}/slow\n")
    try:
        with Terminal(cli, "kernel", "add", "~/work/env", "server1") as terminal:
            terminal.expect("starting a kernel")
            wait_until(busy.exists)
            interrupted(terminal)
        # At once: the proof's own limit is three times as long as this waits.
        wait_until(lambda: "/bin/sh -s" not in " ".join(programs(user).values()))
        wait_until(lambda: kernels(user) == {})
    finally:
        (user.programs / "slow").unlink()
        busy.unlink()


def interrupted_add(cli: Cli, user: User, step: str, program: str) -> None:
    busy = stuck(user, program, f'sleep 1\nexec /usr/bin/{program} "$@"')
    try:
        with Terminal(cli, "kernel", "add", "pytorch", "server1", "--display-name", "yours") as terminal:
            terminal.expect(step)
            wait_until(busy.exists)
            interrupted(terminal)
        # The script notices it when it speaks next.
        wait_until(lambda: "/bin/sh -s" not in " ".join(programs(user).values()))
    finally:
        (user.programs / program).unlink()
        busy.unlink()


# --- questions ----------------------------------------------------------------------------------------------------


@pytest.fixture
def newcomer(bed: Bed) -> Iterator[tuple[Cli, Path]]:
    """A command line for which the host is a stranger, and its known_hosts."""
    with private_home() as home, bed.start_sshd() as sshd:
        cli = Cli(home)
        known, config = cli.user_home / "known_hosts", cli.user_home / "ssh_config"
        first = f"Host *\n    UserKnownHostsFile {known}\n    StrictHostKeyChecking ask\n"
        config.write_text(first + sshd.ssh_config.read_text())
        cli.ssh_config = config
        yield cli, known


@pytest.mark.parametrize("words", [["up", "server1"], ["check", "server1"], ["host", "trust", "server1"]])
def test_the_question_of_the_host_key(newcomer: tuple[Cli, Path], words: list[str]) -> None:
    cli, known = newcomer
    with Terminal(cli, *words) as terminal:
        terminal.expect("trust it?")
        interrupted(terminal)
    assert not known.exists()
    nothing_left(cli)


@pytest.mark.parametrize("asks", ["password", "code"])
def test_the_question_of_a_secret(bed: Bed, asks: str) -> None:
    method = "PasswordAuthentication" if asks == "password" else "KbdInteractiveAuthentication"
    bed.user("other").set_password("correct horse")
    options = [f"{method} yes", "PubkeyAuthentication no", *(["UsePAM yes"] if asks == "code" else [])]
    with private_home() as home, bed.start_sshd(*options) as sshd:
        cli = Cli(home, sshd.ssh_config)
        with Terminal(cli, "up", "server-other", "--no-browser") as terminal:
            terminal.expect("assword:")
            assert not terminal.echoes()
            terminal.type("correct ho")
            ran = interrupted(terminal)
            assert terminal.echoes()
        assert "correct" not in ran.stderr
        nothing_left(cli, bed.user("other"))


def test_the_question_of_the_port(bed: Bed) -> None:
    other = bed.user("other")
    with private_home() as home, other.hold_port() as held:
        cli = Cli(home, bed.ssh_config)
        with Terminal(cli, "up", "server-other", "--no-browser", "--port", str(held.port)) as terminal:
            terminal.expect("next")
            interrupted(terminal)
        wait_until(lambda: list(programs(other)) == [held.pid])
        assert cli("ps", "--json").json["sessions"] == []
        no_traceback(cli)


def test_the_question_before_something_is_ended(bed: Bed) -> None:
    other = bed.user("other")
    with private_home() as home, other.hold_port() as held:
        cli = Cli(home, bed.ssh_config)
        with Terminal(cli, "kill", f"server-other:{held.port}") as terminal:
            terminal.expect("[y/N]")
            interrupted(terminal)
        assert list(programs(other)) == [held.pid]
        no_traceback(cli)
