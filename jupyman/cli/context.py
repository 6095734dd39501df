"""Everything of the outside world that a command uses: the seam for tests."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import click

from jupyman import errors, paths
from jupyman.api import AnyEvent, AnyRequest, ClientContext, OpenBrowser, Output, Prompt, Step
from jupyman.cli import terminal
from jupyman.model import ErrorInfo

if TYPE_CHECKING:
    from jupyman.config import Config

# Where one of these is set, a browser window can be shown; without, webbrowser would take over the terminal.
_DISPLAYS = ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER", "WSL_DISTRO_NAME")


def _browse(url: str) -> bool:
    if sys.platform not in {"win32", "darwin"} and not any(os.environ.get(name) for name in _DISPLAYS):
        return False
    import webbrowser

    return webbrowser.open(url)


def _open(stream: TextIO | None) -> TextIO:
    """Return a standard stream; where it is closed (`jupyman ps 2>&-`), one that swallows everything."""
    return stream if stream is not None else Path(os.devnull).open("w", encoding="utf-8")


def _read_secret(text: str, stream: TextIO) -> str:
    import getpass

    return getpass.getpass(text, stream)


@dataclass
class Context:
    """The world of one command.

    Attributes:
        stdin, stdout, stderr: streams.
        environ: the environment.
        browse: opens an address in the local browser; False where there is none.
        read_secret: asks for a secret without an echo.
        json: the command line says ``--json``.
        opened: whether a browser was opened; None: nobody asked for one.
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
        """Whether a person can be asked: stdin is a terminal."""
        return self.stdin is not None and self.stdin.isatty()

    @property
    def colour(self) -> bool:
        """Whether stderr takes colours."""
        return self.stderr.isatty() and not self.environ.get("NO_COLOR") and not self.dumb

    @property
    def dumb(self) -> bool:
        """Whether the terminal can only print, as Emacs's shell."""
        return self.environ.get("TERM") == "dumb"

    def config(self) -> Config | None:
        """Read config.toml; None where there is none.

        Raises:
            ConfigFault: it cannot be used.
        """
        path = self.paths.config_file
        if not os.path.lexists(path):
            return None
        from jupyman import config

        return config.load(path)

    def _ssh_config(self) -> str | None:
        """JUPYMAN_SSH_CONFIG, from the root: the daemon's folder is another one."""
        named = self.environ.get("JUPYMAN_SSH_CONFIG")
        if not named or named == "none":  # a word of `ssh -F`
            return named
        return str(Path(os.path.expanduser(named)).absolute())  # noqa: PTH111 - Path's own raises for ~nobody

    def out(self, text: str = "") -> None:
        """Print a result."""
        self._print(terminal.printable(text, self.stdout))

    def note(self, text: str) -> None:
        """Print progress or a remark."""
        with contextlib.suppress(OSError):  # nobody can be told
            print(terminal.printable(text, self.stderr), file=self.stderr, flush=True)

    def dump(self, value: Any) -> None:
        """Print a value as JSON."""
        import msgspec

        self._print(terminal.safe_json(msgspec.json.encode(value).decode(), self.stdout))

    def _print(self, text: str) -> None:
        try:
            print(text, file=self.stdout, flush=True)
        except OSError as error:
            if self.stdout is sys.stdout:  # the interpreter flushes it once more when it ends
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            if isinstance(error, BrokenPipeError):  # the reader has enough (`jupyman ps | head`): no fault
                raise click.exceptions.Exit(0) from error
            self.json = False  # there is only stderr left to say it on
            text = f"the output cannot be written: {error.strerror or error}"
            raise errors.UsageFault(text, "look where standard output goes: the disk may be full") from error

    def call(
        self,
        request: AnyRequest,
        *,
        start: bool = True,
        any_version: bool = False,
        quiet: bool = False,
        configured: bool = True,
        on_output: Callable[[str], None] | None = None,
    ) -> Any:
        """Run a request in the daemon, showing its progress and asking its questions.

        Args:
            request: what to do.
            start: start the daemon where none runs.
            any_version: accept a daemon of another version.
            quiet: show no progress.
            configured: refuse a broken config.toml before anything is touched.
            on_output: takes the lines that are no result; None: they are one.

        Returns:
            The result as plain JSON values.

        Raises:
            JupymanError: whatever went wrong.
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
        """Put a question on the terminal; None: the user gives up."""
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
                said = line.strip() or prompt.default or (prompt.choices or [""])[0]
                if prompt.kind == "text":
                    return said
                if prompt.kind == "confirm":
                    return "y" if said.lower() in {"y", "yes"} else "n"
                chosen = [said] if said in prompt.choices else [c for c in prompt.choices if c.startswith(said)]
                if len(chosen) == 1:
                    return chosen[0]
                text = f"one of {' / '.join(prompt.choices)}:"
        except EOFError:
            return None

    def open(self, url: str) -> None:
        """Open the local browser, or say that there is none."""
        try:
            self.opened = self.browse(url)
        except Exception:  # webbrowser raises its own error, and whatever a broken BROWSER causes
            self.opened = False
        if not self.opened:
            self.note("no browser could be opened here")

    def partly(self, result: dict[str, Any]) -> int:
        """Print what failed of a command that did the rest; its results, and with ``--json`` all of it, are printed.

        Args:
            result: what the daemon said; `error` is there where something failed.

        Returns:
            The exit status: that of the first failure.
        """
        if not result.get("error"):
            return 0
        import msgspec

        error = errors.from_info(msgspec.convert(result["error"], ErrorInfo))
        return error.status if self.json else self.fail(error)

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
            self.note(f"error: {' '.join(error.message.split())}")
            self.note(f"hint: {' '.join(error.hint.split())}")
        return error.status
