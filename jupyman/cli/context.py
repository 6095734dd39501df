"""Everything of the outside world that a command uses: the seam for tests."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

import click

from jupyman import errors, paths
from jupyman.api import AnyEvent, ClientContext, OpenBrowser, Output, Prompt, R, Request, Step
from jupyman.api.results import ErrorReport, PartialResult, Result
from jupyman.cli import terminal
from jupyman.model import ErrorInfo, Problem

if TYPE_CHECKING:
    from jupyman.config import Config

# A browser window can be shown only if one of these is set. Without them webbrowser would take over the terminal.
_DISPLAYS = ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER", "WSL_DISTRO_NAME")


def _browse(url: str) -> bool:
    if sys.platform not in {"win32", "darwin"} and not any(os.environ.get(name) for name in _DISPLAYS):
        return False
    import webbrowser

    return webbrowser.open(url)


def _open(stream: TextIO | None) -> TextIO:
    """Return a standard stream, or the null device if it is closed (`jupyman ps 2>&-`)."""
    return stream if stream is not None else Path(os.devnull).open("w", encoding="utf-8")


def _read_secret(text: str, stream: TextIO) -> str:
    import getpass

    return getpass.getpass(text, stream)


@dataclass
class Context:
    """The environment of one command.

    Attributes:
        stdin, stdout, stderr: streams.
        environ: the environment variables.
        browse: opens a URL in the local browser; False if there is none.
        read_secret: reads a secret without echo.
        json: the command line has ``--json``.
        opened: whether a browser was opened; None: nothing asked for one.
    """

    stdin: TextIO = field(default_factory=lambda: sys.stdin)
    stdout: TextIO = field(default_factory=lambda: _open(sys.stdout))
    stderr: TextIO = field(default_factory=lambda: _open(sys.stderr))
    environ: Mapping[str, str] = field(default_factory=lambda: os.environ)
    browse: Callable[[str], bool] = _browse
    read_secret: Callable[[str, TextIO], str] = _read_secret
    json: bool = False
    opened: bool | None = None

    @property
    def paths(self) -> paths.Paths:
        """Our folders."""
        return paths.find(dict(self.environ))

    @property
    def interactive(self) -> bool:
        """Whether questions can be asked: stdin is a terminal."""
        return self.stdin is not None and self.stdin.isatty()

    @property
    def colour(self) -> bool:
        """Whether stderr shows colours."""
        return self.stderr.isatty() and not self.environ.get("NO_COLOR") and not self.dumb

    @property
    def dumb(self) -> bool:
        """Whether the terminal can only append text, as Emacs's shell."""
        return self.environ.get("TERM") == "dumb"

    def config(self) -> Config | None:
        """Read config.toml; None if there is none.

        Raises:
            ConfigFault: it cannot be used.
        """
        path = self.paths.config_file
        if not os.path.lexists(path):
            return None
        from jupyman import config

        return config.load(path)

    def _ssh_config(self) -> str | None:
        """Return JUPYMAN_SSH_CONFIG as an absolute path, because the daemon has another working directory."""
        named = self.environ.get("JUPYMAN_SSH_CONFIG")
        if not named or named == "none":  # a keyword of `ssh -F`
            return named
        return str(Path(os.path.expanduser(named)).absolute())  # noqa: PTH111 - Path's own raises for ~nobody

    def out(self, text: str = "") -> None:
        """Print a result."""
        self._print(terminal.printable(text, self.stdout))

    def note(self, text: str) -> None:
        """Print progress or a remark."""
        with contextlib.suppress(OSError):  # stderr is closed
            print(terminal.printable(text, self.stderr), file=self.stderr, flush=True)

    def note_problems(self, problems: Iterable[Problem]) -> None:
        """Print problems beside a result, with what fixes them."""
        for problem in problems:
            self.note(f"{problem.severity}: {problem.text}")
            self.note(f"  fix: {problem.fix}")

    def out_problems(self, problems: list[Problem]) -> None:
        """Print problems as part of a result."""
        if problems:
            self.out("\nproblems:")
        for problem in problems:
            self.out(f"  {problem.severity}: {problem.text}\n    fix: {problem.fix}")

    def dump(self, result: Result) -> None:
        """Print a result as JSON."""
        import msgspec

        self._print(terminal.safe_json(msgspec.json.encode(result).decode(), self.stdout))

    def _print(self, text: str) -> None:
        try:
            print(text, file=self.stdout, flush=True)
        except OSError as error:
            if self.stdout is sys.stdout:  # the interpreter flushes it again at exit
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            if isinstance(error, BrokenPipeError):  # the reader has read enough (`jupyman ps | head`)
                raise click.exceptions.Exit(0) from error
            self.json = False  # the error can only be printed on stderr
            text = f"the output cannot be written: {error.strerror or error}"
            raise errors.UsageFault(text, "check where standard output goes: the disk may be full") from error

    def call(
        self,
        request: Request[R],
        *,
        start: bool = True,
        any_version: bool = False,
        quiet: bool = False,
        configured: bool = True,
        on_output: Callable[[str], None] | None = None,
    ) -> R:
        """Run a request in the daemon, showing its progress and asking its questions.

        Args:
            request: what to do.
            start: start the daemon if none is running.
            any_version: accept a daemon of another version.
            quiet: show no progress.
            configured: refuse a broken config.toml before anything is changed.
            on_output: receives the lines of `Output` events; None: they are printed as results.

        Returns:
            The result.

        Raises:
            JupymanError: the request failed.
        """
        from jupyman.client import Client

        if configured:
            self.config()
        client = Client(
            self.paths,
            ClientContext(
                ssh_auth_sock=self.environ.get("SSH_AUTH_SOCK"),
                ssh_config=self._ssh_config(),
                interactive=self.interactive,
            ),
        )
        progress = terminal.Progress(self.stderr, colour=self.colour, dumb=self.dumb)

        def on_event(event: AnyEvent) -> str | None:
            if isinstance(event, Step):
                if not quiet:
                    progress.show(event)
                return None
            progress.clear()
            if isinstance(event, Prompt):
                return self.ask(event)
            if isinstance(event, Output):
                (on_output or self.out)(event.line)
            elif isinstance(event, OpenBrowser):
                self.open(event.url if "://" in event.url else client.base + event.url)
            return None

        try:
            return client.run(request, on_event, start=start, any_version=any_version)
        finally:
            progress.clear()

    def ask(self, prompt: Prompt) -> str | None:
        """Ask a question on the terminal; None: the user gives up."""
        text = terminal.printable(prompt.text, self.stderr)
        try:
            if prompt.kind == "secret":
                return self.read_secret(text if text.endswith(" ") else f"{text} ", self.stderr)
            if prompt.kind == "confirm":
                text += " [Y/n]" if prompt.default == "y" else " [y/N]"
            elif prompt.kind == "choice":
                text += f"\n{' / '.join(prompt.choices)} [{prompt.default or prompt.choices[0]}]"
            while True:
                print(text, end="" if text.endswith(" ") else " ", file=self.stderr, flush=True)
                line = self.stdin.readline()
                if not line:
                    return None
                answer = line.strip() or prompt.default or (prompt.choices or [""])[0]
                if prompt.kind == "text":
                    return answer
                if prompt.kind == "confirm":
                    return "y" if answer.lower() in {"y", "yes"} else "n"
                chosen = [answer] if answer in prompt.choices else [c for c in prompt.choices if c.startswith(answer)]
                if len(chosen) == 1:
                    return chosen[0]
                text = f"one of {' / '.join(prompt.choices)}:"
        except EOFError:
            return None

    def open(self, url: str) -> None:
        """Open the local browser, or report that there is none."""
        try:
            self.opened = self.browse(url)
        except Exception:  # webbrowser raises its own error, and whatever a broken BROWSER causes
            self.opened = False
        if not self.opened:
            self.note("no browser could be opened here")

    def partly(self, result: PartialResult) -> int:
        """Print the first failure of a command that did the rest; its results, and all of its JSON, are printed.

        Returns:
            The exit status: that of the failure, or 0.
        """
        if not isinstance(result.error, ErrorInfo):
            return 0
        error = errors.from_info(result.error)
        return error.status if self.json else self.fail(error)

    def fail(self, error: errors.JupymanError) -> int:
        """Print an error in its two lines, or as JSON on stdout.

        Returns:
            Its exit status.
        """
        if self.json:
            self.dump(ErrorReport(error=error.info()))
        else:
            for line in error.log:
                self.note(f"  {line}")
            self.note(f"error: {' '.join(error.message.split())}")
            self.note(f"hint: {' '.join(error.hint.split())}")
        return error.status
