"""`jupyman env mirror`: edits the user's own files and restores them; the rest stays, byte for byte."""

from __future__ import annotations

import http.server
import os
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from jupyman import remote
from jupyman.host.shell import script
from tests.bed import Cli, User
from tests.bed.aftermath import says
from tests.bed.terminal import Terminal
from tests.local_shell import LocalShell, bare_path

CONDARC = """\
# mine: ask before you change it
channels:
  - "https://mirrors.tuna.tsinghua.edu.cn/anaconda/cloud/pytorch/"   # for torch
  - defaults
custom_channels:
  lab: file:///srv
envs_dirs:
- ~/big
"""
PIP = "[global]\ntimeout = 60\n# no proxies\n"
BASE = "https://mirrors.ustc.edu.cn/anaconda"


@pytest.fixture(name="near")
def near_fixture(cli: Cli, tmp_path: Path) -> Iterator[Cli]:
    """The command line with three mirrors of its own: one that answers, one that has half, one that nobody is."""
    for path in ("conda/cloud/conda-forge/noarch/repodata.json", "simple/pip/index.html", "other/pip/index.html"):
        (tmp_path / path).parent.mkdir(parents=True)
        (tmp_path / path).write_text("{}")

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *words: object, **more: object) -> None:
            super().__init__(*words, directory=str(tmp_path), **more)  # type: ignore[arg-type]

        def log_message(self, format: str, *words: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        base = f"http://127.0.0.1:{server.server_port}"
        cli.home.mkdir(mode=0o700)
        # The public ones are not to be reached from a test: they are the user's own here, and nowhere.
        gone = "".join(f'[mirrors.{name}]\npip = "http://127.0.0.1:9/{name}"\n' for name in ("tuna", "aliyun", "bfsu"))
        text = f'[mirrors.near]\nconda = "{base}/conda"\npip = "{base}/simple"\n'
        text += f'[mirrors.half]\nconda = "{base}/nothing"\npip = "{base}/other/"\n{gone}'
        (cli.home / "config.toml").write_text(text)
        yield cli
        server.shutdown()
        thread.join()


def test_files_are_edited_and_put_back(cli: Cli, user: User) -> None:
    # A dotfile that is a link into a folder of dotfiles, as many have them.
    real = user.put("dotfiles/condarc", CONDARC, mode=0o640)
    (user.home / ".condarc").symlink_to("dotfiles/condarc")
    pip = user.put(".config/pip/pip.conf", PIP, mode=0o600)
    user.put(".mambarc", "use_uv: false\n")
    ran = cli("env", "mirror", "use", "ustc", "server1")
    says(ran, 2)
    assert f"+  - {BASE}/pkgs/main" in ran.stderr  # shown before it is asked
    assert (real.read_text(), pip.read_text()) == (CONDARC, PIP)
    ran = cli("env", "mirror", "use", "ustc", "server1", "-y", "--json")
    assert ran.rc == 0, ran
    assert ran.json["changed"] == [str(user.home / ".condarc"), str(pip)]
    moved = CONDARC.replace("https://mirrors.tuna.tsinghua.edu.cn/anaconda", BASE)
    fresh = real.read_text()
    added = f"  conda-forge: {BASE}/cloud\n  pytorch: {BASE}/cloud\n"
    assert fresh == moved.replace("  lab: file:///srv\n", f"  lab: file:///srv\n{added}") + (
        f"default_channels:\n  - {BASE}/pkgs/main\n  - {BASE}/pkgs/r\n  - {BASE}/pkgs/msys2\n"
    )
    assert pip.read_text() == PIP.replace(
        "[global]\n", "[global]\nindex-url = https://mirrors.ustc.edu.cn/pypi/simple\n"
    )
    assert (user.home / ".condarc").is_symlink()
    assert (stat.S_IMODE(real.stat().st_mode), stat.S_IMODE(pip.stat().st_mode)) == (0o640, 0o600)
    assert (real.stat().st_uid, pip.stat().st_uid) == (user.uid, user.uid)
    assert (user.home / ".mambarc").read_text() == "use_uv: false\n"
    asked = user.run("/usr/bin/python3", "-m", "pip", "config", "get", "global.index-url")
    if asked.returncode == 0:  # a Python with pip
        assert asked.stdout.strip() == "https://mirrors.ustc.edu.cn/pypi/simple"
    # The same again changes nothing; another one keeps what was there first.
    assert cli("env", "mirror", "use", "ustc", "server1", "-y", "--json").json["changed"] == []
    assert cli("env", "mirror", "use", "bfsu", "server1", "-y").rc == 0
    assert "ustc" not in real.read_text() + pip.read_text()
    with Terminal(cli, "env", "mirror", "reset", "server1", whole=True) as terminal:
        terminal.expect(f"-  - {BASE.replace('ustc', 'bfsu').replace('.ustc', '')[:8]}")
        terminal.expect("Write these changes on server1? [Y/n]")
        terminal.type("\n")
        assert terminal.end().rc == 0
    assert (real.read_text(), pip.read_text()) == (CONDARC, PIP)
    assert (stat.S_IMODE(real.stat().st_mode), stat.S_IMODE(pip.stat().st_mode)) == (0o640, 0o600)
    assert (user.home / ".condarc").is_symlink()
    assert cli("env", "mirror", "reset", "server1", "-y", "--json").json["changed"] == []
    left = [path.name for path in (user.home, pip.parent, real.parent) for path in path.glob("*jupyman*")]
    assert left == []


def test_files_that_were_not_there_go_again(cli: Cli, user: User) -> None:
    assert cli("env", "mirror", "use", "tuna", "server1", "-y").rc == 0
    assert (user.home / ".condarc").exists()
    assert (user.home / ".config/pip/pip.conf").exists()
    assert cli("env", "mirror", "reset", "server1", "-y").rc == 0
    assert not (user.home / ".condarc").exists()
    assert list((user.home / ".config/pip").iterdir()) == []


def test_what_is_left_alone(cli: Cli, user: User) -> None:
    rc = user.put(".condarc", "default_channels: [a, b]\n")
    ran = cli("env", "mirror", "use", "tuna", "server1", "-y")
    says(ran, 2)
    assert f"{rc}: line 1 (default_channels)" in ran.stderr
    rc.unlink()
    if os.geteuid() == 0:
        foreign = user.home / "foreign"
        foreign.write_text("channels: []\n")
        foreign.chmod(0o666)
        rc.symlink_to(foreign)
        says(cli("env", "mirror", "use", "tuna", "server1", "-y"), 26)
        assert foreign.read_text() == "channels: []\n"
        rc.unlink()
        rc.symlink_to("/root/.condarc")
        says(cli("env", "mirror", "use", "tuna", "server1", "-y"), 26)
        rc.unlink()
    rc.write_bytes(b"# \xff\nchannels: []\n")
    os.chown(rc, user.uid, user.gid)
    says(cli("env", "mirror", "use", "tuna", "server1", "-y"), 2)
    assert rc.read_bytes() == b"# \xff\nchannels: []\n"
    assert not (user.home / ".config").exists()
    says(cli("env", "mirror", "use", "nosuch", "server1"), 2)


def test_which_mirror_answers(near: Cli, user: User) -> None:
    assert near("env", "mirror", "use", "near", "server1", "-y").rc == 0
    told = near("env", "mirror", "ls", "server1", "--json").json
    seen = {one["name"]: one for one in told["mirrors"]}
    assert seen["near"]["conda_seconds"] is not None
    assert seen["near"]["pip_seconds"] is not None
    assert (seen["half"]["conda_seconds"], seen["half"]["pip_seconds"] is None) == (None, False)
    assert seen["tuna"]["pip_seconds"] is None
    assert told["fastest"] == "near"
    assert told["used"] == ["near"]
    text = near("env", "mirror", "ls", "server1")
    assert "fastest from there: near" in text.stderr
    assert "not reached" in text.stdout
    ran = near("env", "mirror", "use", "half", "server1", "-y")
    assert ran.rc == 0, ran
    assert "half is configured, but does not answer to server1 for conda" in ran.stderr


@pytest.mark.parametrize("missing", [(), ("curl",), ("curl", "wget"), ("curl", "wget", "python3", "python")])
def test_whatever_program_the_host_has(tmp_path: Path, near: Cli, missing: tuple[str, ...]) -> None:
    text = (near.home / "config.toml").read_text()
    base = text.split('pip = "')[1].partition('"')[0]
    shell = LocalShell(tmp_path, env={"PATH": bare_path(tmp_path / "bin", *missing)})
    urls = f"good {base}/pip/\nbad {base}/nothing/\ngone http://127.0.0.1:9/x"
    facts = script.run(shell, "envs/mirror_test", {"URLS": urls, "LIMIT": "5"}, timeout=30)
    reached = [line.split()[0] for line in facts.all("reach")]
    assert reached == ([] if "python3" in missing else ["good"])
    assert remote.script("envs/mirror_test")
