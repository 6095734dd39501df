"""Ask a Jupyter server, through the link, for the notebooks of its kernels and for the busy ones."""

from __future__ import annotations

import http.client
import json
from datetime import datetime
from typing import Any, Protocol

from jupyman import errors
from jupyman.model import Noun, Running
from jupyman.model.endpoint import LOOPBACK, Target
from jupyman.tools.host.text import clean

TIMEOUT = 5.0  # seconds for each read
_LIMIT = 1024 * 1024  # bytes of an answer; a session takes some 500


class Busy(Noun, frozen=True, kw_only=True):
    """A busy kernel.

    Attributes:
        kernel: its id.
        notebook: the path from the server's root directory; None when it has none.
        since: its server's ``last_activity``, RFC 3339: it was busy then, and may have been before.
    """

    kernel: str
    notebook: str | None
    since: str | None

    @property
    def text(self) -> str:
        """For people: the notebook, and since when the kernel is busy."""
        what = self.notebook or f"kernel {self.kernel[:8]}"
        try:
            moment = datetime.fromisoformat(self.since or "").astimezone()
        except (ValueError, OverflowError):
            return what
        today = moment.date() == datetime.now().astimezone().date()
        return (
            f"{what} (since {moment:%H:%M:%S} or before)"
            if today
            else f"{what} (since {moment:%Y-%m-%d %H:%M} or before)"
        )


class ChannelOpener(Protocol):
    """Opens byte streams to a host; `jupyman.ssh.link.Link` does."""

    def open_channel(self, target: Target, timeout: float = ...) -> Any:
        """Open a byte stream to an address of the host."""


class _Through(http.client.HTTPConnection):
    """HTTP over a channel instead of a local socket."""

    def __init__(self, channel: Any) -> None:
        super().__init__(LOOPBACK)
        self.sock = channel

    def connect(self) -> None:
        """Do nothing: the channel is the connection, and there is never a second one."""


def paths(link: ChannelOpener, running: Running, timeout: float = TIMEOUT) -> dict[str, str]:
    """GET ``/api/sessions`` of a server.

    Its identity must have been proven a moment ago, because the token is sent.

    Args:
        link: to its host.
        running: the server.
        timeout: seconds for each read; a server may be busy.

    Returns:
        Paths of notebooks and consoles, from the server's root directory, by kernel id; empty when it did not answer.
    """
    return read(_get(link, running, "/api/sessions", timeout))


def busy(link: ChannelOpener, running: Running, timeout: float = TIMEOUT) -> list[Busy] | None:
    """Ask a server for its busy kernels; its identity must have been proven a moment ago, as for `paths`.

    Args:
        link: to its host.
        running: the server.
        timeout: seconds for each read.

    Returns:
        The busy kernels; None when it did not answer.
    """
    kernels = _get(link, running, "/api/kernels", timeout)
    if not isinstance(kernels, list):
        return None
    found = read_busy(kernels, {})
    if not found:
        return []
    return read_busy(kernels, paths(link, running, timeout))


def _get(link: ChannelOpener, running: Running, path: str, timeout: float) -> Any:
    """GET a path of a server's API; None when the answer is not JSON."""
    endpoint = running.endpoint
    if endpoint is None:
        return None
    try:
        channel = link.open_channel(endpoint.target, timeout)
    except errors.JupymanError:
        return None
    channel.settimeout(timeout)
    connection = _Through(channel)
    try:
        # no_track_activity (jupyter_server, base/handlers.py): our request does not count as activity, which would keep
        # the server from an idle shutdown.
        target = f"{running.base_url.rstrip('/')}{path}?no_track_activity=1"
        headers = {"Authorization": f"token {running.token}"} if running.token else {}
        connection.request("GET", target, headers={**headers, "Connection": "close"})
        response = connection.getresponse()
        return json.loads(response.read(_LIMIT)) if response.status == 200 else None
    except (OSError, EOFError, http.client.HTTPException, ValueError, RecursionError):  # the last: "[" a million times
        return None
    finally:
        connection.close()


def read(body: Any) -> dict[str, str]:
    """Return the path of each session by its kernel's id. Pure.

    Args:
        body: decoded JSON of any shape; notebook 6 has the path in ``notebook`` only.
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


def read_busy(kernels: list[Any], notebooks: dict[str, str]) -> list[Busy]:
    """Return the busy kernels. Pure.

    Args:
        kernels: the answer of ``/api/kernels``; its elements may have any shape.
        notebooks: paths by kernel id, as `read` returns them.
    """
    found = []
    for kernel in kernels:
        if not isinstance(kernel, dict) or kernel.get("execution_state") != "busy":
            continue
        identity, last = kernel.get("id"), kernel.get("last_activity")
        if isinstance(identity, str):
            since = clean(last, 40) if isinstance(last, str) else None
            found.append(Busy(kernel=clean(identity, 40), notebook=notebooks.get(identity), since=since))
    return found
