"""Which notebook a kernel belongs to: asked of its Jupyter server, through the link."""

from __future__ import annotations

import http.client
import json
from typing import Any, Protocol

from jupyman import errors
from jupyman.model import Running
from jupyman.tools.text import clean

TIMEOUT = 5.0  # seconds for each read
_LIMIT = 1024 * 1024  # bytes of an answer; a session takes some 500


class Streams(Protocol):
    """What is needed of a link: `jupyman.ssh.link.Link` has it."""

    def open_channel(self, target: tuple[str, int] | str, timeout: float = ...) -> Any:
        """Open a byte stream to an address of the host."""


class _Through(http.client.HTTPConnection):
    """HTTP over a channel instead of a socket of this computer."""

    def __init__(self, channel: Any) -> None:
        super().__init__("127.0.0.1")
        self.sock = channel

    def connect(self) -> None:
        """Do nothing: the channel is the connection. A second one is never made."""


def paths(link: Streams, running: Running, timeout: float = TIMEOUT) -> dict[str, str]:
    """GET ``/api/sessions`` of a server.

    Its identity must have been proven a moment ago: the token goes along.

    Args:
        link: to its host.
        running: the server.
        timeout: seconds for each read; a server may be busy.

    Returns:
        Paths of notebooks and consoles, from the server's root directory, by kernel id. Empty where it did not answer.
    """
    if running.endpoint is None:
        return {}
    try:
        channel = link.open_channel(running.endpoint, timeout)
    except errors.JupymanError:
        return {}
    channel.settimeout(timeout)
    connection = _Through(channel)
    try:
        # no_track_activity (jupyter_server, base/handlers.py): our look is no activity that keeps the server from an
        # idle shutdown.
        target = f"{running.base_url.rstrip('/')}/api/sessions?no_track_activity=1"
        headers = {"Authorization": f"token {running.token}"} if running.token else {}
        connection.request("GET", target, headers={**headers, "Connection": "close"})
        response = connection.getresponse()
        body = json.loads(response.read(_LIMIT)) if response.status == 200 else None
    except (OSError, EOFError, http.client.HTTPException, ValueError, RecursionError):  # the last: "[" a million times
        return {}
    finally:
        connection.close()
    return read(body)


def read(body: Any) -> dict[str, str]:
    """Read the answer: the path of each session by its kernel's id. Pure.

    Args:
        body: JSON as Jupyter gives it, or whatever came; notebook 6 has the path in ``notebook`` only.
    """
    found: dict[str, str] = {}
    for session in body if isinstance(body, list) else []:
        if not isinstance(session, dict):
            continue
        kernel, notebook = session.get("kernel"), session.get("notebook")
        path = session.get("path") or (notebook.get("path") if isinstance(notebook, dict) else None)
        identity = kernel.get("id") if isinstance(kernel, dict) else None
        if isinstance(identity, str) and isinstance(path, str) and path:
            found[identity] = clean(path)
    return found
