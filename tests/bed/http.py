"""Requests to Jupyter servers and to the outage page."""

from __future__ import annotations

import http.client
import json
from typing import Any


def get(port: int, path: str, token: str | None = None, method: str = "GET", body: Any = None) -> tuple[int, Any]:
    """Send a request to a server on loopback.

    Args:
        port: the server's.
        path: with its query.
        token: None sends none.
        method: of HTTP.
        body: sent as JSON.

    Returns:
        The status, and the body: parsed when it is JSON.
    """
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    headers = {"Authorization": f"token {token}"} if token else {}
    connection.request(method, path, headers=headers, body=json.dumps(body) if body is not None else None)
    answer = connection.getresponse()
    content = answer.read()
    connection.close()
    return answer.status, json.loads(content) if content[:1] in {b"{", b"["} else content


def get_page(port: int, path: str, accept: str) -> tuple[int, dict[str, str], str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=15)
    try:
        connection.request("GET", path, headers={"Accept": accept})
        answer = connection.getresponse()
        return answer.status, dict(answer.getheaders()), answer.read().decode()
    finally:
        connection.close()
