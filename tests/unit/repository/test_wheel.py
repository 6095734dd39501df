"""The wheel has the package, its scripts for the host, and nothing else."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from jupyman import remote

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def names(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("wheel")
    words = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    [wheel] = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        return archive.namelist()


def test_only_the_package_is_in_it(names: list[str]) -> None:
    tops = {name.split("/", 1)[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"jupyman"}
    assert not [name for name in names if name.endswith((".pyc", ".toml", ".lock"))]


def test_all_that_travels_to_the_host_is_in_it(names: list[str]) -> None:
    remote = [path for path in (ROOT / "jupyman" / "remote").rglob("*") if path.suffix in {".py", ".sh"}]
    here = {path.relative_to(ROOT).as_posix() for path in remote}
    assert len(here) > 40
    assert here <= set(names)
    assert "jupyman/py.typed" in names


def test_a_daemon_reads_what_travels_to_hosts_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another version may be installed in its place while it runs."""
    remote.preload()
    monkeypatch.setattr(remote, "files", lambda _: ROOT / "absent")
    assert remote.script("lib/common")
    assert remote.script("servers/launch")
    assert remote.program("servers/jupyter_config")
    with pytest.raises(FileNotFoundError):
        remote.script("servers/none")
