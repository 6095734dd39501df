"""Login scripts, accounts, routes and aliases as in large labs: a session works as any other."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from jupyman.demo import cell
from tests.bed import Bed, Cli, Sshd, User, private_home, wait_until
from tests.bed.aftermath import no_traceback, says
from tests.bed.notebooks import Kernel, local_port, now, up
from tests.bed.ports import free_ports

# --- login scripts ------------------------------------------------------------------------------------------------


SCRIPTS = ["exec zsh", "case $- in *i*) exec fish ;; esac", "[ -t 0 ] && exec fish; echo welcome; echo hint >&2"]


def test_a_login_script_that_starts_another_shell(cli: Cli, user: User, users: Callable[[str], User]) -> None:
    users("zsh")
    usual = cli("env", "ls", "server1", "--json")
    assert usual.rc == 0, usual
    for script in SCRIPTS:
        user.put(".bashrc", f"echo first\n{script}\n")
        assert cli("env", "ls", "server1", "--json").json == usual.json, script


def test_a_login_script_that_leaves_no_sh(cli: Cli, user: User, users: Callable[[str], User]) -> None:
    """`ssh HOST COMMAND` runs nothing there either."""
    for shell in ("fish", "tcsh"):
        users(shell)
        user.put(".bashrc", f"exec {shell}\n")
        refused = cli("up", "server1", "--no-browser")
        says(refused, 27)
        assert "its login scripts may start another shell on a terminal only" in refused.stderr
        assert "JM_" not in refused.stderr, "nothing of our script is shown"
        assert cli("ps", "--json").json["sessions"] == []


# --- an account ---------------------------------------------------------------------------------------------------

# The clock of the host: what it says is shifted by the seconds in ~/shift; the time of a file is what it is.
DATE = """\
#!/bin/sh
case $* in *-r*) exec /bin/date "$@" ;; esac
exec /bin/date -d "@$(($(/bin/date +%s) + $(cat ~/shift)))" "$@"
"""
RC = """\
ulimit -S -n 256
export XDG_RUNTIME_DIR="$HOME/run"
exec zsh
"""
LIMITS = "import resource; print(resource.getrlimit(resource.RLIMIT_NOFILE))"


def test_few_files_a_wrong_clock_and_a_runtime_folder_that_vanishes(
    cli: Cli, user: User, users: Callable[[str], User], bed: Bed
) -> None:
    users("zsh")
    user.program("date", DATE)
    user.put("shift", "-86400")
    user.put("run/x", "")
    user.put(".bashrc", RC)
    made = up(cli, "server1", "--no-browser")
    # At logout systemd takes it away; with it went the sockets and files of a Jupyter that trusted it.
    user.run("rm", "-rf", str(user.home / "run"))
    soft, hard = cell.execute(made["url"], LIMITS).strip("()\n").split(", ")
    assert int(soft) == int(hard) > 256, "a kernel takes eight files, a notebook server of sixty some hundred"
    user.put("shift", "86400")  # the host's clock was set
    again = up(cli, "server1", "--no-browser")
    assert again["server"]["pid"] == made["server"]["pid"]
    listed = cli("ps")
    assert "running" in listed.stdout, listed
    with private_home() as other:  # another computer: its own clock, and no memory of this session
        adopted = up(Cli(other, bed.ssh_config), "server1", "--no-browser", "--local-port", str(free_ports(1)[0]))
        assert adopted["server"]["pid"] == made["server"]["pid"]
    assert cli("kill", "-y", "server1").rc == 0
    assert [one for one in user.processes() if "jupyter" in " ".join(one.cmdline())] == []
    no_traceback(cli)


# --- a way --------------------------------------------------------------------------------------------------------

NODE = "gpu-node-0042.cluster.department-of-physics.university.invalid"
SESSION = "fine-tuning_of-the-large-model.2026-08-31"


@pytest.fixture
def far(fresh_bed: Bed) -> Iterator[Cli]:
    """A host of a long name behind another one, of which an included file speaks, if a program says so."""
    assert len(NODE) >= 60
    assert len(SESSION) >= 40
    with fresh_bed.start_sshd(node=NODE) as host, fresh_bed.start_sshd() as gate, private_home() as home:
        cli = Cli(home)
        folder = cli.user_home
        cli.ssh_config = folder / "ssh_config"
        cli.ssh_config.write_text(f"Include {folder}/more*\n{described('Host gate', gate)}")
        (folder / "more").write_text(
            f'Match originalhost {NODE} exec "test -e {folder}/more"\n    ProxyJump gate\n'
            f"{described(f'Host {NODE}', host)}"
        )
        yield cli


def described(head: str, sshd: Sshd) -> str:
    """Return an sshd's block of ssh_config under another name; the user is its first."""
    lines = sshd.ssh_config.read_text().split("Host server1 server-*\n")
    user = next(line for line in lines[0].splitlines() if "User" in line)
    return f"{head}\n{user}\n{lines[1]}"


def test_a_long_way_to_a_long_name(far: Cli) -> None:
    made = up(far, NODE, "--name", SESSION, "--no-browser")
    assert (made["server"]["node"], made["forwards"][0]["remote"][:5]) == (NODE, "unix:")
    kernel = Kernel(made)
    kernel.run(made, "x = 41")
    assert kernel.run(made, "print(x + 1)") == "42\n"
    assert far("kill", "-y", SESSION).rc == 0
    no_traceback(far)


def test_aliases_that_are_written_in_all_ways(far: Cli) -> None:
    aliases = ("gpu.lab-1_a", "gpu%h", "gpü")
    assert far.ssh_config is not None
    far.ssh_config.write_text(far.ssh_config.read_text().replace("Host gate", f"Host gate {' '.join(aliases)}"))
    for alias in aliases:
        listed = far("env", "ls", alias, "--json")
        assert listed.rc == 0, listed
        assert far("ps", alias, "--json").rc == 0


# --- this computer ------------------------------------------------------------------------------------------------


@pytest.fixture
def small() -> Iterator[Path]:
    """A JUPYMAN_HOME on a file system of a megabyte."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount")
    with private_home() as home:
        home.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m,mode=700", "tmpfs", home], check=True)
        try:
            yield home
        finally:
            for one in Cli(home).processes():
                one.kill()

            def unmounted() -> bool:
                # A killed process with threads looks like a zombie while some of its threads still hold its files.
                return subprocess.run(["umount", home], capture_output=True, check=False).returncode == 0

            wait_until(unmounted, what="the end of all that uses the file system")


def test_a_full_local_disk_is_reported_and_stops_nothing(fresh_bed: Bed, small: Path) -> None:
    with fresh_bed.start_sshd() as sshd:
        cli = Cli(small, sshd.ssh_config)
        made = up(cli, "server1", "--no-browser", "--local-port", str(free_ports(1)[0]))
        before = (small / "state" / "state.json").read_bytes()
        filling = small / "filling"
        subprocess.run(["sh", "-c", 'cat /dev/zero >"$0" 2>/dev/null', filling], check=False)
        assert up(cli, "server1", "--no-browser")["url"] == made["url"]
        [problem] = [one for one in now(cli)["problems"] if one["code"] == "state-unsaved"]
        assert "No space left" in problem["text"]
        assert (small / "state" / "state.json").read_bytes() == before
        for one in sshd.connections():
            one.kill()
        wait_until(lambda: now(cli)["link"]["reconnects"] == 1, what="the link's return")
        wait_until(lambda: now(cli)["forwards"][0]["state"] == "up", what="the session's return")
        assert cell.execute(made["url"], "print(42)") == "42\n"
        filling.unlink()
        assert up(cli, "server1", "--no-browser")["problems"] == made["problems"]
        assert local_port(now(cli)) == local_port(made)
