"""The probe finds environments: real files in the home of a real account."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from jupyman.host.report import probe
from jupyman.tools.envs import choice
from tests.integration.host.environment_tree import Look, Tree, codes, inside
from tests.local_shell import PATH, LocalShell

pytestmark = pytest.mark.skipif(os.getuid() != 0, reason="makes accounts: needs root")


def test_every_source_is_read(tree: Tree, look: Look) -> None:
    tree.root("miniconda3")
    for name in ("pytorch", "my env"):
        tree.conda(f"miniconda3/envs/{name}", "3.11.2")
    tree.conda(".conda/envs/own", "3.10.1")
    tree.conda("proj/.conda")
    tree.file(".conda/environments.txt", f"{tree.home}/proj/.conda\n{tree.home}/gone\n\nrelative\n")
    tree.conda("big/listed")
    tree.conda("flow/also")
    tree.file(".condarc", f'channels:\n  - defaults\nenvs_dirs:\n  - "{tree.home}/big"  # here\nshow: true\n  - /x\n')
    tree.file(".mambarc", "envs_dirs: [/nonexistent, ~/flow]\n")
    tree.conda("odd place/mm/envs/micro")
    tree.file(".bashrc", f"# >>> mamba initialize >>>\nexport MAMBA_ROOT_PREFIX='{tree.home}/odd place/mm';\n")
    tree.root("by-bash/c1")
    tree.file(".zshrc", f"__conda_setup=\"$('{tree.home}/by-bash/c1/bin/conda' 'shell.zsh' 'hook' 2> /dev/null)\"\n")
    tree.root("by-fish/c2")
    tree.file(".config/fish/config.fish", f"if test -f {tree.home}/by-fish/c2/bin/conda\nend\n")
    tree.root("by-csh/c3")
    tree.file(".cshrc", f'if ( -f "{tree.home}/by-csh/c3/etc/profile.d/conda.csh" ) then\n')
    tree.root("by-hand/c4")
    tree.file(".profile", '. "$HOME/by-hand/c4/etc/profile.d/conda.sh"\n')
    tree.venv(".virtualenvs/v1")
    tree.venv("venv-old", "version_info = 3.7.3.final.0\n")
    tree.venv("project/.venv", "version_info = 3.12.3\nuv = 0.4.1\n")
    tree.venv("deep/er/work/.venv")
    tree.venv("somewhere/very/odd")
    found = inside(tree, look(directory="~/deep/er/work", extra=["~/somewhere/very/odd", "/nonexistent", ""]))
    expected = {
        "miniconda3": ("base", "conda", "3.12.4"),
        "miniconda3/envs/pytorch": ("pytorch", "conda", "3.11.2"),
        "miniconda3/envs/my env": ("my env", "conda", "3.11.2"),
        ".conda/envs/own": ("own", "conda", "3.10.1"),
        "proj/.conda": ("proj", "conda", "3.12.4"),
        "big/listed": ("listed", "conda", "3.12.4"),
        "flow/also": ("also", "conda", "3.12.4"),
        "odd place/mm/envs/micro": ("micro", "micromamba", "3.12.4"),
        "by-bash/c1": ("base", "conda", "3.12.4"),
        "by-fish/c2": ("base", "conda", "3.12.4"),
        "by-csh/c3": ("base", "conda", "3.12.4"),
        "by-hand/c4": ("base", "conda", "3.12.4"),
        ".virtualenvs/v1": ("v1", "venv", "3.11.9"),
        "venv-old": ("venv-old", "venv", "3.7.3.final.0"),
        "project/.venv": ("project", "uv", "3.12.3"),
        "deep/er/work/.venv": ("work", "venv", "3.11.9"),
        "somewhere/very/odd": ("odd", "venv", "3.11.9"),
    }
    assert {path: (one.name, one.kind, one.python) for path, one in found.items()} == expected
    assert found["miniconda3/envs/my env"].root == f"{tree.home}/miniconda3"
    assert found[".conda/envs/own"].root is None
    assert found["miniconda3"].apps == ["lab", "server"]
    assert (found["miniconda3"].jupyter, found["miniconda3"].ipykernel) == ("2.14.2", "6.29.5")
    assert (found["big/listed"].jupyter, found["big/listed"].apps) == (None, [])
    assert found["miniconda3"].executable == f"{tree.home}/miniconda3/bin/python"


def test_variables_name_roots_too(tree: Tree, look: Look) -> None:
    tree.root("r1")
    tree.conda("r2/envs/e2")
    tree.conda("r3/e3")
    env = {
        "CONDA_EXE": f"{tree.home}/r1/bin/conda",
        "MAMBA_ROOT_PREFIX": f"{tree.home}/r2",
        "CONDA_ENVS_PATH": "/x:~/r3",
    }
    found = inside(tree, look(env=env))
    assert {path: one.kind for path, one in found.items()} == {
        "r1": "conda",
        "r2/envs/e2": "micromamba",
        "r3/e3": "conda",
    }


def test_torch_builds(tree: Tree, look: Look) -> None:
    tree.conda("miniconda3/envs/pip")
    tree.file(
        "miniconda3/envs/pip/lib/python3.12/site-packages/torch/version.py",
        "from typing import Optional\n__all__ = ['cuda']\n__version__ = '2.7.0+cu126'\ncuda: Optional[str] = '12.6'\n",
    )
    tree.conda("miniconda3/envs/record")
    tree.file("miniconda3/envs/record/conda-meta/pytorch-2.5.1-py3.12_cuda12.4_cudnn9.1.0_0.json")
    tree.conda("miniconda3/envs/cpu")
    tree.package("miniconda3/envs/cpu", "torch", "2.5.1+cpu")
    found = inside(tree, look())
    told = {path.rpartition("/")[2]: one.torch for path, one in found.items()}
    assert {name: (torch.version, torch.cuda) for name, torch in told.items() if torch is not None} == {
        "pip": ("2.7.0+cu126", "12.6"),
        "record": ("2.5.1", "12.4"),
        "cpu": ("2.5.1+cpu", None),
    }


def test_pip_install_user_runs_by_the_python_of_its_first_line(tree: Tree, look: Look) -> None:
    tree.program(".local/bin/jupyter-lab", "#!/usr/bin/python3\nimport sys\n")
    version = Path("/usr/bin/python3").resolve().name.removeprefix("python")
    tree.package(".local", "jupyter_server", "1.2.3", "3.6")  # of a Python that is no longer there
    tree.package(".local", "jupyter_server", "2.14.2", version)
    one = inside(tree, look())[".local"]
    assert (one.name, one.kind, one.executable, one.jupyter) == ("user", "system", "/usr/bin/python3", "2.14.2")
    assert one.apps == ["lab"]


@pytest.mark.parametrize("first_line", ["#!{python}\n", "#!/bin/sh\n'''exec' \"{python}\" \"$0\" \"$@\"\n' '''\n"])
def test_a_script_that_names_an_environments_python_belongs_to_it(tree: Tree, look: Look, first_line: str) -> None:
    tree.venv("apps/lab one", jupyter=True)
    python = f"{tree.home}/apps/lab one/bin/python" if "exec" in first_line else f"{tree.home}/apps/two/bin/python"
    tree.venv("apps/two", jupyter=True)
    tree.program("tools/bin/jupyter-lab", first_line.format(python=python) + "x\n")
    found = inside(tree, look(env={"PATH": f"{tree.home}/tools/bin:{PATH}"}))
    assert list(found) == ["apps/lab one" if "exec" in first_line else "apps/two"]


def test_a_link_on_path_leads_to_its_environment(tree: Tree, look: Look) -> None:
    tree.venv(".local/share/pipx/venvs/jupyterlab", jupyter=True)
    link = tree.home / ".local" / "bin" / "jupyter-lab"
    link.parent.mkdir(parents=True)
    link.symlink_to(tree.home / ".local/share/pipx/venvs/jupyterlab/bin/jupyter-lab")
    assert list(inside(tree, look())) == [".local/share/pipx/venvs/jupyterlab"]


def test_one_environment_by_two_paths_is_listed_once_by_the_one_that_was_named(tree: Tree, look: Look) -> None:
    tree.root("miniconda3")
    tree.conda("miniconda3/envs/e")
    (tree.home / "conda").symlink_to(tree.home / "miniconda3")
    (tree.home / "short").symlink_to(tree.home / "miniconda3" / "envs" / "e")
    assert set(inside(tree, look())) == {"miniconda3", "miniconda3/envs/e"}
    assert set(inside(tree, look(extra=["~/short"]))) == {"miniconda3", "short"}


def test_the_likeliest_environment_comes_first(tree: Tree, look: Look) -> None:
    tree.root("miniconda3")
    tree.conda("miniconda3/envs/aaa", jupyter=True)
    tree.conda("miniconda3/envs/bbb", jupyter=True)
    tree.conda("miniconda3/envs/000")
    assert list(inside(tree, look()))[:3] == ["miniconda3", "miniconda3/envs/aaa", "miniconda3/envs/bbb"]
    report = look(env={"PATH": f"{tree.home}/miniconda3/envs/bbb/bin:{PATH}"})
    assert list(inside(tree, report))[:2] == ["miniconda3/envs/bbb", "miniconda3"]
    assert choice.choose(report, None, None, "lab")[0].name == "bbb"
    server, working = choice.choose(report, "000", None, "lab")
    assert (server.name, working.name if working is not None else None) == ("bbb", "000")


def test_odd_names(tree: Tree, look: Look) -> None:
    tree.conda("miniconda3/envs/new\nline")
    tree.conda("miniconda3/envs/esc\x1b[2J")
    tree.conda("miniconda3/envs/$(touch oops)`id`;'\"*")
    tree.conda("miniconda3/envs/-n")
    tree.conda("miniconda3/envs/naïve")
    (tree.home / "miniconda3" / "envs" / ".conda_envs_dir_test").touch()
    (tree.home / "miniconda3" / "envs" / "empty").mkdir()
    names = {one.name for one in inside(tree, look()).values()}
    assert names == {"$(touch oops)`id`;'\"*", "-n", "naïve"}
    assert not (tree.home / "oops").exists()


def test_closed_and_broken_environments_are_named(tree: Tree, look: Look) -> None:
    tree.root("miniconda3")
    tree.conda("miniconda3/envs/closed")
    tree.conda("miniconda3/envs/half", "3.9.1")
    tree.package("miniconda3/envs/half", "ipykernel", "6.1", "3.9")
    tree.conda("miniconda3/envs/broken", jupyter=True)
    (tree.home / "miniconda3/envs/broken/bin/python").unlink()
    tree.own()
    for path, mode in (("closed", 0o700), ("half/conda-meta", 0o711)):
        place = tree.home / "miniconda3" / "envs" / path
        os.chown(place, 0, 0)
        place.chmod(mode)
    report = probe.probe(LocalShell(tree.home, tree.account.name), "here", depth="launch")
    found = inside(tree, report)
    assert set(found) == {"miniconda3", "miniconda3/envs/half", "miniconda3/envs/broken"}
    # Its records cannot be listed: the version is that of its lib folder.
    half = found["miniconda3/envs/half"]
    assert (half.python, half.ipykernel) == ("3.9", "6.1")
    broken = found["miniconda3/envs/broken"]
    assert (broken.apps, broken.jupyter, broken.executable) == ([], None, None)
    told = {problem.code: problem.text for problem in report.problems}
    assert "envs/closed" in told["env-unreadable"]
    assert "envs/half" in told["env-unreadable"]
    assert "envs/broken" in told["env-broken"]


@pytest.mark.parametrize(
    "shell",
    [
        ("/bin/dash",),
        ("/bin/bash",),
        ("/bin/bash", "--posix"),
        ("/bin/busybox", "sh"),
        ("/usr/bin/zsh", "--emulate", "sh"),
    ],
)
def test_any_posix_shell_sees_the_same(tree: Tree, shell: tuple[str, ...]) -> None:
    if not Path(shell[0]).exists():
        pytest.skip(f"{shell[0]} is not installed")
    tree.root("miniconda3")
    tree.venv("project/.venv", jupyter=True)
    tree.file(".bashrc", f". {tree.home}/miniconda3/etc/profile.d/conda.sh\n")
    tree.own()
    report = probe.probe(LocalShell(tree.home, tree.account.name, shell=shell), "here", depth="full")
    assert set(inside(tree, report)) == {"miniconda3", "project/.venv"}
    assert not codes(report) & {"disk-hangs", "environments-hang"}


def test_a_home_full_of_environments_is_read_in_a_moment(tree: Tree, look: Look) -> None:
    tree.root("miniconda3")
    for number in range(20):
        tree.conda(f"miniconda3/envs/e{number}", jupyter=True)
    tree.file(".conda/environments.txt", "".join(f"{tree.home}/miniconda3/envs/e{n}\n" for n in range(20)))
    began = time.monotonic()
    assert len(inside(tree, look())) == 21
    # Measured 0.1 s; one fork for each value would take 2 s here.
    assert time.monotonic() - began < 1.5
