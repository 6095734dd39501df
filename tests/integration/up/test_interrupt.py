"""Ctrl-C during `up`: the command ends at once, and nothing half-made stays on the host, in the daemon or here."""

from __future__ import annotations

import signal
import time

import pytest

from jupyman.core.verbs.open import SETTLE
from tests.bed import Bed, Cli, User, wait_until
from tests.bed.aftermath import NOTHING, nothing_left, servers, stuck
from tests.bed.ports import free_port
from tests.bed.terminal import PROMPTLY, Terminal, interrupted

SLOW_STATUS = """\
import asyncio, pathlib
from jupyter_server.services.api.handlers import APIStatusHandler as Handler

asked, answer = [], Handler.get

async def get(self):
    asked.append(1)
    if len(asked) > 2:  # the host itself has asked without and with the token
        pathlib.Path.home().joinpath("busy").touch()
        await asyncio.sleep(1)
    return await answer(self)

Handler.get = get
"""


def up(port: int, *more: str) -> list[str]:
    words = ["up", "server1", "--no-browser", "--on-conflict", "next", "--port", str(port), *more]
    return words if "--app" in more or "--env" in more else [*words, "--app", "server"]


def test_while_connecting(cli: Cli, user: User, fresh_bed: Bed) -> None:
    with fresh_bed.start_sshd() as sshd:
        cli.ssh_config = sshd.ssh_config
        sshd.process.suspend()
        try:
            with Terminal(cli, *up(free_port())) as terminal:
                terminal.expect("connecting to server1")
                interrupted(terminal)
            nothing_left(cli, user)
        finally:
            sshd.process.resume()
    assert not (user.home / ".local").exists()


@pytest.mark.parametrize(
    ("step", "program"),
    [("looking at the host", "nvidia-smi"), ("port {port} on server1", "lsof")],
    ids=["probe", "port"],
)
def test_while_looking_at_the_host(cli: Cli, user: User, step: str, program: str) -> None:
    port = free_port()
    busy = stuck(user, program)
    with Terminal(cli, *up(port)) as terminal:
        terminal.expect(step.format(port=port))
        wait_until(busy.exists)
        interrupted(terminal)
    # The session goes at once; the program on the host when its time is up, which is 5 s for lsof.
    wait_until(lambda: cli("ps", "--json").json == NOTHING, timeout=4)
    nothing_left(cli, user)
    assert not (user.home / ".local").exists()


def test_while_a_kernel_is_registered(cli: Cli, user: User) -> None:
    busy = stuck(user, "mktemp", 'sleep 1\nexec /usr/bin/mktemp "$@"')
    with Terminal(cli, *up(free_port(), "--env", "pytorch")) as terminal:
        terminal.expect("registering kernel pytorch")
        wait_until(busy.exists)
        interrupted(terminal)
    nothing_left(cli, user)
    assert list((user.home / ".local/share/jupyter").glob("kernels/*")) == []


@pytest.mark.parametrize("step", ["starting Jupyter", "starting jupyter-server", "waiting for Jupyter to answer"])
def test_while_jupyter_starts(cli: Cli, user: User, step: str) -> None:
    with Terminal(cli, *up(free_port())) as terminal:
        terminal.expect(step)
        interrupted(terminal)
    nothing_left(cli, user)
    assert list((user.home / ".local/state/jupyman").glob("*/*")) == []


def test_while_jupyter_hangs_and_without_a_terminal(cli: Cli, user: User) -> None:
    user.put("work/env/bin/jupyter-lab", "import time\ntime.sleep(1000)\n", 0o755)
    with cli.start(*up(free_port(), "--env", "~/work/env")) as process:
        wait_until(lambda: servers(user))
        asked = time.monotonic()
        (session,) = cli("ps", "--json").json["sessions"]
        assert time.monotonic() - asked < SETTLE  # it waits for nothing
        assert (session["name"], session["state"], session["url"]) == ("server1", "starting", None)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=PROMPTLY)
    assert (process.returncode, out) == (130, "")
    assert err.splitlines()[-2:] == ["error: interrupted", "hint: nothing was left half done"]
    nothing_left(cli, user)


def test_while_the_server_is_checked_through_the_forward(cli: Cli, user: User) -> None:
    user.put(".jupyter/jupyter_server_config.py", SLOW_STATUS)
    with Terminal(cli, *up(free_port())) as terminal:
        terminal.expect("checking the server's identity")
        wait_until((user.home / "busy").exists)
        interrupted(terminal)
    nothing_left(cli, user)


def test_of_several_that_wait_each_is_interrupted_alone(cli: Cli, user: User) -> None:
    words = up(free_port())
    with Terminal(cli, *words) as first:
        first.expect("waiting for Jupyter to answer")
        with Terminal(cli, *words) as second:
            second.expect("waiting for Jupyter to answer")
            with Terminal(cli, *words, "--dir", "work") as third:
                third.expect("waiting for another up of this session")
                interrupted(third)
            interrupted(first)
            ran = second.end()
    assert ran.rc == 0, ran
    assert len(servers(user)) == 1
    (session,) = cli("ps", "--json").json["sessions"]
    assert (session["server"]["root_dir"], session["url"]) == (str(user.home), ran.stdout.strip())
    assert cli("kill", "server1").rc == 0
    nothing_left(cli, user)


def test_an_up_with_other_options_proceeds_when_the_first_is_interrupted(cli: Cli, user: User) -> None:
    with Terminal(cli, *up(free_port())) as first:
        first.expect("waiting for Jupyter to answer")
        with Terminal(cli, *up(free_port(), "--dir", "work")) as second:
            interrupted(first)
            ran = second.end()
    assert ran.rc == 0, ran
    assert len(servers(user)) == 1
    (session,) = cli("ps", "--json").json["sessions"]
    assert session["server"]["root_dir"] == str(user.home / "work")
    assert cli("kill", "server1").rc == 0
    nothing_left(cli, user)


def test_an_up_right_after_an_interrupted_one_is_not_interrupted(cli: Cli, user: User) -> None:
    words = up(free_port())
    with Terminal(cli, *words) as first:
        first.expect("waiting for Jupyter to answer")
        interrupted(first)
    ran = cli(*words)
    assert ran.rc == 0, ran
    assert len(servers(user)) == 1
    assert cli("kill", "server1").rc == 0
    nothing_left(cli, user)


def test_before_anything_has_begun(cli: Cli) -> None:
    # A module that takes its time to be imported, before ours of that name.
    slow = cli.user_home / "slow"
    (slow / "click").mkdir(parents=True)
    (slow / "click" / "__init__.py").write_text("import sys, time\nprint('importing', flush=True)\ntime.sleep(60)\n")
    with cli.start("ps", env={"PYTHONPATH": f"{slow}:{cli.environ['PYTHONPATH']}"}) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "importing\n"
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=PROMPTLY)
    assert (process.returncode, err) == (130, "error: interrupted\nhint: nothing was started\n")
    assert not cli.home.exists()
