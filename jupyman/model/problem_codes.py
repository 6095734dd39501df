"""The codes of every `Problem`, declared once: severity, where and when it shows, and what it means.

docs/problems.md is made from this table; a test compares it, and checks that the source uses no other code.
"""

from __future__ import annotations

from dataclasses import dataclass

from jupyman.model import Problem, Severity

_HOST = "`check`, `up`: at once"
_CHECK = "`check`: at once"
_DEEP = "`check --deep`: at once"
_KERNEL = "`kernel check`: at once"
_CREATE = "`env create`: at once"
_UP = "`up`, `ps`: at once"
_PS = "`ps`: at once"
_SERVER = "`ps`: within 10 s while the link is up"
_GPU = "`ps`: within 60 s"


@dataclass(frozen=True)
class ProblemCode:
    """A kind of problem.

    Attributes:
        code: its name in JSON.
        severity: the usual one.
        shows: which command shows it, and how soon after it begins.
        meaning: one sentence.
        also: further severities, for variants that matter more or less.
    """

    code: str
    severity: Severity
    shows: str
    meaning: str
    also: tuple[Severity, ...] = ()


_TABLE = (
    # --- the host
    ProblemCode("home-read-only", "error", _HOST, "The home directory is missing or cannot be written."),
    ProblemCode("disk-full", "warning", _HOST, "Little space is left in the home directory."),
    ProblemCode("quota-full", "warning", _HOST, "More than 95 % of the quota is used."),
    ProblemCode("disk-hangs", "warning", _HOST, "The file system of the home directory does not answer."),
    ProblemCode("network-home", "info", _CHECK, "The home directory is shared by several machines."),
    ProblemCode("server-as-root", "warning", _HOST, "The login, and with it the server, runs as root."),
    ProblemCode("look-unfinished", "warning", _CHECK, "A part of the report took too long and is missing."),
    ProblemCode(
        "ends-at-logout",
        "warning",
        "`up`, `env create`: at once",
        "The host ends all processes of a user with the last login.",
    ),
    # --- environments
    ProblemCode("environments-hang", "warning", _HOST, "The list of environments is not complete."),
    ProblemCode("no-jupyter", "warning", _HOST, "No environment can run Jupyter."),
    ProblemCode("env-broken", "info", _CHECK, "The Python of an environment is gone."),
    ProblemCode("env-unreadable", "info", _CHECK, "Environments cannot be read by this account."),
    ProblemCode("env-step", "warning", _CREATE, "The environment is made, and a check of it failed."),
    ProblemCode("torch-driver", "warning", _HOST, "The torch of an environment does not fit the driver."),
    ProblemCode("torch-fails", "error", _DEEP, "The torch of an environment cannot compute."),
    # --- GPUs
    ProblemCode("no-gpu", "info", _CHECK, "There is no NVIDIA driver."),
    ProblemCode("nvidia-smi-missing", "warning", _HOST, "A driver is loaded, and nvidia-smi is not on PATH."),
    ProblemCode("nvidia-smi-hangs", "warning", f"{_HOST}; {_GPU}", "nvidia-smi does not answer."),
    ProblemCode("nvidia-smi-failed", "warning", f"{_HOST}; {_GPU}", "nvidia-smi fails for an unknown reason."),
    ProblemCode("nvidia-mismatch", "warning", f"{_HOST}; {_GPU}", "Kernel module and library differ in version."),
    ProblemCode("nvidia-not-loaded", "warning", f"{_HOST}; {_GPU}", "The kernel module does not answer."),
    ProblemCode("nvidia-no-devices", "warning", f"{_HOST}; {_GPU}", "The driver sees no GPU."),
    ProblemCode("nvidia-permission", "warning", f"{_HOST}; {_GPU}", "This account may not use the GPUs."),
    ProblemCode("nvidia-library", "warning", f"{_HOST}; {_GPU}", "The NVML library is missing or broken."),
    ProblemCode("gpu-lost", "warning", f"{_HOST}; {_GPU}", "A GPU no longer answers the driver."),
    ProblemCode("gpu-mig", "info", _CHECK, "A GPU is in MIG mode; a warning if no instance can be used.", ("warning",)),
    ProblemCode("gpu-unknown", "info", _CHECK, "The free memory of a GPU is not known."),
    ProblemCode("gpu-processes-unknown", "warning", _HOST, "The processes on the GPUs are not known."),
    ProblemCode("gpu-shared", "warning", _GPU, "Others use a GPU of the session, too."),
    ProblemCode("gpu-gone", "error", _GPU, "A GPU of the session no longer exists."),
    # --- the server of a session
    ProblemCode("server-exited", "error", _SERVER, "The server ended by itself."),
    ProblemCode("server-killed", "error", _SERVER, "The server was killed: by the OOM killer, a limit, or a signal."),
    ProblemCode("server-stopped", "error", _SERVER, "Somebody stopped the server with `jupyman kill`."),
    ProblemCode("host-rebooted", "error", _SERVER, "The host was restarted, and the server ended with it."),
    ProblemCode("port-taken", "error", _SERVER, "Another process has the server's port; nothing is sent there."),
    ProblemCode("server-mute", "error", _SERVER, "The server's process runs and does not listen."),
    ProblemCode("other-node", "error", _SERVER, "The server runs on another machine that shares the home directory."),
    ProblemCode("server-restarted", "info", _SERVER, "The server died and was started again (`--restart always`)."),
    ProblemCode("restart-failed", "error", _SERVER, "The server died and could not be started again."),
    ProblemCode("restart-limit", "error", _SERVER, "The server died too often and is not started again."),
    ProblemCode(
        "server-open", "error", "`check`, `ps --all`, `up`: at once", "A server of yours answers without a token."
    ),
    ProblemCode(
        "server-exposed", "warning", "`check`, `ps --all`: at once", "A server of yours listens beyond loopback."
    ),
    # --- its forward
    ProblemCode(
        "local-port",
        "warning",
        _PS,
        "The session's local port is taken; info: another user had it, and the token was changed.",
        ("info",),
    ),
    ProblemCode("token-seen", "error", _UP, "Another user may know the token, and it is not changed yet."),
    ProblemCode("stranger-refused", "warning", _PS, "Another user tried to connect to a local port, and was refused."),
    ProblemCode("forward-full", "warning", _PS, "Connections were refused because too many were open."),
    ProblemCode("state-unsaved", "warning", _UP, "The list of sessions cannot be written to disk."),
    # --- kernels
    ProblemCode("kernel-missing", "warning", _UP, "The environment has no ipykernel, so it was not registered."),
    ProblemCode(
        "kernels-exposed",
        "warning",
        f"`check`, `up`: at once; {_SERVER}",
        "Other users can read kernels of a server; an error if they can run code in one.",
        ("error",),
    ),
    ProblemCode("orphan-kernels", "warning", _CHECK, "Kernels whose server is gone hold memory or a GPU."),
    ProblemCode("kernel-gone", "error", _KERNEL, "A kernel.json cannot be read, or its program is gone."),
    ProblemCode("kernel-broken", "error", _KERNEL, "A kernel does not start."),
    ProblemCode("ipykernel-missing", "error", _KERNEL, "The environment of a kernel has no ipykernel."),
    ProblemCode("ipykernel-broken", "error", _KERNEL, "ipykernel is installed and cannot be imported."),
    ProblemCode("kernel-elsewhere", "warning", _KERNEL, "A kernel runs in another environment than it seems to."),
    ProblemCode("kernel-hidden", "warning", _KERNEL, "Several kernels have one name; one hides the rest.", ("info",)),
    ProblemCode("kernel-alike", "info", _KERNEL, "Several kernels are shown under the same words."),
    ProblemCode("kernel-unfinished", "info", _KERNEL, "A kernel's environment is not finished; it was not started."),
    ProblemCode("kernel-foreign", "info", _KERNEL, "Others may change a kernel's environment; it was not started."),
    ProblemCode("widgets-kernel", "warning", _KERNEL, "The environment of a kernel lacks ipywidgets."),
    ProblemCode("widgets-server", "warning", _KERNEL, "The server's environment lacks the display part of widgets."),
    ProblemCode("widgets-mismatch", "warning", _KERNEL, "The two parts of widgets do not fit each other."),
)
CODES = {one.code: one for one in _TABLE}


def new_problem(code: str, text: str, fix: str, severity: Severity | None = None) -> Problem:
    """Make a problem with a declared code.

    Args:
        code: of the table above.
        text: what was found.
        fix: what to do about it.
        severity: one that the table allows; None: the usual one.

    Raises:
        KeyError, ValueError: the code is not declared, or not with this severity (a bug).
    """
    kind = CODES[code]
    if severity is not None and severity not in {kind.severity, *kind.also}:
        raise ValueError(f"problem {code} is not declared with severity {severity}")
    return Problem(code=code, severity=severity or kind.severity, text=text, fix=fix)


def page() -> str:
    """Return docs/problems.md."""
    lines = [
        "# Problems",
        "",
        "A problem is a finding that does not stop the work. It has a code, a severity, a text and a fix, and is in",
        "`problems` of the JSON of `up`, `ps`, `check`, `kernel check` and `env create`. The table is made by",
        "`python -m jupyman.model.problem_codes > docs/problems.md`; a test compares it.",
        "",
        "| code | severity | shows | meaning |",
        "|---|---|---|---|",
    ]
    for kind in _TABLE:
        severity = " or ".join((kind.severity, *kind.also))
        lines.append(f"| `{kind.code}` | {severity} | {kind.shows} | {kind.meaning} |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(page())  # noqa: T201 - a generator's output
