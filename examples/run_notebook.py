"""Run a notebook on a server without a browser, through a session of `jupyman up`.

Usage: python examples/run_notebook.py SESSION NOTEBOOK.ipynb [--kernel NAME] [--replace] [-o OUTPUT.ipynb]

The notebook is uploaded, executed cell by cell, and saved with its outputs: on the server, to be opened in a browser,
and here as NOTEBOOK.executed.ipynb. Its output is printed too. Needs `pip install 'jupyman[demo]'`.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

import nbformat
import websocket


class Server:
    """A Jupyter server at the local end of a session's tunnel.

    Args:
        session: the session's name.

    Raises:
        SystemExit: jupyman has no address for it, and has printed the reason.
    """

    def __init__(self, session: str) -> None:
        # Through a pipe: the address contains the token, which other users could read on a command line.
        words = ["jupyman", "url", "--", session]
        printed = subprocess.run(words, check=False, stdout=subprocess.PIPE, text=True)
        if printed.returncode:
            raise SystemExit(printed.returncode)
        parts = urlsplit(printed.stdout.strip())
        self.address, self.base = parts.netloc, parts.path.rpartition("/")[0]
        self.headers = {"Authorization": f"token {parse_qs(parts.query)['token'][0]}"}

    def call(self, method: str, path: str, body: Any = None) -> Any:
        """Call the REST API of Jupyter Server.

        Args:
            method: the HTTP method.
            path: below ``/api``.
            body: sent as JSON.

        Returns:
            The answer's JSON; None if it does not exist.

        Raises:
            SystemExit: the server refused.
        """
        connection = http.client.HTTPConnection(self.address, timeout=60)
        content = json.dumps(body) if body is not None else None
        with contextlib.closing(connection):
            connection.request(method, f"{self.base}/api/{path}", content, self.headers)
            answer = connection.getresponse()
            text = answer.read()
        if answer.status == 404 and method == "GET":
            return None
        if answer.status >= 400:
            raise SystemExit(f"error: {method} {path}: {answer.status} {answer.reason}\nhint: jupyman logs shows more")
        return json.loads(text) if text else None

    def channels(self, kernel: str) -> websocket.WebSocket:
        """Open a websocket for a kernel's channels."""
        address = f"ws://{self.address}{self.base}/api/kernels/{kernel}/channels"
        # No timeout: a cell may compute for hours without output.
        return websocket.create_connection(address, header=self.headers, timeout=None)


def execute(channels: websocket.WebSocket, cell: Any) -> bool:
    """Execute a cell, print its outputs, and store them in the cell.

    Args:
        channels: the kernel's.
        cell: a code cell.

    Returns:
        Whether it succeeded.
    """
    request = uuid.uuid4().hex
    # https://jupyter-client.readthedocs.io/en/stable/messaging.html
    header = {"msg_id": request, "msg_type": "execute_request", "username": "", "session": request, "version": "5.3"}
    content = {"code": cell.source, "silent": False, "store_history": True, "allow_stdin": False}
    message = {"header": header, "parent_header": {}, "metadata": {}, "content": content, "channel": "shell"}
    channels.send(json.dumps({**message, "buffers": []}))
    cell.outputs = []
    idle = replied = False
    status = "ok"
    while not (idle and replied):
        raw = channels.recv()
        if isinstance(raw, bytes):  # binary data of a widget
            continue
        reply = json.loads(raw)
        if reply["parent_header"].get("msg_id") != request:
            continue
        kind, content = reply["msg_type"], reply["content"]
        if kind == "execute_reply":
            replied, status, cell.execution_count = True, content["status"], content.get("execution_count")
        elif kind == "status":
            idle = content["execution_state"] == "idle"
        elif kind == "clear_output":
            cell.outputs = []
        elif kind in {"stream", "display_data", "execute_result", "error"}:
            show(content, kind)
            keep(cell, nbformat.v4.output_from_msg({**reply, "header": {"msg_type": kind}}))
    return bool(status == "ok")


def show(content: dict[str, Any], kind: str) -> None:
    """Print an output as text."""
    if kind == "error":
        print("\n".join(content["traceback"]))
    elif kind == "stream":
        print(content["text"], end="", file=sys.stderr if content["name"] == "stderr" else sys.stdout, flush=True)
    else:
        print(content["data"].get("text/plain", "(no text)"), flush=True)


def keep(cell: Any, output: Any) -> None:
    """Add an output to the cell; text is appended to preceding text of the same stream."""
    last = cell.outputs[-1] if cell.outputs else None
    if output.output_type == "stream" and last and last.output_type == "stream" and last.name == output.name:
        last.text += output.text
    else:
        cell.outputs.append(output)


def run(server: Server, notebook: Any, name: str, kernel: str | None) -> bool:
    """Run a notebook that was uploaded to the server.

    Args:
        server: the server.
        notebook: its content; the outputs are added.
        name: its path on the server.
        kernel: a kernel's name; None: the one that the notebook names if the server has it, else the default.

    Returns:
        Whether every cell succeeded; the first one that fails is the last one that runs.
    """
    known = server.call("GET", "kernelspecs")
    named = kernel or notebook.metadata.get("kernelspec", {}).get("name")
    if kernel is None and named not in known["kernelspecs"]:
        named = known["default"]
    request = {"path": name, "name": name, "type": "notebook", "kernel": {"name": named}}
    session = server.call("POST", "sessions", request)
    try:
        with contextlib.closing(server.channels(session["kernel"]["id"])) as channels:
            return all(execute(channels, cell) for cell in notebook.cells if cell.cell_type == "code")
    finally:
        server.call("DELETE", f"sessions/{session['id']}")


def sources(notebook: Any) -> list[str]:
    """Return the code and text of its cells: notebooks that differ only in their outputs count as equal."""
    return [cell["source"] for cell in notebook["cells"]]


def main() -> int:
    """Read the command line, run the notebook, save it."""
    parser = argparse.ArgumentParser(description="Run a notebook on a server through a session of jupyman.")
    parser.add_argument("session", help="its name, as in jupyman ps")
    parser.add_argument("notebook", type=Path)
    parser.add_argument("--kernel", help="default: the one that the notebook names")
    parser.add_argument("--replace", action="store_true", help="replace another notebook of that name on the server")
    parser.add_argument("-o", "--output", type=Path, help="default: NOTEBOOK.executed.ipynb in this folder")
    options = parser.parse_args()
    try:
        notebook = nbformat.read(options.notebook, as_version=4)
    except (OSError, ValueError) as error:
        raise SystemExit(f"error: {options.notebook} cannot be read: {error}") from error
    server = Server(options.session)
    name = options.notebook.name
    path = f"contents/{quote(name)}"
    there = server.call("GET", path)
    if there is not None and not options.replace and sources(there["content"]) != sources(notebook):
        text = f"error: the server has another notebook called {name}"
        raise SystemExit(f"{text}\nhint: rename one of them, or use --replace; nothing was overwritten")
    document = {"type": "notebook", "format": "json", "content": notebook}
    server.call("PUT", path, document)
    output = options.output or Path(f"{options.notebook.stem}.executed.ipynb")
    try:
        succeeded = run(server, notebook, name, options.kernel)
    except (OSError, websocket.WebSocketException) as error:
        raise SystemExit(f"error: the server does not answer: {error}\nhint: jupyman ps shows the reason") from error
    finally:
        # Also after Ctrl-C, so that computed results are kept.
        nbformat.write(notebook, output)
        server.call("PUT", path, document)
    print(f"saved {output} here, and {name} on the server", file=sys.stderr)
    return 0 if succeeded else 1


if __name__ == "__main__":
    sys.exit(main())
