"""The kernels of a host: make an environment one, list them, remove one."""

from __future__ import annotations

import threading
from collections.abc import Callable
from importlib.resources import files

import msgspec

from jupyman import errors, remote
from jupyman.api import Operation, Prompt
from jupyman.core import shell as script
from jupyman.core.shell import Shell
from jupyman.model import Environment, KernelAdded, Kernels, KernelSpec
from jupyman.tools import activation, kernelspec

PROOF_TIMEOUT = 60  # seconds for a kernel to start and answer; a cold torch environment on NFS needs 30
INSTALL_TIMEOUT = 900.0
LOOK_TIMEOUT = 30.0
CHECK_TIMEOUT = 300.0


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
) -> KernelAdded:
    """Register an environment as a kernel of the account, and prove it by running a cell in it.

    Args:
        shell: the host.
        env: the environment.
        name: the kernel's; made from the environment's name where None.
        display_name: what JupyterLab shows.
        install: install ipykernel with the environment's own tools where it is missing.
        replace: take the name from a kernel of another environment.
        proof: start a kernel by the environment's jupyter_client, execute a cell, compare `sys.prefix`.
        progress: told what is being done, and each line of an installation where `on_line` is None.
        on_line: told each line of an installation.
        cancelled: ends it; what was changed is put back.

    Returns:
        The spec, and the interpreter that it really ran.

    Raises:
        KernelFault: ipykernel is missing, or the kernel does not run; the specs are as before.
        UsageFault: the name is not allowed, or another environment's.
        NotOurs, RemoteFailed, EnvironmentMissing: as the script says.
    """
    chosen = kernelspec.checked_name(name) if name is not None else kernelspec.name_for(env)
    shown = display_name or kernelspec.display_name_for(env)
    if "\n" in shown or "\r" in shown:
        raise errors.UsageFault("a display name has one line", "leave the line break out")
    python = activation.python(env)
    wish = {
        "python": python,
        "prefix": env.prefix,
        "shell": "@SHELL@",
        "wrapper": kernelspec.wrapper(env),
        "env": activation.variables(env),
        "display_name": shown,
    }

    def told(key: str, value: str) -> None:
        if key == "step" and progress is not None:
            progress(value)
        elif key == "line" and (on_line or progress) is not None:
            (on_line or progress)(value)  # type: ignore[misc]

    facts = script.run(
        shell,
        "kernel_add",
        {
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
            "WRITE": _program("kernel_write"),
            "PROVE": _program("kernel_proof"),
        },
        timeout=(INSTALL_TIMEOUT if install else LOOK_TIMEOUT * 2) + PROOF_TIMEOUT + 10,
        on_fact=told,
        cancelled=cancelled,
    )
    spec = kernelspec.parse(chosen, facts.one("directory") or "", facts.one("json") or "")
    return KernelAdded(
        kernel=msgspec.structs.replace(spec, ok=True if proof else spec.ok),
        executable=facts.one("executable") or python,
        python=facts.one("version") or env.python,
        refreshed=facts.one("refreshed") is not None,
    )


def may_install(env: Environment, wanted: bool | None, operation: Operation) -> bool:
    """Tell whether a missing ipykernel may be installed, asking where that was not said.

    Args:
        env: the environment.
        wanted: ``--install/--no-install``; None: not said.
        operation: whom to ask.
    """
    if env.ipykernel is not None or wanted is not None or not operation.client.interactive:
        return bool(wanted)
    text = f"environment {env.name or env.prefix} has no ipykernel. Install it there?"
    return operation.ask(Prompt(id="", kind="confirm", text=text, default="y")).lower() in {"y", "yes"}


def ls(shell: Shell, prefixes: list[str], *, check: bool = False) -> Kernels:
    """List the kernel specs of the account, of environments and of the system.

    Args:
        shell: the host.
        prefixes: the environments to look in.
        check: also import ipykernel with each one's Python.

    Returns:
        The specs in the order in which Jupyter would find them; the first of a name counts, those that it hides are
        listed too. `ok` is False where the program has vanished or, with `check`, cannot import ipykernel.

    Raises:
        LinkLost, RemoteFailed: as `script.run`.
    """
    listed = script.run(
        shell, "kernel_ls", {"PREFIXES": "\n".join(prefixes), "PATHS": "", "CHECK": "0"}, timeout=LOOK_TIMEOUT
    )
    specs = [
        kernelspec.parse((entry.one("name") or "").lower(), entry.one("directory") or "", entry.one("json") or "")
        for entry in listed.records("spec", "directory")
    ]
    programs = sorted({path for spec in specs if (path := kernelspec.executable(spec)) is not None})
    if not programs:
        return Kernels(kernels=specs)
    looked = script.run(
        shell,
        "kernel_ls",
        {"PREFIXES": "", "PATHS": "\n".join(programs), "CHECK": "1" if check else "0"},
        timeout=CHECK_TIMEOUT if check else LOOK_TIMEOUT,
    )
    broken = dict(entry.split("\t", 1) for entry in looked.all("broken") if "\t" in entry)
    missing = set(looked.all("missing"))
    return Kernels(kernels=[_judged(spec, missing, broken, check=check) for spec in specs])


def rm(shell: Shell, name: str) -> str:
    """Remove a kernel spec of the account; those of environments and of the system stay.

    Args:
        shell: the host.
        name: the kernel's.

    Returns:
        The directory that was removed.

    Raises:
        UsageFault: there is none of that name.
        NotOurs: it is a link, another user's, or no kernel spec.
    """
    facts = script.run(shell, "kernel_rm", {"NAME": kernelspec.checked_name(name)}, timeout=LOOK_TIMEOUT)
    return facts.one("directory") or ""


def _judged(spec: KernelSpec, missing: set[str], broken: dict[str, str], *, check: bool) -> KernelSpec:
    program = kernelspec.executable(spec)
    if program is None or spec.ok is False:
        return spec
    if program in missing:
        problem = f"its program is gone: {program}"
        return msgspec.structs.replace(spec, ok=False, problem=problem)
    is_python = program.rpartition("/")[2].startswith("python")
    if program in broken and is_python:
        return msgspec.structs.replace(spec, ok=False, problem=f"{program} cannot import ipykernel: {broken[program]}")
    return msgspec.structs.replace(spec, ok=True if check and is_python else spec.ok)


def _program(name: str) -> str:
    return files(remote).joinpath(f"{name}.py").read_text(encoding="utf-8")
