"""Sessions: their addresses, their servers' answers, and their kernels."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qs, urlsplit

from jupyman.demo import cell
from tests.bed import Bed, Cli, Sshd, private_home
from tests.bed.http import get
from tests.bed.ports import free_ports


def up(cli: Cli, *words: str) -> dict[str, Any]:
    """Run `up --json`, which must succeed.

    Args:
        cli: the command line.
        words: host and options.

    Returns:
        The session.
    """
    made = cli("up", *words, "--json")
    assert made.rc == 0, made
    found: dict[str, Any] = made.json
    return found


def quietly(cli: Cli, *words: str) -> dict[str, Any]:
    """Run `up --json` for a new session on free ports."""
    there, here = free_ports(2)
    return up(cli, *words, "--port", str(there), "--local-port", str(here))


@contextlib.contextmanager
def a_session(bed: Bed, *options: str, sshd: Sshd | None = None) -> Iterator[tuple[Cli, dict[str, Any]]]:
    """Make a session on `server1` that several tests share; it is removed afterwards.

    Args:
        bed: the host.
        options: of `up`.
        sshd: another one than the bed's main one.

    Yields:
        A command line with a home of its own, and the session.
    """
    with private_home() as home:
        cli = Cli(home, (sshd or bed.sshd).ssh_config)
        try:
            yield cli, quietly(cli, "server1", *options)
        finally:
            bed.reset()


def now(cli: Cli, name: str = "server1") -> dict[str, Any]:
    """Return the session as `ps` shows it."""
    sessions: list[dict[str, Any]] = cli("ps", "--json").json["sessions"]
    return next(one for one in sessions if one["name"] == name)


def local_port(session: dict[str, Any]) -> int:
    """Return the port on this computer."""
    [forward] = session["forwards"]
    return int(forward["local"].rpartition(":")[2])


def token(session: dict[str, Any]) -> str:
    """Return the token of a session's address."""
    url: str = session["url"]
    return parse_qs(urlsplit(url).query)["token"][0]


def served(session: dict[str, Any], path: str, secret: str | None = None) -> tuple[int, Any]:
    """GET something from the server, through the forward; `secret` None: with the session's token."""
    return get(local_port(session), path, token(session) if secret is None else secret)


def answers(port: int) -> bool:
    """Return whether a port of this computer accepts connections."""
    with contextlib.suppress(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port), 5):
        return True
    return False


class Kernel:
    """A kernel that goes on running: each `run` connects anew.

    Args:
        session: with its address.
    """

    def __init__(self, session: dict[str, Any]) -> None:
        status, started = get(local_port(session), "/api/kernels", token(session), "POST", {})
        assert status == 201, started
        self.id: str = started["id"]

    def run(self, session: dict[str, Any], code: str) -> str:
        """Run a cell through the session's present address.

        Args:
            session: with its address.
            code: the cell.

        Returns:
            What it printed.
        """
        import websocket

        address = f"ws://127.0.0.1:{local_port(session)}/api/kernels/{self.id}/channels"
        channels = websocket.create_connection(address, header=[f"Authorization: token {token(session)}"], timeout=60)
        try:
            printed: str = cell.converse(channels, code)
            return printed
        finally:
            channels.close()
