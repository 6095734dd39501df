"""Execute one cell on a Jupyter server as a browser would: REST for the kernel, a websocket for its channels.

The message format is Jupyter's own: https://jupyter-client.readthedocs.io/en/stable/messaging.html
"""

from __future__ import annotations

import json
import urllib.request
import uuid
from typing import Any
from urllib.parse import parse_qs, urlsplit

from jupyman import errors


def execute(url: str, code: str, *, kernel: str | None = None, timeout: float = 60.0) -> str:
    """Start a kernel, run `code` in it, end it.

    Args:
        url: the session's address with its token, as `jupyman url` prints it.
        code: the cell.
        kernel: the kernel spec's name; None takes the server's default.
        timeout: seconds for each answer.

    Returns:
        What the cell printed.

    Raises:
        UsageFault: the extra `demo` is not installed.
        KernelFault: the cell failed.
        OSError: the server does not answer.
    """
    try:
        import websocket
    except ImportError as error:
        raise errors.UsageFault("the demo's parts are not installed", "pip install 'jupyman[demo]'") from error
    parts = urlsplit(url)
    token = parse_qs(parts.query).get("token", [""])[0]
    headers = {"Authorization": f"token {token}", "Content-Type": "application/json"}
    base = f"{parts.scheme}://{parts.netloc}"

    def call(method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        content = json.dumps(body).encode() if body is not None else None
        # The address is ours: http on loopback.
        request = urllib.request.Request(f"{base}{path}", content, headers, method=method)  # noqa: S310
        with urllib.request.urlopen(request, timeout=timeout) as answer:  # noqa: S310
            return json.loads(answer.read() or b"null")

    started = call("POST", "/api/kernels", {"name": kernel} if kernel else {})
    try:
        channels = websocket.create_connection(
            f"ws://{parts.netloc}/api/kernels/{started['id']}/channels",
            header=[f"Authorization: token {token}"],
            timeout=timeout,
        )
        try:
            return _run(channels, code)
        finally:
            channels.close()
    finally:
        call("DELETE", f"/api/kernels/{started['id']}")


def _run(channels: Any, code: str) -> str:
    message = uuid.uuid4().hex
    header = {"msg_id": message, "msg_type": "execute_request", "username": "", "session": message, "version": "5.3"}
    content = {"code": code, "silent": False, "store_history": False, "allow_stdin": False, "stop_on_error": True}
    channels.send(
        json.dumps(
            {"header": header, "parent_header": {}, "metadata": {}, "content": content, "channel": "shell", "buffers": []}
        )
    )
    printed = ""
    while True:
        reply = json.loads(channels.recv())
        if reply.get("parent_header", {}).get("msg_id") != message:
            continue
        kind, content = reply["msg_type"], reply["content"]
        if kind == "stream":
            printed += content["text"]
        elif kind == "error":
            raise errors.KernelFault(f"the cell failed: {content.get('ename')}: {content.get('evalue')}")
        elif kind == "status" and content["execution_state"] == "idle":
            return printed
