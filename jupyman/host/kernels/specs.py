"""The kernel specs of a host: add one for an environment, list them, remove one."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import msgspec

from jupyman import errors, remote
from jupyman.host.confirm import Confirm
from jupyman.host.shell import script
from jupyman.host.shell.script import Facts, Shell
from jupyman.model import Environment, KernelSpec
from jupyman.tools.envs import activation
from jupyman.tools.jupyter import kernelspec, widgets

PROOF_TIMEOUT = 60  # seconds for a kernel to start and answer; a cold torch environment on NFS needs 30
INSTALL_TIMEOUT = 900.0
LOOK_TIMEOUT = script.LOOK_TIMEOUT


@dataclass(frozen=True)
class AddedKernel:
    """A kernel that was registered.

    Attributes:
        kernel: its spec.
        executable: the interpreter that actually ran.
        python: that interpreter's version.
        refreshed: the spec existed already.
    """

    kernel: KernelSpec
    executable: str
    python: str | None
    refreshed: bool


def arguments(
    env: Environment, *, name: str | None, display_name: str | None, install: bool, replace: bool, proof: bool
) -> dict[str, str]:
    """Return the variables of the script that adds a kernel: see `add`.

    Raises:
        UsageFault: the name is not allowed, or the display name has several lines.
    """
    chosen = kernelspec.checked_name(name) if name is not None else kernelspec.name_for(env)
    shown = display_name or kernelspec.display_name_for(env)
    if "\n" in shown or "\r" in shown:
        raise errors.UsageFault("a display name has one line", "remove the line break")
    python = activation.python(env)
    wish = {
        "python": python,
        "prefix": env.prefix,
        "shell": "@SHELL@",
        "wrapper": kernelspec.wrapper(env),
        "env": activation.variables(env),
        "display_name": shown,
    }
    return {
        "NAME": chosen,
        "DISPLAY": shown,
        "PYTHON": python,
        "PREFIX": env.prefix,
        "ENV": env.name or env.prefix,
        "KIND": env.kind,
        "ROOT": env.root or "",
        "INSTALL": "1" if install else "0",
        "REPLACE": "1" if replace else "0",
        "PROOF": "1" if proof else "0",
        "LIMIT": str(PROOF_TIMEOUT),
        "WISH": msgspec.json.encode(wish).decode(),
        "WRITE": remote.program("kernels/kernel_write"),
        "PROVE": remote.program("kernels/kernel_proof"),
    }


def add(
    shell: Shell,
    env: Environment,
    *,
    name: str | None,
    display_name: str | None,
    install: bool,
    replace: bool,
    proof: bool = True,
    progress: Callable[[str], None] | None = None,
    on_line: Callable[[str], None] | None = None,
    cancelled: threading.Event | None = None,
) -> AddedKernel:
    """Register an environment as a kernel of the account, and prove it by running a cell in it.

    Args:
        shell: the host.
        env: the environment.
        name: the kernel's; None: derived from the environment's name.
        display_name: what JupyterLab shows.
        install: install a missing ipykernel with the environment's own tools.
        replace: take the name from a kernel of another environment.
        proof: start a kernel by the environment's jupyter_client, execute a cell, compare `sys.prefix`.
        progress: called with each step, and with each line of an installation when `on_line` is None.
        on_line: called with each line of an installation.
        cancelled: ends it; what was changed is restored.

    Returns:
        The spec, and the interpreter that actually ran.

    Raises:
        KernelFault: ipykernel is missing, or the kernel does not run; the specs are as before.
        UsageFault: the name is not allowed, or belongs to another environment.
        NotOurs, RemoteFailed, EnvironmentMissing: as the script reports.
    """
    variables = arguments(env, name=name, display_name=display_name, install=install, replace=replace, proof=proof)

    def on_fact(key: str, value: str) -> None:
        if key == "step" and progress is not None:
            progress(value)
        elif key == "line" and (on_line or progress) is not None:
            (on_line or progress)(value)  # type: ignore[misc]

    facts = script.run(
        shell,
        "kernels/add",
        variables,
        timeout=(INSTALL_TIMEOUT if install else LOOK_TIMEOUT * 2) + PROOF_TIMEOUT + 10,
        on_fact=on_fact,
        cancelled=cancelled,
    )
    return added(facts, env, variables["NAME"], proof=proof)


def added(facts: Facts, env: Environment, name: str, *, proof: bool) -> AddedKernel:
    """Read the script's answer.

    Args:
        facts: the answer, without an error.
        env: the environment.
        name: the kernel's.
        proof: whether a kernel was started.
    """
    spec = kernelspec.parse(name, facts.one("directory") or "", facts.one("json") or "")
    return AddedKernel(
        kernel=msgspec.structs.replace(spec, ok=True if proof else spec.ok),
        executable=facts.one("executable") or activation.python(env),
        python=facts.one("version") or env.python,
        refreshed=facts.one("refreshed") is not None,
    )


def may_install(env: Environment, wanted: bool | None, confirm: Confirm | None) -> bool:
    """Return whether a missing ipykernel may be installed; ask the user when no option decides it.

    Args:
        env: the environment.
        wanted: ``--install/--no-install``; None: neither was given.
        confirm: asks the user.
    """
    if env.ipykernel is not None or wanted is not None or confirm is None:
        return bool(wanted)
    return confirm(f"environment {env.name or env.prefix} has no ipykernel. Install it there?", default="y")


@dataclass(frozen=True)
class Listing:
    """What Jupyter finds on a host.

    Attributes:
        specs: in Jupyter's search order; the first of a name counts, but those that it hides are listed, too.
        fronts: the package that draws widgets in the pages of an environment's servers, by its prefix.
        foreign: programs that other users can change.
    """

    specs: list[KernelSpec]
    fronts: dict[str, widgets.WidgetPart]
    foreign: frozenset[str]


def ls(shell: Shell, environments: Sequence[Environment]) -> Listing:
    """List the kernel specs of the account, of environments and of the system.

    Args:
        shell: the host.
        environments: to search.

    Returns:
        The specs; `ok` is False when the program is gone, None otherwise, because nothing was started.

    Raises:
        LinkLost, RemoteFailed: as `script.run`.
    """
    prefixes = [environment.prefix for environment in environments]
    arguments = {"PREFIXES": "\n".join(prefixes), "PATHS": ""}
    facts = script.run(shell, "kernels/list", arguments, timeout=LOOK_TIMEOUT)
    specs: dict[str, KernelSpec] = {}  # by directory: ~/.local and /usr are environments, too
    for entry in facts.records("spec", "directory"):
        directory = entry.one("directory") or ""
        if directory not in specs:
            spec = kernelspec.parse((entry.one("name") or "").lower(), directory, entry.one("json") or "")
            specs[directory] = _placed(spec, environments, own=entry.one("user") == "1")
    programs = sorted({path for spec in specs.values() if (path := kernelspec.executable(spec)) is not None})
    looked = Facts()
    if programs:
        arguments = {"PREFIXES": "", "PATHS": "\n".join(programs)}
        looked = script.run(shell, "kernels/list", arguments, timeout=LOOK_TIMEOUT)
    missing = set(looked.all("missing"))
    return Listing(
        specs=[gone(spec) if kernelspec.executable(spec) in missing else spec for spec in specs.values()],
        fronts={environment.prefix: _front(environment, facts) for environment in environments if environment.apps},
        foreign=frozenset(looked.all("foreign")),
    )


def gone(spec: KernelSpec) -> KernelSpec:
    """Mark a spec whose program is gone."""
    problem = f"its program is gone: {kernelspec.executable(spec)}"
    return msgspec.structs.replace(spec, ok=False, problem=spec.problem or problem)


def runs_in(spec: KernelSpec, environments: Sequence[Environment]) -> Environment | None:
    """Return the environment that a spec runs in; None when it is not among `environments`."""
    prefix = (spec.prefix or "").rstrip("/")
    return next((one for one in environments if prefix in {one.prefix.rstrip("/"), one.real}), None)


def _placed(spec: KernelSpec, environments: Sequence[Environment], *, own: bool) -> KernelSpec:
    """Add the environment that the kernel runs in, and those whose servers show it."""
    runs = runs_in(spec, environments)
    seen_by: list[str] | None = None
    if not own:
        prefix = kernelspec.holder(spec.directory or "", [environment.prefix for environment in environments])
        if prefix is not None:
            seen_by = [one.name or one.prefix for one in environments if one.prefix == prefix and one.apps]
    return msgspec.structs.replace(spec, environment=runs.name if runs is not None else None, seen_by=seen_by)


def _front(environment: Environment, facts: Facts) -> widgets.WidgetPart:
    """Return the package that draws widgets in the pages of an environment's servers."""
    # Notebook 6 has pages of its own; notebook 7 has those of JupyterLab.
    classic = "lab" not in environment.apps and (environment.jupyter or "").startswith(("5.", "6."))
    read, key = (widgets.in_classic, "classic") if classic else (widgets.in_lab, "lab")
    records = list(facts.records("front", "prefix"))
    for prefix in (environment.prefix, None):
        versions = [version for one in records if one.one("prefix") == prefix for version in one.all(key)]
        if versions:
            return read(versions[0])
    return read(None)


def rm(shell: Shell, name: str) -> str:
    """Remove a kernel spec of the account; those of environments and of the system stay.

    Args:
        shell: the host.
        name: the kernel's.

    Returns:
        The directory that was removed.

    Raises:
        UsageFault: no kernel spec has that name.
        NotOurs: it is a symbolic link, another user's, or not a kernel spec.
    """
    facts = script.run(shell, "kernels/remove", {"NAME": kernelspec.checked_name(name)}, timeout=LOOK_TIMEOUT)
    return facts.one("directory") or ""
