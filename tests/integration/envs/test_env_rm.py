"""`jupyman env rm`: removes only the user's own environments, and none in which a kernel runs."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.bed import Bed, Cli, User, wait_until
from tests.bed.aftermath import refused, says
from tests.bed.kernels import own
from tests.bed.terminal import Terminal


def test_it_asks_and_names_what_it_removes(cli: Cli, user: User, fresh_bed: Bed) -> None:
    own(user, fresh_bed)
    prefix = user.home / "work" / "env"
    for name in ("one", "two"):
        assert cli("kernel", "add", str(prefix), "server1", "--name", name).rc == 0
    says(cli("env", "rm", "~/work/env", "server1"), 2)
    with Terminal(cli, "env", "rm", "~/work/env", "server1") as terminal:
        terminal.expect(f"Remove {prefix} from server1 (")
        terminal.expect(") and kernel one, two? [y/N]")
        terminal.type("\n")
        assert terminal.end().rc == 130
    assert prefix.exists()
    ran = cli("env", "rm", "~/work/env", "server1", "-y", "--json")
    assert ran.rc == 0, ran
    assert (ran.json["prefix"], ran.json["kernels"]) == (str(prefix), ["one", "two"])
    assert list((user.home / "work").iterdir()) == []
    assert list((user.home / ".local/share/jupyter/kernels").iterdir()) == []
    refused(cli, "env", "rm", "~/work/env", "server1", "-y", status=21, code="env-missing")
    # What its links led to is as before.
    assert (fresh_bed.conda.pytorch / "bin" / "python").exists()


def test_what_is_not_removed(cli: Cli, user: User) -> None:
    (user.home / "link").symlink_to("work/env")
    user.put("plain/file", "x")
    user.put("root/conda-meta/history", "")
    user.put("root/condabin/conda", "")
    user.put("pyvenv.cfg", "home = /usr/bin\n")
    for words, status, said in (
        ("lab", 26, "belongs to uid"),
        ("base", 2, "is not an environment that jupyman removes"),
        ("system", 2, "is not an environment that jupyman removes"),
        ("~/link", 26, "is a symbolic link"),
        ("~/plain", 21, "no environment"),
        ("~/root", 2, "is not an environment that jupyman removes"),
        (str(user.home), 2, "holds your home"),
        ("/usr", 2, "is not an environment that jupyman removes"),
        ("nosuch", 21, "no environment"),
        ("../x", 21, "no environment"),
    ):
        ran = cli("env", "rm", words, "server1", "-y")
        says(ran, status)
        assert said in ran.stderr, ran
    assert (user.home / "work/env/bin/python").exists()
    assert (user.home / "plain/file").exists()
    assert (user.home / "root/condabin/conda").exists()


def test_not_while_a_kernel_runs(cli: Cli, user: User, fresh_bed: Bed) -> None:
    own(user, fresh_bed)
    python = user.home / "work" / "env" / "bin" / "python"
    connection = user.home / "kernel.json"
    kernel = user.start(str(python), "-m", "ipykernel_launcher", "-f", str(connection), stdout=subprocess.DEVNULL)
    with kernel:
        wait_until(connection.exists, what="the kernel")
        ran = refused(cli, "env", "rm", "~/work/env", "server1", "-y", status=2, code="usage")
        assert f"is in use: kernels (pid {kernel.pid})" in ran.stderr
        with Terminal(cli, "env", "rm", "~/work/env", "server1") as terminal:
            terminal.expect(f"although it is in use by kernels (pid {kernel.pid})?")
            terminal.type("n\n")
            assert terminal.end().rc == 130
        assert python.exists()
        assert kernel.poll() is None
        assert cli("env", "rm", "~/work/env", "server1", "-y", "--force").rc == 0
        assert kernel.poll() is None  # it was not asked to end it
        kernel.kill()
    assert not Path(python).exists()


def test_folders_that_cannot_be_written(cli: Cli, user: User) -> None:
    prefix = user.home / "work" / "env"
    (prefix / "lib").chmod(0o555)
    prefix.chmod(0o555)
    assert cli("env", "rm", "~/work/env", "server1", "-y").rc == 0
    assert list((user.home / "work").iterdir()) == []
