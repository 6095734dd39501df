"""The error tree: what can go wrong, the exit status, and what the user can do.

docs/errors.md lists all of them. Over 300 lines because the tree is one table.

An error crosses the API as `ErrorInfo` and is rebuilt on the other side by `from_info`. Code that handles an error
looks at its class and attributes, never at its details: a subclass without a code of its own exists for that, and
becomes its base when it crosses the API.
"""

from __future__ import annotations

from typing import Any, ClassVar

from jupyman.model import ErrorInfo


class JupymanError(Exception):
    """Base of every error that a user may see: two lines, `error:` and `hint:`.

    Args:
        message: what happened, in one line.
        hint: what to do, in one line; if empty, that of the class.
        details: further facts for ``--json``.
    """

    code: ClassVar[str] = "internal"
    status: ClassVar[int] = 1
    default_hint: ClassVar[str] = "see the daemon's log: jupyman daemon logs"

    def __init__(self, message: str, hint: str = "", **details: Any) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint or self.default_hint
        self.details: dict[str, Any] = details

    def add(self, **details: Any) -> None:
        """Add further facts for ``--json``."""
        self.details.update(details)

    @property
    def log(self) -> list[str]:
        """The last lines of a log that explain the error."""
        return [str(line) for line in self.details.get("log") or ()]

    def info(self) -> ErrorInfo:
        """Return the struct that crosses the API and is printed by ``--json``."""
        return ErrorInfo(code=self.code, message=self.message, hint=self.hint, details=self.details)


class UsageFault(JupymanError):
    """Invalid arguments, refused before anything is changed."""

    code = "usage"
    status = 2
    default_hint = "see jupyman --help"


class UnknownHost(UsageFault):
    """No host of that name: not in the SSH config, not resolvable, not in config.toml."""

    code = "unknown-host"
    default_hint = "see jupyman host ls, or add it to ~/.ssh/config"


class UnknownSession(UsageFault):
    """No session of that name on this computer."""

    code = "unknown-session"
    default_hint = "see jupyman ps"


class ConfigFault(UsageFault):
    """config.toml or the SSH configuration cannot be used as it stands."""

    code = "bad-config"
    default_hint = "correct the file named above"


class HostUnreachable(JupymanError):
    """No TCP connection to the host: refused, no route, no answer, name not resolved."""

    code = "host-unreachable"
    status = 10
    default_hint = "check the network, the VPN, and that `ssh HOST` works"


class HostSilent(HostUnreachable):
    """The host did not even refuse: nothing is known of it, and a login attempt cannot have been counted."""


class AuthenticationFailed(JupymanError):
    """The host refused every available credential, or it asks a question and there is no terminal to answer it."""

    code = "auth-failed"
    status = 11
    default_hint = "try `ssh HOST` by hand; load your key with ssh-add, or run jupyman up on a terminal"


class HostKeyFault(JupymanError):
    """The host's key is unknown, changed or revoked; no secret was sent."""

    code = "host-key"
    status = 12
    default_hint = "jupyman host trust HOST shows the fingerprint and asks"


class LinkLost(JupymanError):
    """The SSH connection ended while it was in use."""

    code = "link-lost"
    status = 13
    default_hint = "run the command again when the network is back; running servers on the host are not affected"


class ForwardingRefused(JupymanError):
    """The SSH server does not allow the forward, or the target refused the connection."""

    code = "forwarding-refused"
    status = 14
    default_hint = "ask the host's admin for AllowTcpForwarding yes (sshd_config)"


class TargetRefused(ForwardingRefused):
    """The SSH server allows the forward, but nothing listens at the target."""

    default_hint = "start the program there first"


class JupyterMissing(JupymanError):
    """No environment on the host can run Jupyter."""

    code = "jupyter-missing"
    status = 20
    default_hint = "install it on the host, for instance: python3 -m pip install --user jupyterlab"


class EnvironmentMissing(JupymanError):
    """No environment of that name or prefix on the host."""

    code = "env-missing"
    status = 21
    default_hint = "see jupyman env ls HOST"


class PortInUse(JupymanError):
    """The requested port is taken and may not be freed."""

    code = "port-in-use"
    status = 22
    default_hint = "choose another with --port, or use --on-conflict next"


class ServerExited(JupymanError):
    """The server exited; the details have the last lines of its log."""

    code = "server-exited"
    status = 23
    default_hint = "read the last lines of its log above; for a session in jupyman ps: jupyman logs SESSION"


class LaunchTimedOut(JupymanError):
    """The server did not answer in time and was stopped."""

    code = "launch-timeout"
    status = 24
    default_hint = "a cold network home can be slow: try --timeout 300"


class KernelFault(JupymanError):
    """The kernel spec could not be installed, or its kernel does not work."""

    code = "kernel"
    status = 25
    default_hint = "see jupyman kernel check --host HOST"


class NotOurs(JupymanError):
    """A process, a port or a file belongs to another user; it was not touched."""

    code = "not-ours"
    status = 26
    default_hint = "nothing was changed; choose another port or ask its owner"


class RemoteFailed(JupymanError):
    """A command on the host failed: disk full, quota, no permission."""

    code = "remote-failed"
    status = 27
    default_hint = "fix the cause on the host and run the command again"


class SlurmMissing(JupymanError):
    """The host has no Slurm commands."""

    code = "slurm-missing"
    status = 30
    default_hint = "leave out --slurm, or name the cluster's login node"


class JobRejected(JupymanError):
    """sbatch refused the job."""

    code = "job-rejected"
    status = 31
    default_hint = "change the --slurm-arg values"


class JobEnded(JupymanError):
    """The job ended: time limit, cancelled or failed."""

    code = "job-ended"
    status = 32
    default_hint = "jupyman up submits it again"


class DaemonUnavailable(JupymanError):
    """The daemon cannot be reached or started."""

    code = "daemon-unavailable"
    status = 40
    default_hint = "jupyman daemon run shows why; its log: jupyman daemon logs"


class VersionMismatch(JupymanError):
    """The daemon and the command line are of different versions."""

    code = "version-mismatch"
    status = 41
    default_hint = "jupyman daemon restart (your servers keep running)"


class Interrupted(JupymanError):
    """Ctrl-C, or the last waiting client disconnected."""

    code = "interrupted"
    status = 130
    default_hint = "nothing was left half done"


class Declined(Interrupted):
    """The user answered a question with no: only the action in question is cancelled."""


class InternalError(JupymanError):
    """A bug in jupyman; the daemon's log has the traceback."""

    code = "internal"
    status = 1


def every() -> list[type[JupymanError]]:
    """Return every error class, base first, each once."""
    found: list[type[JupymanError]] = []
    todo: list[type[JupymanError]] = [JupymanError]
    while todo:
        cls = todo.pop(0)
        found.append(cls)
        todo.extend(cls.__subclasses__())
    return found


def by_code(code: str) -> type[JupymanError] | None:
    """Return the class that declares a code; None if there is none."""
    return next((cls for cls in every()[1:] if vars(cls).get("code") == code), None)


def from_info(info: ErrorInfo) -> JupymanError:
    """Rebuild an error that came over the API.

    Args:
        info: what the daemon sent.

    Returns:
        An instance of the class that declares the code; `InternalError` for an unknown code.
    """
    cls = by_code(info.code) or InternalError
    return cls(info.message, info.hint, **info.details)


def table() -> str:
    """Return docs/errors.md."""
    lines = [
        "# Errors",
        "",
        "Every error is two lines on stderr, `error:` and `hint:`, or with `--json` one object on stdout. A command",
        "with several hosts, sessions or ports tries all of them: it prints the results of those that succeed, then",
        "the first failure with its exit status; with `--json` one object holds the results and `error`. This table",
        "is generated by `python -m jupyman.errors > docs/errors.md`; a test compares it.",
        "",
        "| status | code | when | what to do |",
        "|---|---|---|---|",
    ]
    shown = [cls for cls in every()[1:] if "code" in vars(cls)]
    for cls in sorted(shown, key=lambda one: (one.status, one.code)):
        when = " ".join((cls.__doc__ or "").split()).rstrip(".")
        lines.append(f"| {cls.status} | `{cls.code}` | {when} | {cls.default_hint} |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(table())  # noqa: T201 - a generator's output
