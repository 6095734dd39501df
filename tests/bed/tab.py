"""A notebook's page as its kernel's websocket sees it: it reconnects with the same session id."""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import threading
import time
import uuid
from urllib.parse import parse_qs, urlsplit

import websocket


class Tab:
    """A notebook's page: runs a cell, and reconnects when its websocket is closed.

    Attributes:
        text: all that the cell printed.
        closed: how often its websocket was closed.
        heard: the time of the last message, on the monotonic clock.
    """

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._place = parts.netloc
        self._token = parse_qs(parts.query)["token"][0]
        self._session = uuid.uuid4().hex
        self.text = ""
        self.closed = 0
        self.heard = time.monotonic()
        self.over = threading.Event()
        self._socket: websocket.WebSocket | None = None
        self._kernel = self._call("POST", "/api/kernels", "{}")["id"]
        self._connect()

    def _call(self, method: str, path: str, body: str | None = None) -> dict[str, str]:
        connection = http.client.HTTPConnection(self._place, timeout=60)
        with contextlib.closing(connection):
            headers = {"Authorization": f"token {self._token}", "Content-Type": "application/json"}
            connection.request(method, path, body, headers)
            found: dict[str, str] = json.loads(connection.getresponse().read() or b"{}")
            return found

    def _connect(self) -> None:
        address = f"ws://{self._place}/api/kernels/{self._kernel}/channels?session_id={self._session}"
        self._socket = websocket.create_connection(address, header=[f"Authorization: token {self._token}"], timeout=20)
        self._socket.settimeout(1.0)

    def start(self, code: str) -> None:
        """Run a cell and collect what it prints, in a thread of its own."""
        self.over.clear()
        self.text = ""
        message = uuid.uuid4().hex
        header = {"msg_id": message, "msg_type": "execute_request", "username": "", "session": self._session}
        content = {"code": code, "silent": False, "store_history": False, "allow_stdin": False, "stop_on_error": True}
        request = {
            "header": {**header, "version": "5.3"},
            "parent_header": {},
            "metadata": {},
            "content": content,
            "channel": "shell",
            "buffers": [],
        }
        assert self._socket is not None
        self._socket.send(json.dumps(request))
        threading.Thread(target=self._collect, args=(message,), daemon=True).start()

    def _collect(self, message: str) -> None:
        while not self.over.is_set():
            try:
                assert self._socket is not None
                said = self._socket.recv()
            except websocket.WebSocketTimeoutException:
                continue
            except (OSError, websocket.WebSocketException):
                said = ""
            if not said:
                self.closed += 1
                while not self.over.is_set():
                    try:
                        self._connect()
                        break
                    except (OSError, websocket.WebSocketException):
                        self.over.wait(1.0)
                continue
            self.heard = time.monotonic()
            reply = json.loads(said)
            if reply.get("parent_header", {}).get("msg_id") != message:
                continue
            if reply["msg_type"] == "stream":
                self.text += reply["content"]["text"]
            elif reply["msg_type"] == "status" and reply["content"]["execution_state"] == "idle":
                self.over.set()

    @property
    def lines(self) -> int:
        """The number of different lines."""
        return len(set(re.findall(r"^line (\d+)$", self.text, re.MULTILINE)))

    def close(self) -> None:
        """End the kernel."""
        self.over.set()
        if self._socket is not None:
            self._socket.close()
        self._call("DELETE", f"/api/kernels/{self._kernel}")
