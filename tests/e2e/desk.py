"""A session that `up` made, and the browser tab that it opened."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, WebSocket, sync_playwright

from tests.bed import Bed, Cli, Network, Sshd, private_home

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
# Nothing but the page's own requests: the machine may have no network.
OPTIONS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
WAIT = 60_000.0  # milliseconds


@dataclass(frozen=True)
class Desk:
    """A new session, and the browser tab that it opened."""

    cli: Cli
    sshd: Sshd
    browser: Browser
    page: Page
    url: str
    sockets: list[WebSocket]

    @property
    def address(self) -> str:
        """What the browser was started with."""
        (found,) = self.cli.browsed
        return found

    def link(self) -> dict[str, Any]:
        """What `ps` says of the session's link."""
        (session,) = self.cli("ps", "--json").json["sessions"]
        found = session["link"]
        assert isinstance(found, dict)
        return found

    def run_cell(self, code: str, number: int) -> str:
        """Type into the notebook's last cell, press Shift-Enter, return the output of the cell of that number."""
        self.start_cell(code)
        ran = self.page.locator(".jp-Notebook .jp-CodeCell", has_text=f"[{number}]:")
        return ran.locator(".jp-OutputArea-output").inner_text().strip()

    def dismiss(self) -> list[str]:
        """Close JupyterLab's dialogs; return what they said."""
        said = []
        dialogs = self.page.locator(".jp-Dialog")
        while dialogs.count():
            said.append(dialogs.first.inner_text().replace("\n", " "))
            dialogs.first.locator("button").last.click()
            dialogs.first.wait_for(state="detached")
        return said

    def shown(self, number: int) -> str:
        """Return what the output of the cell of that number shows now, also while it runs."""
        cell = self.page.locator(".jp-Notebook .jp-CodeCell").nth(number - 1)
        outputs = cell.locator(".jp-OutputArea-output")
        return outputs.first.inner_text() if outputs.count() else ""

    def start_cell(self, code: str) -> None:
        """Type into the notebook's last cell and press Shift-Enter."""
        self.page.locator(".jp-Notebook .jp-CodeCell .cm-content").last.click()
        self.page.keyboard.insert_text(code)
        self.page.keyboard.press("Shift+Enter")


@contextlib.contextmanager
def at_desk(
    bed: Bed, network: Network | None = None, *, words: tuple[str, ...] = (), kernel: str = "Python 3 (ipykernel)"
) -> Iterator[Desk]:
    """Make a session, open it in Chromium as `up` says, and a notebook in it.

    Args:
        bed: the host.
        network: in between; None: loopback.
        words: further words for `up`.
        kernel: what JupyterLab calls the kernel of the notebook.

    Yields:
        The desk; the test is skipped where there is no Chromium.
    """
    program = next(filter(None, map(shutil.which, BROWSERS)), None)
    if program is None:
        pytest.skip("no Chromium is installed")
    with bed.start_sshd(network=network) as sshd, private_home() as home, sync_playwright() as playwright:
        cli = Cli(home, sshd.ssh_config)
        ran = cli("up", "server1", *words)
        assert ran.rc == 0, ran
        with playwright.chromium.launch(executable_path=program, args=OPTIONS) as browser:
            page = browser.new_page()
            page.set_default_timeout(WAIT)
            made = Desk(cli, sshd, browser, page, ran.stdout.strip(), [])

            def remember(socket: WebSocket) -> None:
                made.sockets.append(socket)

            page.on("websocket", remember)
            # JupyterLab waits a second and a half for its stylesheet, which is too short on a busy machine.
            slow_theme = page.locator(".jp-Dialog", has_text="Error Loading Theme")
            page.add_locator_handler(slow_theme, lambda dialog: dialog.locator("button").last.click())
            page.goto(made.address)
            page.locator(".jp-LauncherCard[data-category=Notebook]", has_text=kernel).click()
            page.get_by_text(f"{kernel} | Idle").wait_for()
            yield made
    bed.reset()
