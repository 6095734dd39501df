"""Activate an environment by sh text, which does what `conda activate` does, without the second that conda takes.

The variables are those of conda 26 (`conda shell.posix activate`); the scripts in ``etc/conda/activate.d`` are run as
conda's own shell hook runs them.
"""

from __future__ import annotations

import shlex

from jupyman.model import Environment

CONDA_KINDS = frozenset({"conda", "mamba", "micromamba"})
# Their bin is on every PATH already; in front it would hide programs that the user put before it.
_PLAIN = frozenset({"/", "/usr", "/usr/local"})


def python(env: Environment) -> str:
    """Return the path of the environment's Python on the host."""
    return env.executable or f"{env.prefix.rstrip('/')}/bin/python"


def path(env: Environment) -> list[str]:
    """Return the directories that go in front of PATH."""
    if env.prefix in _PLAIN:
        return []
    folders = [f"{env.prefix.rstrip('/')}/bin"]
    if env.kind in CONDA_KINDS and env.root:
        folders.append(f"{env.root}/condabin")
    return folders


def variables(env: Environment) -> dict[str, str]:
    """Return the variables that activation sets, without PATH.

    Args:
        env: the environment.

    Returns:
        Names and values; empty for a plain Python.
    """
    if env.kind in {"venv", "uv"}:
        return {"VIRTUAL_ENV": env.prefix}
    if env.kind not in CONDA_KINDS:
        return {}
    name = env.name or env.prefix
    found = {
        "CONDA_PREFIX": env.prefix,
        "CONDA_DEFAULT_ENV": name,
        "CONDA_SHLVL": "1",
        "CONDA_PROMPT_MODIFIER": f"({name}) ",
    }
    if env.root and env.kind != "micromamba":
        found |= {"CONDA_EXE": f"{env.root}/bin/conda", "CONDA_PYTHON_EXE": f"{env.root}/bin/python"}
    elif env.root:
        found["MAMBA_ROOT_PREFIX"] = env.root
    return found


def script(env: Environment) -> str:
    """Return the sh text that activates an environment, for bash and every POSIX sh.

    Args:
        env: the environment.

    Returns:
        Lines of sh, which keep the positional parameters and the shell's options.
    """
    lines = [f"{name}={shlex.quote(value)}; export {name}" for name, value in variables(env).items()]
    folders = "".join(f"{shlex.quote(folder)}:" for folder in path(env))
    if folders:
        lines.append(f'PATH={folders}"$PATH"; export PATH')
    if env.kind in CONDA_KINDS:
        # A package's script may print, exit, use unset variables, or change $@ and `set` options.
        lines += [
            'jm_source() { . "$1"; }',
            "trap 'echo \"jupyman: $jm_hook ended the shell that activates the environment\" >&2' EXIT",
            f"for jm_hook in {shlex.quote(env.prefix)}/etc/conda/activate.d/*.sh; do",
            '    [ ! -r "$jm_hook" ] || jm_source "$jm_hook" </dev/null >/dev/null',
            "    set +eu",
            "done",
            "trap - EXIT",
            "unset jm_hook; unset -f jm_source",
        ]
    return "\n".join(lines)
