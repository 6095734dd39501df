"""`examples/install.py`, which demo.sh and run.sh call, with a real .venv and a real pip, without a network."""

from __future__ import annotations

import fcntl
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

EXAMPLES = Path(__file__).parents[3] / "examples"
PYPROJECT = """\
[build-system]
requires = []
build-backend = "backend"
backend-path = ["."]
"""
# The least that pip takes for a build backend (PEP 517, PEP 660): what it installs is empty but for its metadata.
BACKEND = '''\
import zipfile

METADATA = """Metadata-Version: 2.1
Name: jupyman
Version: 1
Provides-Extra: demo
Provides-Extra: test
"""


def build_editable(folder, config_settings=None, metadata_directory=None):
    info = "jupyman-1.dist-info"
    with zipfile.ZipFile(f"{folder}/jupyman-1-py3-none-any.whl", "w") as wheel:
        wheel.writestr(f"{info}/METADATA", METADATA)
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
        wheel.writestr(f"{info}/RECORD", "")
    return "jupyman-1-py3-none-any.whl"
'''
ENVIRON = {**os.environ, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": "", "PIP_CONFIG_FILE": os.devnull}


def make_project(folder: Path) -> Path:
    (folder / "examples").mkdir(parents=True)
    shutil.copy(EXAMPLES / "install.py", folder / "examples")
    (folder / "pyproject.toml").write_text(PYPROJECT)
    (folder / "backend.py").write_text(BACKEND)
    return folder


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose .venv has the extra `demo`; before, its Python was gone."""
    if importlib.util.find_spec("ensurepip") is None:
        pytest.skip("this Python has no ensurepip (python3-venv), and virtualenv would come from the network")
    folder = make_project(tmp_path_factory.mktemp("install") / "here")
    (folder / ".venv" / "bin").mkdir(parents=True)
    (folder / ".venv" / "bin" / "python").symlink_to("/nowhere/python3")
    (folder / ".venv" / "jupyman-installed.json").write_text("{")
    first = install(folder, "demo")
    assert first.stdout == f"{folder}/.venv/bin/python\n", first.stderr
    assert "making .venv\ninstalling jupyman[demo]" in first.stderr
    return folder


def install(folder: Path, *extras: str) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, str(folder / "examples" / "install.py"), *extras]
    return subprocess.run(words, env=ENVIRON, capture_output=True, text=True, check=False, cwd="/")


def stamp(folder: Path) -> dict[str, Any]:
    found = json.loads((folder / ".venv" / "jupyman-installed.json").read_text())
    assert isinstance(found, dict)
    return found


def quiet(folder: Path, *extras: str) -> bool:
    """Install, and tell whether there was nothing to do."""
    again = install(folder, *extras)
    assert (again.returncode, again.stdout) == (0, f"{folder}/.venv/bin/python\n"), again.stderr
    return again.stderr == ""


def test_it_is_installed(project: Path) -> None:
    words = [f"{project}/.venv/bin/python", "-c", "import importlib.metadata as m; print(m.version('jupyman'))"]
    assert subprocess.run(words, capture_output=True, text=True, check=True).stdout == "1\n"


def test_a_second_run_does_nothing(project: Path) -> None:
    assert quiet(project, "demo")
    assert quiet(project)


def test_extras_of_earlier_runs_stay(project: Path) -> None:
    assert not quiet(project, "test")
    assert stamp(project)["extras"] == ["demo", "test"]
    assert quiet(project, "demo")


def test_a_changed_pyproject_is_installed_anew(project: Path) -> None:
    with (project / "pyproject.toml").open("a") as file:
        file.write("# changed\n")
    assert not quiet(project, "demo")
    assert quiet(project, "demo")


def test_a_failed_installation_is_tried_again_with_its_extras(project: Path) -> None:
    backend = project / "backend.py"
    backend.write_text(BACKEND.replace("Provides-Extra: demo", "Requires-Dist: absent\nProvides-Extra: demo"))
    (project / "pyproject.toml").write_text(f"{PYPROJECT}# changed again\n")
    failed = install(project, "demo", "test")
    assert (failed.returncode, failed.stdout) == (1, "")
    assert [line.split(":")[0] for line in failed.stderr.splitlines()[-2:]] == ["error", "hint"]
    assert stamp(project)["pyproject"] is None  # it does not look complete
    backend.write_text(BACKEND)
    assert not quiet(project)
    assert stamp(project)["extras"] == ["demo", "test"]


def test_two_at_once_wait_for_each_other(project: Path) -> None:
    with (project / ".venv.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        words = [sys.executable, str(project / "examples" / "install.py"), "demo"]
        pipe = subprocess.PIPE
        with subprocess.Popen(words, env=ENVIRON, stdout=pipe, stderr=pipe, text=True) as second:
            assert second.stderr is not None
            assert second.stderr.readline() == "another run is installing into .venv: waiting for it\n"
            assert second.poll() is None
            fcntl.flock(lock, fcntl.LOCK_UN)
            out, err = second.communicate(timeout=60)
    assert (second.returncode, out, err) == (0, f"{project}/.venv/bin/python\n", "")


def test_a_moved_folder_gets_a_new_environment(project: Path, tmp_path: Path) -> None:
    moved = tmp_path / "moved"
    shutil.copytree(project, moved, symlinks=True)
    assert not quiet(moved, "demo")
    first = (moved / ".venv" / "bin" / "pip").read_text().splitlines()[0]
    assert first.startswith(f"#!{moved}/.venv/bin/python")
    assert stamp(moved)["extras"] == ["demo", "test"]


def test_without_ensurepip_and_pip_the_hint_names_the_package(tmp_path: Path) -> None:
    folder = make_project(tmp_path / "here")
    script = folder / "examples" / "install.py"
    code = f"import runpy, sys; sys.modules['ensurepip'] = None; runpy.run_path({str(script)!r}, run_name='__main__')"
    ran = subprocess.run([sys.executable, "-c", code], env=ENVIRON, capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stdout) == (1, "")
    assert ran.stderr.splitlines()[-2:] == [
        "error: no virtual environment can be made",
        "hint: install python3-venv (Debian, Ubuntu) or pip",
    ]
