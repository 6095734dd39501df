"""`jupyman env push`: files reach an environment without a network, are verified, and are never sent twice."""

from __future__ import annotations

import contextlib
import hashlib
import os
import subprocess
from pathlib import Path

import psutil
import pytest

from tests.bed import Bed, Cli, User, wait_until
from tests.bed.aftermath import programs, says
from tests.bed.channel import Channel
from tests.bed.interpreter import VERSION
from tests.bed.kernels import own
from tests.bed.terminal import Terminal
from tests.bed.wheels import Index
from tests.integration.envs.installations import STATE, give_pip, jobs


@pytest.fixture
def env(user: User, fresh_bed: Bed) -> Path:
    """The environment in the user's home, with a pip; returns its site-packages."""
    return give_pip(fresh_bed, user)


def wheels(index: Index, *names: str) -> list[str]:
    return [str(next((index.folder / name).glob("*.whl"))) for name in names]


def uploads(user: User) -> list[Path]:
    return sorted((user.home / STATE).glob("*/.uploads/*/*"))


def sha(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_wheels_with_what_they_need(mine: Cli, user: User, index: Index, env: Path) -> None:
    files = wheels(index, "gadget", "widgetry")
    ran = mine("env", "push", *files, "--env", "~/work/env", "--host", "server1", "--json")
    assert ran.rc == 0, ran
    assert ran.json["files"] == [Path(file).name for file in files]
    assert ran.json["bytes"] == sum(Path(file).stat().st_size for file in files)
    assert "--no-index --find-links" in ran.stderr
    assert (env / "gadget.py").exists()
    assert (env / "widgetry.py").exists()
    assert uploads(user) == []
    assert "Successfully installed gadget-1.0 widgetry-2.1" in mine("env", "logs", "env", "server1").stdout
    # Without what it needs, pip says so; what was uploaded waits for the next try.
    (env / "widgetry.py").unlink()
    subprocess.run(["rm", "-r", *map(str, env.glob("widgetry-*"))], check=True)
    ran = mine("env", "push", files[0], "--env", "~/work/env", "--host", "server1")
    says(ran, 27)
    assert "widgetry>=2" in ran.stderr
    assert [path.name for path in uploads(user)] == [Path(files[0]).name]


def test_conda_packages_by_its_own_conda(mine: Cli, user: User, conda: Path, channel: Channel) -> None:
    prefix = conda / "envs" / "c"
    assert mine("env", "create", "c", "server1", "--python", VERSION).rc == 0
    package = next((channel.folder / "noarch").glob("gizmo-*.tar.bz2"))
    ran = mine("env", "push", str(package), "--env", "c", "--host", "server1")
    assert ran.rc == 0, ran
    assert f"{conda}/bin/conda install -y -q --offline -p {prefix}" in ran.stderr
    assert (prefix / "lib" / "gizmo.txt").read_text() == "a gizmo\n"
    assert (prefix / "bin" / "python").exists()


def test_a_broken_upload_goes_on_where_it_ended(mine: Cli, user: User, env: Path, tmp_path: Path) -> None:
    big = Index(tmp_path / "big").add("bulky", "1.0", {"bulky/blob.txt": os.urandom(24 << 20).hex()})
    with Terminal(mine, "env", "push", str(big), "--env", "~/work/env", "--host", "server1") as terminal:
        terminal.expect("% of 48 MiB")
        for process in user.processes():
            with contextlib.suppress(psutil.NoSuchProcess):
                if process.name().startswith("sshd"):
                    process.kill()
        assert terminal.end().rc == 13
    (part,) = uploads(user)
    assert part.name == "part"
    wait_until(lambda: programs(user) == {}, what="the end of the broken upload")
    assert 0 < part.stat().st_size < big.stat().st_size
    assert part.read_bytes() == big.read_bytes()[: part.stat().st_size]
    # It is the same file that goes on, not a new one.
    before = part.stat().st_ino
    user.program("mv", f'#!/bin/sh\nls -i "$3" >>{user.home}/moved\nexec /bin/mv "$@"\n')
    ran = mine("env", "push", str(big), "--env", "~/work/env", "--host", "server1")
    assert ran.rc == 0, ran
    assert f"{before} {part}" in (user.home / "moved").read_text()
    assert (env / "bulky" / "blob.txt").stat().st_size == 48 << 20


def test_a_wrong_checksum_installs_nothing(mine: Cli, user: User, index: Index, env: Path) -> None:
    (file,) = map(Path, wheels(index, "widgetry"))
    node = next((user.home / STATE).glob("*"), None)
    assert node is None
    assert mine("env", "push", "--env", "nosuch", "--host", "server1", str(file)).rc == 21
    # What an earlier upload left is not what it seems: a bad disk, say.
    folder = user.home / STATE / os.uname().nodename / ".uploads" / sha(file)
    part = user.put(folder.relative_to(user.home) / "part", "x" * 10, mode=0o600)
    ran = mine("env", "push", str(file), "--env", "~/work/env", "--host", "server1")
    says(ran, 27)
    assert "was damaged on the way" in ran.stderr
    assert not part.exists()
    assert not (env / "widgetry.py").exists()
    assert mine("env", "push", str(file), "--env", "~/work/env", "--host", "server1").rc == 0


def test_what_is_refused(mine: Cli, user: User, index: Index, env: Path, tmp_path: Path) -> None:
    (file,) = wheels(index, "widgetry")
    odd = tmp_path / "a b.whl"
    odd.write_text("x")
    conda_package = tmp_path / "x-1-0.conda"
    conda_package.write_text("x")
    same = tmp_path / Path(file).name
    same.write_text("x")
    subprocess.run(["python3", "-m", "venv", "--without-pip", str(user.home / "venv")], check=True)
    subprocess.run(["chown", "-R", f"{user.uid}:{user.gid}", str(user.home / "venv")], check=True)
    for words, status, said in (
        ((str(odd), "--env", "~/work/env"), 2, "is not a package file"),
        ((str(same), file, "--env", "~/work/env"), 2, "have the same name"),
        ((file, "--env", "lab"), 26, "cannot be changed by you"),
        ((file, "--env", "nosuch"), 21, "no environment"),
        ((str(conda_package), "--env", "~/venv"), 2, "conda packages do not go into it"),
        ((file, "--env", "~/venv"), 21, "has no pip, and the host has no uv"),
    ):
        ran = mine("env", "push", *words, "--host", "server1")
        says(ran, status)
        assert said in ran.stderr, ran
    assert uploads(user) == []
    assert jobs(user) == []


def test_a_running_kernel_is_asked_about(mine: Cli, user: User, index: Index, env: Path, fresh_bed: Bed) -> None:
    own(user, fresh_bed)
    connection = user.home / "kernel.json"
    python = str(user.home / "work/env/bin/python")
    with user.start(python, "-m", "ipykernel_launcher", "-f", str(connection), stdout=subprocess.DEVNULL) as kernel:
        wait_until(connection.exists, what="the kernel")
        words = ("env", "push", *wheels(index, "widgetry"), "--env", "~/work/env", "--host", "server1")
        ran = mine(*words)
        says(ran, 2)
        assert f"in use by running kernels or servers (pid {kernel.pid})" in ran.stderr
        with Terminal(mine, *words) as terminal:
            terminal.expect("Install into it anyway? [y/N]")
            terminal.type("y\n")
            assert terminal.end(60).rc == 0
        kernel.kill()
    assert (env / "widgetry.py").exists()


def test_wheels_fetched_here_for_the_host(mine: Cli, user: User, index: Index, env: Path, with_uv: Path) -> None:
    # This computer's pip gets them from the index; the host has none.
    words = ("env", "push", "--download", "gadget", "--env", "~/work/env", "--host", "server1", "--json")
    ran = mine(*words, env={"PIP_INDEX_URL": index.url, "PIP_FIND_LINKS": "", "PIP_EXTRA_INDEX_URL": ""})
    assert ran.rc == 0, ran
    assert sorted(ran.json["files"]) == ["gadget-1.0-py3-none-any.whl", "widgetry-2.1-py3-none-any.whl"]
    assert (env / "gadget.py").exists()
    ran = mine(*words[:2], "--download", "nosuch", *words[4:], env={"PIP_INDEX_URL": index.url, "PIP_FIND_LINKS": ""})
    assert ran.rc == 2
    assert "could not download nosuch" in ran.json["error"]["message"]


def test_without_room(mine: Cli, user: User, env: Path, tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can mount a file system")
    big = Index(tmp_path / "big").add("bulky", "1.0", {"bulky/blob.txt": "x" * (3 << 20)})
    place = user.home / STATE
    user.put(STATE / "x", "")
    options = f"size=1m,uid={user.uid},gid={user.gid},mode=700"
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(place)], check=True)
    try:
        ran = mine("env", "push", str(big), "--env", "~/work/env", "--host", "server1")
        says(ran, 27)
        assert "MiB are free for bulky-1.0-py3-none-any.whl" in ran.stderr
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)
