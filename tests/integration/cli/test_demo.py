"""`jupyman demo`: the whole flow on this computer, and nothing left afterwards, however it ends."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.bed import Cli, User, private_home, wait_until
from tests.bed.aftermath import leftovers
from tests.bed.launches import build_environment
from tests.bed.local_account import alive, public_folder
from tests.bed.terminal import Terminal

EXAMPLES = Path(__file__).parents[3] / "examples"
WITHOUT = ("ssh", "slogin", "sftp", "scp")


@pytest.fixture(scope="module")
def home() -> Iterator[Path]:
    with private_home() as made:
        yield made


@pytest.fixture
def cli(home: Path) -> Cli:
    """The command line; what the demo makes goes into its TMPDIR."""
    made = Cli(home)
    temporary = made.user_home / "t"
    temporary.mkdir(exist_ok=True)
    made.more["TMPDIR"] = str(temporary)
    return made


def left(cli: Cli) -> list[str]:
    """Return the demo's files, and the processes that run in its folders."""
    temporary = cli.more["TMPDIR"]
    found = [one.name for one in Path(temporary).iterdir()]
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            environ = process.environ()
            if any(environ.get(name, "").startswith(f"{temporary}/") for name in ("HOME", "JUPYMAN_HOME")):
                found.append(" ".join(process.cmdline()))
    return found


def runtime(server: int) -> Path:
    """Return the directory of a server's sockets, once the server has its environment."""
    process = psutil.Process(server)
    return Path(wait_until(lambda: process.environ().get("JUPYTER_RUNTIME_DIR", ""), what="the server's environment"))


def programs(folder: Path, path: str) -> Path:
    """Make a folder with the programs of a PATH, but without an SSH client."""
    folder.mkdir()
    for place in path.split(":"):
        for program in sorted(Path(place).iterdir()) if Path(place).is_dir() else []:
            link = folder / program.name
            if program.name not in WITHOUT and not link.is_symlink():
                link.symlink_to(program)
    return folder


def test_once_needs_no_terminal_no_root_and_no_ssh_program(user: User) -> None:
    with public_folder() as folder:
        python = f"{build_environment(folder / 'stack').prefix}/bin/python"
        path = programs(folder / "bin", user.path)
        user.program("browser", '#!/bin/sh\ntouch "$HOME/browsed"\n')
        temporary = user.put("t/.keep", "").parent
        process = user.start(
            *(python, "-m", "jupyman", "demo"),
            env={"PATH": str(path), "TMPDIR": str(temporary), "BROWSER": str(user.programs / "browser")},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        with process:
            out, err = process.communicate(timeout=120)
        assert process.returncode == 0, f"{out}\n{err}"
        said = [line for line in out.splitlines() if line.startswith("$ ")]
        assert [line.split()[2] for line in said] == ["check", "up", "kernel", "ps"]
        assert "kernel demo-kernel runs" in err
        assert re.search(r"^demo +demo +running +up ", out, re.MULTILINE)
        home = re.search(r"its home is (\S+)", out)
        assert home is not None
        assert re.search(rf"a cell through the tunnel:\n  Python [0-9.]+, pid [0-9]+, in {home[1]}\n", out)
        assert out.endswith("the demo succeeded\n\ncleaning up\n")
        for word in ("Traceback", "Warning", "never awaited"):
            assert word not in err
        assert not (user.home / "browsed").exists()
        assert [one.name for one in temporary.iterdir()] == [".keep"]
        assert leftovers([user]) == []


def test_on_a_terminal_it_waits_and_ctrl_c_removes_all(cli: Cli) -> None:
    with Terminal(cli, "demo", whole=True) as terminal:
        terminal.expect("open http://127.0.0.1:", 90)
        terminal.expect("Ctrl-C ends the demo")
        wait_until(lambda: cli.browsed, what="the browser")
        assert re.fullmatch(r"http://127\.0\.0\.1:[0-9]+/go\?code=[\w-]+", cli.browsed[0])
        found = re.search(r"Jupyter runs on demo, a private socket \(pid ([0-9]+)\)", terminal.seen)
        assert found is not None
        server = int(found[1])
        sockets = runtime(server)
        assert sockets.is_dir()
        assert left(cli)
        terminal.interrupt()
        terminal.expect("cleaning up")
        terminal.interrupt()  # impatience leaves nothing half-removed
        ran = terminal.end()
    assert ran.rc == 0, ran
    assert "Traceback" not in ran.stderr
    assert "error:" not in ran.stderr
    assert not alive(server)
    assert not sockets.exists()
    assert left(cli) == []


class Script(Cli):
    """Runs examples/demo.sh, which finds everything installed already."""

    def start(self, *words: str, env: Mapping[str, str] | None = None, **how: Any) -> subprocess.Popen[str]:
        folder = self.user_home / "examples"
        folder.mkdir()
        for name in ("demo.sh", "demo.py"):
            shutil.copy(EXAMPLES / name, folder)
        (folder / "install.py").write_text(f"OLDEST = (3, 11)\ndef install(extras): return {sys.executable!r}\n")
        argv = ["sh", str(folder / "demo.sh"), *words[1:]]
        environ = {**self.environ, "PYTHON": sys.executable, **(env or {})}
        return subprocess.Popen(argv, text=True, env=environ, start_new_session=True, **how)


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGHUP, signal.SIGTERM])
def test_ended_in_the_middle_of_up_it_removes_all(cli: Cli, end: signal.Signals) -> None:
    if end is signal.SIGINT:
        cli = Script(cli.home, environ=cli.more)
    with Terminal(cli, "demo", whole=True) as terminal:
        terminal.expect("waiting for Jupyter to answer (pid ", 60)
        terminal.expect(")")
        server = int(terminal.seen.rsplit("(pid ", 1)[1].split(")")[0])
        sockets = runtime(server)
        if end is signal.SIGINT:
            terminal.interrupt()
        elif end is signal.SIGHUP:
            os.killpg(terminal.process.pid, end)  # as when the window is closed
        else:
            terminal.process.send_signal(end)
        ran = terminal.end()
    assert ran.rc == 130, ran
    assert ran.stderr.count("error: interrupted") == 1, ran
    assert ran.stderr.rstrip().endswith(("cleaning up", "hint: nothing was left half done")), ran
    assert "Traceback" not in ran.stderr
    assert not alive(server)
    assert not sockets.exists()
    assert left(cli) == []
