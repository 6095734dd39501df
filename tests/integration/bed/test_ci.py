"""`.ci/run` waits, for a limited time, for another apt, as on a machine that updates itself after its start."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.bed import wait_until

SCRIPT = Path(__file__).parents[3] / ".ci" / "run"
pytestmark = pytest.mark.skipif(
    not all(map(shutil.which, ("apt-get", "dpkg-deb", "bash"))), reason="only Debian and its kin have apt"
)
LOCKS = ("lists/lock", "archives/lock", "dpkg/lock-frontend")


def parts() -> list[str]:
    """Return the packages that the script installs."""
    found = re.search(r"parts=\((.*?)\n\)", SCRIPT.read_text(encoding="utf-8"), re.DOTALL)
    assert found is not None
    return re.sub(r"#.*", "", found[1]).split()


@pytest.fixture(scope="module")
def mirror(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with an empty package of each name."""
    folder = tmp_path_factory.mktemp("mirror")
    entries = []
    for name in parts():
        control = folder / name / "DEBIAN" / "control"
        control.parent.mkdir(parents=True)
        text = f"Package: {name}\nVersion: 1\nArchitecture: all\nMaintainer: test <t@example.org>\nDescription: test\n"
        control.write_text(text)
        file = folder / f"{name}.deb"
        subprocess.run(["dpkg-deb", "-Znone", "-b", control.parent.parent, file], check=True, capture_output=True)
        content = file.read_bytes()
        digest = hashlib.sha256(content).hexdigest()
        entries.append(f"{text}Filename: ./{file.name}\nSize: {len(content)}\nSHA256: {digest}\n")
    (folder / "Packages").write_text("\n".join(entries))
    return folder


class Machine:
    """An apt with folders of its own, the script, and in place of the tests a line that says that they would run."""

    def __init__(self, folder: Path, mirror: Path) -> None:
        self.folder = folder
        for name in ("lists/partial", "archives/partial", "dpkg/updates", "dpkg/info", "log", "etc", ".ci", "tests"):
            (folder / name).mkdir(parents=True)
        (folder / "dpkg" / "status").touch()
        (folder / "etc" / "sources.list").write_text(f"deb [trusted=yes] file:{mirror} ./\n")
        (folder / "apt.conf").write_text(
            f"""
Dir::Etc "{folder}/etc";
Dir::State "{folder}";
Dir::State::lists "{folder}/lists";
Dir::State::status "{folder}/dpkg/status";
Dir::Cache "{folder}";
Dir::Cache::archives "{folder}/archives";
Dir::Log "{folder}/log";
Dir::Bin::dpkg "/bin/true";
APT::Sandbox::User "";
DPkg::Post-Invoke {{}};
"""
        )
        shutil.copy(SCRIPT, folder / ".ci" / "run")
        (folder / "tests" / "run.sh").write_text('echo "the tests run, strict: $JUPYMAN_TESTS_NO_SKIP"\n')

    @contextlib.contextmanager
    def held(self, lock: str) -> Iterator[None]:
        """Hold a lock as apt does: fcntl(2)."""
        with (self.folder / lock).open("w") as file:
            fcntl.lockf(file, fcntl.LOCK_EX)
            yield

    @contextlib.contextmanager
    def run(self, patience: int) -> Iterator[subprocess.Popen[bytes]]:
        environ = {
            **os.environ,
            "APT_CONFIG": str(self.folder / "apt.conf"),
            "DPKG_ADMINDIR": str(self.folder / "dpkg"),
            "JUPYMAN_CI_PATIENCE": str(patience),
        }
        with (self.folder / "said").open("wb") as said:
            words = ["bash", str(self.folder / ".ci" / "run")]
            with subprocess.Popen(words, env=environ, stdout=said, stderr=said, stdin=subprocess.DEVNULL) as process:
                try:
                    yield process
                finally:
                    process.kill()

    @property
    def said(self) -> str:
        return (self.folder / "said").read_text()


@pytest.fixture
def machine(tmp_path: Path, mirror: Path) -> Machine:
    return Machine(tmp_path, mirror)


def test_all_parts_are_installed(machine: Machine) -> None:
    with machine.run(60) as process:
        assert process.wait(120) == 0, machine.said
    assert machine.said.endswith("the tests run, strict: 1\n")
    assert [name for name in parts() if name not in machine.said] == []


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_is_waited_for(machine: Machine, lock: str) -> None:
    with contextlib.ExitStack() as holding:
        holding.enter_context(machine.held(lock))
        with machine.run(600) as process:
            wait_until(lambda: "Could not get lock" in machine.said, what="the wait", timeout=60)
            assert process.poll() is None
            holding.close()
            assert process.wait(120) == 0, machine.said
    assert machine.said.endswith("the tests run, strict: 1\n")


@pytest.mark.parametrize("lock", LOCKS)
def test_not_for_ever(machine: Machine, lock: str) -> None:
    with machine.held(lock), machine.run(1) as process:
        assert process.wait(120) != 0
    assert "Could not get lock" in machine.said
    assert "the tests run" not in machine.said
