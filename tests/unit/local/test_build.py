"""Which build of the code runs: the same contents are the same build wherever they lie; a look at the files is enough
to see that nothing changed."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from jupyman.local import build


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A package with a module, a script, a page, and what is no code."""
    folder = tmp_path / "package"
    for name in ("a.py", "remote/b.sh", "web/c.js", "__pycache__/a.cpython-311.pyc", "__pycache__/x.py", "a.py.swp"):
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"this is {name}")
    monkeypatch.setattr(build, "_PACKAGE", str(folder))
    yield folder
    build.identity.cache_clear()


def seen() -> tuple[str, str]:
    build.identity.cache_clear()
    return build.stamp(), build.identity()


def write(package: Path) -> None:
    (package / "a.py").write_text("this is a.pY")  # as long as before


def add(package: Path) -> None:
    (package / "remote" / "new.py").write_text("")


def remove(package: Path) -> None:
    (package / "remote" / "b.sh").unlink()


def rename(package: Path) -> None:
    (package / "a.py").rename(package / "z.py")


@pytest.mark.parametrize("change", [write, add, remove])
def test_a_change_of_the_code_changes_both(package: Path, change: Callable[[Path], None]) -> None:
    stamp, identity = seen()
    change(package)
    now = seen()
    assert now[0] != stamp
    assert now[1] != identity


def test_another_name_is_another_build(package: Path) -> None:
    _, identity = seen()
    rename(package)
    assert seen()[1] != identity


def test_what_is_no_code_changes_nothing(package: Path) -> None:
    before = seen()
    (package / "__pycache__" / "a.cpython-312.pyc").write_text("compiled")
    (package / "a.py~").write_text("kept by an editor")
    assert seen() == before


def test_the_same_release_elsewhere_is_the_same_build(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stamp, identity = seen()
    other = package.with_name("other")
    shutil.copytree(package, other)
    os.utime(other / "a.py", (1, 1))
    monkeypatch.setattr(build, "_PACKAGE", str(other))
    now = seen()
    assert now[0] != stamp
    assert now[1] == identity


def test_code_that_lies_in_no_folder_has_neither(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "_PACKAGE", str(tmp_path / "archive.pyz" / "jupyman"))
    assert seen() == ("", "")
    build.identity.cache_clear()
