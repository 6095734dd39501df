"""What a verb works with: the client that waits, the hosts and sessions of this computer, and the link to one host."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Literal

from jupyman import errors
from jupyman.api import Operation, Output, Prompt, Step
from jupyman.core.links.hosts import Hosts
from jupyman.core.runtime import progress
from jupyman.core.sessions.registry import SessionRegistry
from jupyman.core.sessions.state import SessionState
from jupyman.host.servers.base import Launcher
from jupyman.host.shell import script
from jupyman.host.shell.script import CancellableShell, Facts
from jupyman.model import HostReport, Session
from jupyman.ssh.link import Link


class VerbCall:
    """One request under way.

    Args:
        operation: the client's: receives the steps, answers questions, may cancel.
        hosts: the hosts of this computer's user.
        sessions: the registry.
    """

    def __init__(self, operation: Operation, hosts: Hosts, sessions: SessionRegistry) -> None:
        self.operation = operation
        self.hosts = hosts
        self.sessions = sessions

    @property
    def cancelled(self) -> threading.Event:
        """Set when the client no longer waits."""
        return self.operation.cancelled

    @property
    def interactive(self) -> bool:
        """Whether the client has a terminal, so that questions can be answered."""
        return self.operation.client.interactive

    def on(self, host: str) -> HostCall:
        """Return the same call for one host."""
        return HostCall(host, self.operation, self.hosts, self.sessions)

    def view(self, session: SessionState) -> Session:
        """Return a session as `ps` prints it."""
        return self.sessions.view(session, self.hosts.status(session.spec.host))

    def release_link(self, host: str) -> None:
        """Release a host's link unless a session or a forward still needs it."""
        supervisor = self.hosts.known(host)
        if supervisor is not None:
            supervisor.want(wanted=self.sessions.wanted(host))

    def step(self, key: str, text: str) -> AbstractContextManager[progress.StepProgress]:
        """Show a step while the body runs: see `progress.step`."""
        return progress.step(self.operation, key, text)

    def report(
        self,
        key: str,
        text: str,
        state: Literal["run", "done", "warn", "skip"] = "done",
        *,
        seconds: float | None = None,
    ) -> None:
        """Show a step that does not run here: a remark, or a step of a job on the host."""
        self.operation.emit(Step(key=key, text=text, state=state, seconds=seconds))

    def output(self, line: str) -> None:
        """Send a line of data."""
        self.operation.emit(Output(line=line))

    def confirm(
        self, question: str, *, default: Literal["y", "n"] = "n", unattended: errors.JupymanError | None = None
    ) -> bool:
        """Ask a yes-or-no question on the client's terminal.

        Args:
            question: its text.
            default: the answer to an empty line.
            unattended: raised when there is no terminal; None: the usual error, whose hint is `-y`.

        Raises:
            UsageFault: there is no terminal to ask on.
            Interrupted: the client left.
        """
        if not self.interactive:
            raise unattended or errors.UsageFault(
                "a question must be answered, and stdin is no terminal", "-y answers yes"
            )
        prompt = Prompt(id="", kind="confirm", text=question, default=default)
        return self.operation.ask(prompt).lower() in {"y", "yes"}


class HostCall(VerbCall):
    """One request under way that works on one host.

    The link is made when it is first used, so that a verb can refuse its arguments before anything is touched; from
    then on the call keeps that link, and a loss of it ends the verb.

    Args:
        host: the host's name, resolved.
        operation, hosts, sessions: as for `VerbCall`.
        link: a link that the caller has already.
    """

    def __init__(
        self, host: str, operation: Operation, hosts: Hosts, sessions: SessionRegistry, link: Link | None = None
    ) -> None:
        super().__init__(operation, hosts, sessions)
        self.host = host
        self._link = link

    @property
    def link(self) -> Link:
        """The link to the host.

        Raises:
            JupymanError: no login, as `Supervisor.acquire`.
        """
        if self._link is None:
            self._link = self.hosts.supervisor(self.host, self.operation.client).acquire(self.operation)
        return self._link

    def connect(self) -> Link:
        """Return the link to the host, and show the step."""
        with self.step("connect", f"connecting to {self.host}") as connecting:
            link = self.link
            connecting.text = f"connected to {self.host}"
        return link

    @property
    def shell(self) -> CancellableShell:
        """The link for commands that change nothing: each ends as soon as the call is cancelled."""
        return CancellableShell(self.link, self.cancelled)

    @property
    def launcher(self) -> Launcher:
        """What starts, finds and ends servers on the host."""
        return self.hosts.launcher(self.host)(self.link)

    def script(self, name: str, arguments: Mapping[str, str], *, timeout: float) -> Facts:
        """Run a script on the host: see `script.run`."""
        return script.run(self.link, name, arguments, timeout=timeout)

    def remember_environments(self, report: HostReport) -> None:
        """Keep the names of the host's environments for shell completion."""
        names = sorted({environment.name for environment in report.environments if environment.name})
        self.sessions.remember_environments(self.host, names)
