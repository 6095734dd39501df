"""Environments as kernels of an account, with real kernels: add, prove, roll back, list, check, remove."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from jupyman import errors
from jupyman.core import kernels
from jupyman.model import Environment, KernelAdded
from tests.integration.account import Account, build_environment, new_account, processes, public_folder


@pytest.fixture
def account() -> Iterator[Account]:
    with new_account() as fresh:
        yield fresh


@pytest.fixture
def folder() -> Iterator[Path]:
    with public_folder() as made:
        yield made


def specs(account: Account) -> Path:
    return account.home / ".local/share/jupyter/kernels"


def add(
    account: Account,
    env: Environment,
    *,
    name: str | None = None,
    display_name: str | None = None,
    install: bool = False,
    replace: bool = False,
    proof: bool = True,
    lines: list[str] | None = None,
) -> KernelAdded:
    return kernels.add(
        account,
        env,
        name=name,
        display_name=display_name,
        install=install,
        replace=replace,
        proof=proof,
        on_line=lines.append if lines is not None else None,
    )


def hook(folder: Path, env: Environment, text: str) -> None:
    (folder / env.name / "etc/conda/activate.d/hook.sh").write_text(text)


def printed(account: Account, added: KernelAdded, code: str) -> str:
    """Run the spec's own wrapper with another program for the kernel's Python."""
    argv = [*added.kernel.argv[:4], "-c", code]
    result = subprocess.run(
        account.command(*argv), env=account.variables(), check=True, capture_output=True, text=True, cwd="/"
    )
    return result.stdout.strip()


def test_a_kernel_runs_in_its_activated_environment(account: Account, folder: Path) -> None:
    env = build_environment(folder / "My Env'$(x)", kind="conda")
    hook(folder, env, 'set -u; echo noise; set -- changed; export HOOKED="$CONDA_DEFAULT_ENV"\n')
    display = "Py \"x\" \\ 'y' $(id) `id` 中 <b>"
    added = add(account, env, display_name=display)
    assert added.kernel.name == "my-env-x"
    assert added.kernel.display_name == display
    assert added.kernel.prefix == env.prefix
    assert added.kernel.ok
    assert added.executable == f"{env.prefix}/bin/python"
    assert added.python is not None
    assert added.python.startswith("3.")
    assert not added.refreshed
    seen = printed(account, added, "import os, shutil; print(os.environ['HOOKED'], shutil.which('python'), end='')")
    assert seen == f"{env.name} {env.prefix}/bin/python"
    file = json.loads((specs(account) / "my-env-x/kernel.json").read_text())
    assert file["env"]["CONDA_PREFIX"] == env.prefix
    assert file["metadata"]["debugger"] is True
    assert [path.name for path in specs(account).iterdir()] == ["my-env-x"]
    assert processes(account.uid) == []


def test_adding_again_refreshes_and_another_environment_is_refused(account: Account, folder: Path) -> None:
    first = build_environment(folder / "one")
    second = build_environment(folder / "two")
    add(account, first, name="Mine", proof=False)
    assert add(account, first, name="mine", display_name="new", proof=False).refreshed
    before = (specs(account) / "mine/kernel.json").read_bytes()
    with pytest.raises(errors.UsageFault, match="already runs another environment") as caught:
        add(account, second, name="mine", proof=False)
    assert "--name" in caught.value.hint
    assert "--replace" in caught.value.hint
    assert (specs(account) / "mine/kernel.json").read_bytes() == before
    replaced = add(account, second, name="mine", replace=True)
    assert replaced.kernel.prefix == second.prefix
    assert sorted(path.name for path in specs(account).parent.iterdir() if "jupyman" in path.name) == []


def test_a_kernel_that_does_not_run_is_rolled_back(account: Account, folder: Path) -> None:
    env = build_environment(folder / "broken", kind="conda")
    hook(folder, env, "export PYTHONHOME=/nowhere\n")
    with pytest.raises(errors.KernelFault, match="does not start"):
        add(account, env)
    assert list(specs(account).iterdir()) == []
    hook(folder, env, "true\n")
    add(account, env, proof=False)
    before = (specs(account) / "broken/kernel.json").read_bytes()
    hook(folder, env, "exit 3\n")
    with pytest.raises(errors.KernelFault):
        add(account, env, display_name="other")
    assert (specs(account) / "broken/kernel.json").read_bytes() == before
    assert [path.name for path in specs(account).iterdir()] == ["broken"]


def test_a_missing_ipykernel_is_named_or_installed(account: Account, folder: Path) -> None:
    env = build_environment(folder / "bare", packages=False)
    with pytest.raises(errors.KernelFault, match="has no ipykernel") as caught:
        add(account, env)
    assert "--install" in caught.value.hint
    with pytest.raises(errors.KernelFault, match="no pip, conda or uv"):
        add(account, env, install=True)
    # A pip of the environment's own; this one "installs" by pointing to packages that are here already.
    donor = build_environment(folder / "donor")
    site = next((folder / "bare/lib").iterdir()) / "site-packages"
    packages = next((folder / "donor/lib").iterdir()) / "site-packages"
    (site / "pip").mkdir()
    (site / "pip/__init__.py").touch()
    (site / "pip/__main__.py").write_text(
        "import sys\nif sys.argv[1] == 'install':\n    print('Collecting', sys.argv[-1])\n"
        f"    open({str(site / 'x.pth')!r}, 'w').write({str(packages.resolve())!r})\n"
    )
    for path in (site, site / "pip"):
        os.chown(path, account.uid, -1)
    lines: list[str] = []
    added = add(account, env, install=True, lines=lines)
    assert lines == ["Collecting ipykernel"]
    assert added.executable == f"{env.prefix}/bin/python"
    assert donor.prefix != env.prefix


def test_a_failed_installation_shows_its_lines(account: Account, folder: Path) -> None:
    env = build_environment(folder / "bare", packages=False)
    site = next((folder / "bare/lib").iterdir()) / "site-packages"
    (site / "pip").mkdir()
    program = "import sys\nif sys.argv[1] == 'install':\n    sys.exit('ERROR: no network')\n"
    (site / "pip/__main__.py").write_text(program)
    lines: list[str] = []
    with pytest.raises(errors.KernelFault, match=r"could not be installed .*status 1"):
        add(account, env, install=True, lines=lines)
    assert lines == ["ERROR: no network"]
    assert not specs(account).exists()


def test_kernels_are_listed_checked_and_removed(account: Account, folder: Path) -> None:
    env = build_environment(folder / "gone")
    add(account, env, proof=False)
    other = build_environment(folder / "stays")
    listed = {kernel.name: kernel for kernel in kernels.ls(account, [other.prefix]).kernels}
    assert listed["gone"].ok is None
    assert listed["gone"].prefix == env.prefix
    assert listed["python3"].directory == f"{other.prefix}/share/jupyter/kernels/python3"
    checked = {kernel.name: kernel for kernel in kernels.ls(account, [other.prefix], check=True).kernels}
    assert checked["gone"].ok
    assert checked["python3"].ok
    (folder / "gone/lib").rename(folder / "gone/moved")
    broken = kernels.ls(account, [], check=True).kernels
    assert [kernel.ok for kernel in broken if kernel.name == "gone"] == [False]
    shutil.rmtree(folder / "gone")
    vanished = next(kernel for kernel in kernels.ls(account, []).kernels if kernel.name == "gone")
    assert vanished.ok is False
    assert vanished.problem is not None
    assert "is gone" in vanished.problem
    # A spec of the environment is not the account's to remove.
    with pytest.raises(errors.UsageFault, match="you have no kernel"):
        kernels.rm(account, "python3")
    assert kernels.rm(account, "Gone") == str(specs(account) / "gone")
    assert list(specs(account).iterdir()) == []


def test_only_kernel_specs_are_removed(account: Account) -> None:
    root = specs(account)
    precious = account.home / "precious"
    (precious).mkdir(parents=True)
    (precious / "kernel.json").write_text("{}")
    root.mkdir(parents=True)
    (root / "link").symlink_to(precious)
    (root / "notes").mkdir()
    (root / "notes/diary.txt").write_text("x")
    with pytest.raises(errors.NotOurs, match="symbolic link"):
        kernels.rm(account, "link")
    with pytest.raises(errors.NotOurs, match="does not look like a kernel spec"):
        kernels.rm(account, "notes")
    for name in ("..", "a/b", "*", ""):
        with pytest.raises(errors.UsageFault):
            kernels.rm(account, name)
    if account.uid != os.getuid():
        (root / "alien").mkdir()
        (root / "alien/kernel.json").write_text("{}")
        with pytest.raises(errors.NotOurs, match="belongs to uid"):
            kernels.rm(account, "alien")
    assert (precious / "kernel.json").exists()
    assert (root / "notes/diary.txt").exists()


def test_a_broken_kernel_json_is_listed_as_such(account: Account) -> None:
    root = specs(account) / "odd"
    root.mkdir(parents=True)
    (root / "kernel.json").write_text('{"argv": [1')
    spec = kernels.ls(account, []).kernels[0]
    assert spec.ok is False
    assert spec.problem is not None
    assert spec.problem.startswith("kernel.json cannot be read")
