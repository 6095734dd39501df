"""Everything of the outside world that a command uses: the seam for tests."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TextIO

from jupyman import errors, paths
from jupyman.api import AnyEvent, AnyRequest, ClientContext, OpenBrowser, Output, Prompt, Step
from jupyman.cli import terminal


def _open_browser(url: str) -> bool:
    import webbrowser

    return webbrowser.open(url)


@dataclass
class Context:
    """The world of one command.

    Attributes:
        stdin, stdout, stderr: streams.
        environ: the environment.
        browse: opens an address in the local browser; False where there is none.
    """

    stdin: TextIO = field(default_factory=lambda: sys.stdin)
    stdout: TextIO = field(default_factory=lambda: sys.stdout)
    stderr: TextIO = field(default_factory=lambda: sys.stderr)
    environ: Mapping[str, str] = field(default_factory=lambda: os.environ)
    browse: Callable[[str], bool] = _open_browser
    json: bool = False
    _base: str = ""

    @property
    def paths(self) -> paths.Paths:
        """Our folders."""
        return paths.find(dict(self.environ))

    @property
    def interactive(self) -> bool:
        """Whether a person can be asked: stdin is a terminal."""
        return self.stdin is not None and self.stdin.isatty()

    @property
    def colour(self) -> bool:
        """Whether stderr takes colours."""
        return self.stderr.isatty() and not self.environ.get("NO_COLOR") and self.environ.get("TERM") != "dumb"

    def out(self, text: str = "") -> None:
        """Print a result."""
        print(terminal.printable(text, self.stdout), file=self.stdout, flush=True)

    def note(self, text: str) -> None:
        """Print progress or a remark."""
        print(terminal.printable(text, self.stderr), file=self.stderr, flush=True)

    def dump(self, value: Any) -> None:
        """Print a value as JSON."""
        import msgspec

        self.out(msgspec.json.encode(value).decode())

    def call(
        self, request: AnyRequest, *, start: bool = True, any_version: bool = False, quiet: bool = False
    ) -> Any:
        """Run a request in the daemon, showing its progress and asking its questions.

        Args:
            request: what to do.
            start: start the daemon where none runs.
            any_version: accept a daemon of another version.
            quiet: show no progress.

        Returns:
            The result as plain JSON values.

        Raises:
            JupymanError: whatever went wrong.
        """
        from jupyman.client import Client

        if os.path.exists(self.paths.config_file):  # noqa: PTH110 - pathlib costs more than the look
            from jupyman import config

            config.load(self.paths.config_file)  # a broken file is refused before anything is touched
        client = Client(
            self.paths,
            ClientContext(
                ssh_auth_sock=self.environ.get("SSH_AUTH_SOCK"),
                ssh_config=self.environ.get("JUPYMAN_SSH_CONFIG"),
                interactive=self.interactive,
            ),
        )
        progress = terminal.Progress(self.stderr, colour=self.colour)

        def on_event(event: AnyEvent) -> str | None:
            if isinstance(event, Step):
                if not quiet:
                    progress.show(event)
            elif isinstance(event, Prompt):
                progress.clear()
                return self.ask(event)
            elif isinstance(event, Output):
                self.out(event.line)
            elif isinstance(event, OpenBrowser):
                progress.clear()
                self.open(client.base + event.url)
            return None

        try:
            return client.run(request, on_event, start=start, any_version=any_version)
        finally:
            progress.clear()

    def ask(self, prompt: Prompt) -> str | None:
        """Put a question on the terminal; None: the user gives up."""
        text = terminal.printable(prompt.text, self.stderr)
        try:
            if prompt.kind == "secret":
                import getpass

                return getpass.getpass(text if text.endswith((" ", ":")) else f"{text} ", self.stderr)
            if prompt.kind == "confirm":
                text += " [Y/n] " if prompt.default == "y" else " [y/N] "
            elif prompt.kind == "choice":
                text += f"\n{' / '.join(prompt.choices)} [{prompt.default or prompt.choices[0]}] "
            print(text, end="" if text.endswith(" ") else " ", file=self.stderr, flush=True)
            while True:
                line = self.stdin.readline()
                if not line:
                    return None
                said = line.strip() or prompt.default or ""
                if prompt.kind != "choice":
                    return said
                chosen = [choice for choice in prompt.choices if choice.startswith(said)]
                if len(chosen) == 1:
                    return chosen[0]
                print(f"one of: {' / '.join(prompt.choices)} ", end="", file=self.stderr, flush=True)
        except EOFError:
            return None

    def open(self, url: str) -> None:
        """Open the local browser, or say that there is none."""
        try:
            opened = self.browse(url)
        except Exception:  # webbrowser raises its own error, and whatever a broken BROWSER causes
            opened = False
        if not opened:
            self.note("no browser could be opened here; open the address above yourself")

    def fail(self, error: errors.JupymanError) -> int:
        """Print an error in its two lines, or as JSON on stdout.

        Returns:
            Its exit status.
        """
        if self.json:
            self.dump({"error": error.info()})
        else:
            for line in error.details.get("log") or []:
                self.note(f"  {line}")
            self.note(f"error: {_one_line(error.message)}")
            self.note(f"hint: {_one_line(error.hint)}")
        return error.status


def _one_line(text: str) -> str:
    return " ".join(text.splitlines())
