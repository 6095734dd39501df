"""Environments as kernels of an account, with real kernels: add, prove, roll back, list, check, remove."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from jupyman import errors
from jupyman.host.kernels import repair
from jupyman.host.kernels import specs as kernels
from jupyman.host.kernels.check import MissingPackage
from jupyman.host.kernels.specs import AddedKernel
from jupyman.model import Environment
from tests.bed import wait_until
from tests.bed.launches import build_environment
from tests.bed.local_account import Account, processes, public_folder
from tests.bed.packages import closure, install


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
) -> AddedKernel:
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


def printed(account: Account, added: AddedKernel, code: str) -> str:
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
    site = next((folder / "bare/lib").iterdir()) / "site-packages"
    if account.uid != os.getuid():
        with pytest.raises(errors.KernelFault, match="you cannot change it"):
            add(account, env, install=True)
    os.chown(site, account.uid, -1)
    with pytest.raises(errors.KernelFault, match="no pip, conda or uv"):
        add(account, env, install=True)
    # A pip of the environment's own; this one "installs" by pointing to packages that are here already.
    donor = build_environment(folder / "donor")
    packages = next((folder / "donor/lib").iterdir()) / "site-packages"
    (site / "pip").mkdir()
    (site / "pip/__init__.py").touch()
    (site / "pip/__main__.py").write_text(
        "import sys\nif sys.argv[1] == 'install':\n    print('Collecting', sys.argv[-1])\n"
        f"    open({str(site / 'x.pth')!r}, 'w').write({str(packages.resolve())!r})\n"
    )
    lines: list[str] = []
    added = add(account, env, install=True, lines=lines)
    assert lines == ["Collecting ipykernel"]
    assert added.executable == f"{env.prefix}/bin/python"
    assert donor.prefix != env.prefix


def test_a_failed_installation_shows_its_lines(account: Account, folder: Path) -> None:
    env = build_environment(folder / "bare", packages=False)
    site = next((folder / "bare/lib").iterdir()) / "site-packages"
    os.chown(site, account.uid, -1)
    (site / "pip").mkdir()
    program = "import sys\nif sys.argv[1] == 'install':\n    sys.exit('ERROR: no network')\n"
    (site / "pip/__main__.py").write_text(program)
    lines: list[str] = []
    with pytest.raises(errors.KernelFault, match=r"could not be installed .*status 1"):
        add(account, env, install=True, lines=lines)
    assert lines == ["ERROR: no network"]
    assert not specs(account).exists()


def test_kernels_are_listed_and_removed(account: Account, folder: Path) -> None:
    env = build_environment(folder / "gone")
    add(account, env, proof=False)
    other = build_environment(folder / "stays")
    listed = {kernel.name: kernel for kernel in kernels.ls(account, [env, other]).specs}
    assert listed["gone"].ok is None
    assert (listed["gone"].prefix, listed["gone"].environment, listed["gone"].seen_by) == (env.prefix, "gone", None)
    places = {kernel.directory: kernel for kernel in kernels.ls(account, [env, other]).specs}
    assert places[f"{other.prefix}/share/jupyter/kernels/python3"].environment == "stays"
    shutil.rmtree(folder / "gone")
    vanished = next(kernel for kernel in kernels.ls(account, []).specs if kernel.name == "gone")
    assert vanished.ok is False
    assert vanished.problem is not None
    assert "is gone" in vanished.problem
    # A spec of the environment is not the account's to remove.
    with pytest.raises(errors.UsageFault, match="you have no kernel"):
        kernels.rm(account, "python3")
    assert kernels.rm(account, "Gone") == str(specs(account) / "gone")
    assert list(specs(account).iterdir()) == []


def test_a_kernel_that_hangs_ends_with_the_channel(account: Account, folder: Path) -> None:
    env = build_environment(folder / "hangs", kind="conda")
    hook(folder, env, "sleep 1000\n")
    account.cut_at = "step starting a kernel"
    with pytest.raises(errors.LinkLost):
        add(account, env)
    # Long before the proof's own limit. (With a link and a kernel that has begun: test_interrupt_others.py.)
    wait_until(lambda: processes(account.uid) == [])
    assert list(specs(account).iterdir()) == []


def command(account: Account, env: Environment, package: str = "ipywidgets>=8,<9") -> tuple[list[str], str]:
    """Return what would be run, or why nothing."""
    [plan] = repair.plans(account, [MissingPackage(env, package, problem=0)])
    return list(plan.command), plan.refusal


def tool(path: Path) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
    return str(path)


def test_each_environment_is_changed_by_its_own_tool(account: Account, folder: Path) -> None:
    env = build_environment(folder / "env", kind="conda", packages=False)
    site = next((folder / "env/lib").iterdir()) / "site-packages"
    os.chown(site, account.uid, -1)
    account.environ["PATH"] = f"{folder}/bin:/usr/bin:/bin"
    assert command(account, env) == (
        [],
        f"{env.prefix} has no pip, conda or uv: install ipywidgets>=8,<9 there yourself",
    )
    words = ["install", "-y", "-p", env.prefix, "ipywidgets>=8,<9"]
    tool(folder / "bin/conda")
    assert command(account, env)[0] == ["conda", *words]
    # The tool of its own root goes before one that is on PATH.
    root = msgspec.structs.replace(env, root=str(folder / "root"))
    assert command(account, root)[0] == ["conda", *words]
    conda = tool(folder / "root/bin/conda")
    assert command(account, root)[0] == [conda, *words]
    mamba = tool(folder / "root/bin/mamba")
    assert command(account, root)[0] == [mamba, *words]
    # conda is not for a venv; uv is, also where there is no pip.
    venv = msgspec.structs.replace(env, kind="venv")
    assert command(account, venv)[0] == []
    tool(folder / "bin/uv")
    uv = ["uv", "pip", "install", "--python", f"{env.prefix}/bin/python", "ipywidgets>=8,<9"]
    assert command(account, venv)[0] == uv
    install(closure("pip"), folder / "env")
    pip = [f"{env.prefix}/bin/python", "-m", "pip", "install", "--disable-pip-version-check", "--no-input"]
    assert command(account, venv)[0] == [*pip, "ipywidgets>=8,<9"]
    assert command(account, msgspec.structs.replace(env, kind="uv"))[0] == uv


def test_what_is_not_the_accounts_to_change(account: Account, folder: Path) -> None:
    if account.uid == os.getuid():
        pytest.skip("only root can make an environment of another account")
    env = build_environment(folder / "env", kind="venv")
    assert command(account, env) == (
        [],
        f"you cannot change {env.prefix}, which belongs to root: ask its owner to install ipywidgets>=8,<9 there",
    )
    # A Python that also looks in ~/.local, as conda's do.
    (folder / "env/pyvenv.cfg").write_text("home = /usr/bin\ninclude-system-site-packages = true\n")
    words = [f"{env.prefix}/bin/python", "-m", "pip", "install", "--user", "--disable-pip-version-check", "--no-input"]
    assert command(account, env) == ([*words, "ipywidgets>=8,<9"], "")
    # One that the system's package manager looks after (PEP 668): pip would refuse even that.
    system = Path("/usr/bin/python3")
    managed = "import sysconfig; print(sysconfig.get_path('stdlib'))"
    if system.exists():
        done = subprocess.run([system, "-c", managed], check=True, capture_output=True, text=True)
        if Path(done.stdout.strip(), "EXTERNALLY-MANAGED").exists():
            whole = msgspec.structs.replace(env, prefix="/usr", kind="system", executable=str(system))
            assert command(account, whole)[1].startswith("you cannot change /usr")


def test_only_the_command_that_was_shown_is_run(account: Account, folder: Path) -> None:
    env = build_environment(folder / "env", packages=False)
    os.chown(next((folder / "env/lib").iterdir()) / "site-packages", account.uid, -1)
    account.environ["PATH"] = f"{folder}/bin:/usr/bin:/bin"
    tool(folder / "bin/uv")
    [plan] = repair.plans(account, [MissingPackage(env, "x", problem=0)])
    assert plan.command[0] == "uv"
    install(closure("pip"), folder / "env")
    with pytest.raises(errors.RemoteFailed, match="has changed meanwhile"):
        repair.run(account, plan, on_line=lambda line: None)


def test_a_kernel_starts_without_the_program_timeout(account: Account, folder: Path) -> None:
    programs = folder / "bin"
    programs.mkdir()
    for name in {path.name for place in ("/usr/bin", "/bin") for path in Path(place).iterdir()} - {"timeout"}:
        (programs / name).symlink_to(shutil.which(name, path="/usr/bin:/bin") or "/nowhere")
    account.environ["PATH"] = str(programs)
    added = add(account, build_environment(folder / "env"))
    assert added.executable == f"{folder}/env/bin/python"


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
    spec = kernels.ls(account, []).specs[0]
    assert spec.ok is False
    assert spec.problem is not None
    assert spec.problem.startswith("kernel.json cannot be read")
