"""JupyterLab's debugger lets in whoever connects to its port: off where others have accounts, named where it is on."""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import websocket

from jupyman.demo.cell import Kernel
from tests.bed import Bed, Cli, User, wait_until
from tests.bed.old_stack import old_stack
from tests.integration.account import get
from tests.integration.notebooks import local_port, now, token, up
from tests.integration.test_adopt import by_hand

# Run as the neighbour: speak the Debug Adapter Protocol to each port, attach, and evaluate an expression.
ATTACK = r"""
import json, socket, sys

def ask(stream, number, command, arguments):
    body = json.dumps({"seq": number, "type": "request", "command": command, "arguments": arguments}).encode()
    stream.write(b"Content-Length: %d\r\n\r\n" % len(body) + body)
    stream.flush()

def answers(stream):
    while True:
        length = 0
        while (line := stream.readline()) not in (b"", b"\r\n"):
            if line.lower().startswith(b"content-length:"):
                length = int(line.split(b":")[1])
        if not length:
            return
        yield json.loads(stream.read(length))

for port in map(int, sys.argv[1:]):
    try:
        with socket.create_connection(("127.0.0.1", port), 5) as connection:
            connection.settimeout(10)
            stream = connection.makefile("rwb")
            ask(stream, 1, "initialize", {"adapterID": "x", "pathFormat": "path"})
            ask(stream, 2, "attach", {"name": "x", "type": "python", "request": "attach"})
            for answer in answers(stream):
                print(port, json.dumps(answer)[:300], file=sys.stderr)
                if answer.get("event") == "initialized":
                    ask(stream, 3, "configurationDone", {})
                    ask(stream, 4, "evaluate", {"expression": "__import__('os').getuid()", "context": "repl"})
                if answer.get("command") == "evaluate":
                    print("ran as", answer.get("body", {}).get("result"), flush=True)
                    break
    except OSError as error:
        print(port, repr(error), file=sys.stderr)
"""
# What JupyterLab sends when its debugger is switched on, and off again (ipykernel's debugger.py, DAP).
DEBUGGING = (
    ("initialize", {"clientID": "jupyterlab", "adapterID": "", "pathFormat": "path", "linesStartAt1": True}),
    ("attach", {}),
    ("disconnect", {"restart": False, "terminateDebuggee": False}),
)


def debug(kernel: Kernel, *, wait: float = 30.0) -> list[dict[str, Any]]:
    """Ask for the debugger as JupyterLab does; return what is answered within `wait` seconds each."""
    answered = []
    for number, (command, arguments) in enumerate(DEBUGGING, 1):
        content = {"type": "request", "seq": number, "command": command, "arguments": arguments}
        reply = request(kernel, "debug_request", content, wait=wait)
        if reply is None:
            break
        answered.append(reply)
    return answered


def request(kernel: Kernel, kind: str, content: dict[str, Any], *, wait: float = 30.0) -> dict[str, Any] | None:
    """Send a request over the control channel; return its answer, None where none comes."""
    channels = kernel._channels
    mine = uuid.uuid4().hex
    header = {"msg_id": mine, "msg_type": kind, "username": "", "session": mine, "version": "5.3"}
    message = {"header": header, "parent_header": {}, "metadata": {}, "content": content, "channel": "control"}
    channels.send(json.dumps({**message, "buffers": []}))
    until = time.monotonic() + wait
    while time.monotonic() < until:
        with contextlib.suppress(websocket.WebSocketTimeoutException):
            channels.settimeout(1)
            _, frame = channels.recv_data_frame(control_frame=True)
            if frame.opcode in {1, 2}:
                said = json.loads(frame.data)
                if said["parent_header"].get("msg_id") == mine and said["channel"] == "control":
                    found: dict[str, Any] = said["content"]
                    return found
    return None
