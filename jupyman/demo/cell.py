"""Execute cells on a Jupyter server as a browser does: REST for the kernel, a websocket for its channels.

The message format is Jupyter's own: https://jupyter-client.readthedocs.io/en/stable/messaging.html
"""

from __future__ import annotations

import json
import time
import urllib.request
import uuid
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

from jupyman import errors


class CellKernel:
    """A new kernel on a server; use as a context manager.

    Args:
        url: the session's address with its token, as `jupyman url` prints it.
        name: the kernel spec's name; None takes the server's default.
        timeout: seconds for each answer.

    Raises:
        UsageFault: the extra `demo` is not installed.
        OSError: the server does not answer.
    """

    def __init__(self, url: str, name: str | None = None, *, timeout: float = 60.0) -> None:
        parts = urlsplit(url)
        self._base = f"{parts.scheme}://{parts.netloc}{parts.path.rpartition('/')[0]}"
        self._token = parse_qs(parts.query).get("token", [""])[0]
        self._name = name
        self._timeout = timeout
        self._id = ""
        self._channels: Any = None

    def __enter__(self) -> Self:
        self._id = self._call("POST", "/api/kernels", {"name": self._name} if self._name else {})["id"]
        self.reconnect()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._channels.close()
        self._call("DELETE", f"/api/kernels/{self._id}")

    def reconnect(self) -> None:
        """Connect to the kernel, again if the connection was lost."""
        try:
            import websocket
        except ImportError as error:
            raise errors.UsageFault("the extra `demo` is not installed", "pip install 'jupyman[demo]'") from error
        if self._channels is not None:
            self._channels.close()
        self._channels = websocket.create_connection(
            f"ws{self._base.removeprefix('http')}/api/kernels/{self._id}/channels",
            header=[f"Authorization: token {self._token}"],
            timeout=self._timeout,
        )

    def run(self, code: str) -> str:
        """Run a cell.

        Args:
            code: its text.

        Returns:
            What the cell printed.

        Raises:
            KernelFault: it failed.
            OSError: the connection was lost.
        """
        return converse(self._channels, code, self._timeout)

    def _call(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        content = json.dumps(body).encode() if body is not None else None
        headers = {"Authorization": f"token {self._token}", "Content-Type": "application/json"}
        # The URL is ours: http on loopback.
        request = urllib.request.Request(f"{self._base}{path}", content, headers, method=method)
        with urllib.request.urlopen(request, timeout=self._timeout) as answer:
            return json.loads(answer.read() or b"null")


def converse(channels: Any, code: str, timeout: float = 60.0) -> str:
    """Run a cell over a kernel's open channels.

    Args:
        channels: the websocket.
        code: the cell's text.
        timeout: seconds from one message about the cell to the next.

    Returns:
        What it printed.

    Raises:
        KernelFault: the cell failed.
        OSError: the connection was lost, or no message came in time.
    """
    import websocket

    message = uuid.uuid4().hex
    header = {
        "msg_id": message,
        "msg_type": "execute_request",
        "username": "",
        "session": message,
        "version": "5.3",
    }
    content = {"code": code, "silent": False, "store_history": False, "allow_stdin": False, "stop_on_error": True}
    request = {"header": header, "parent_header": {}, "metadata": {}, "content": content, "channel": "shell"}
    channels.send(json.dumps({**request, "buffers": []}))
    printed = ""
    deadline = time.monotonic() + timeout
    while True:
        channels.settimeout(max(0.001, deadline - time.monotonic()))
        try:
            # With control frames: otherwise the server's pings would keep it waiting beyond the deadline.
            opcode, data = channels.recv_data(control_frame=True)
        except websocket.WebSocketTimeoutException:
            opcode, data = websocket.ABNF.OPCODE_PING, b""
        if opcode == websocket.ABNF.OPCODE_CLOSE:
            raise ConnectionResetError("the server closed the connection to the kernel")
        reply = json.loads(data) if opcode == websocket.ABNF.OPCODE_TEXT else {}
        if reply.get("parent_header", {}).get("msg_id") != message:
            if time.monotonic() >= deadline:
                raise TimeoutError(f"the kernel did not end the cell: no message for {timeout:g} s")
            continue
        deadline = time.monotonic() + timeout
        kind, content = reply["msg_type"], reply["content"]
        if kind == "stream":
            printed += content["text"]
        elif kind == "error":
            raise errors.KernelFault(f"the cell failed: {content.get('ename')}: {content.get('evalue')}")
        elif kind == "status" and content["execution_state"] == "idle":
            return printed


def execute(url: str, code: str, *, kernel: str | None = None, timeout: float = 60.0) -> str:
    """Start a kernel, run `code` in it, end it; arguments, result and errors as `CellKernel` and its `run`."""
    with CellKernel(url, kernel, timeout=timeout) as started:
        return started.run(code)
