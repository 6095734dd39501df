"""Ask a Jupyter server through a forward: it must answer with its token, and refuse requests without it."""

from __future__ import annotations

import contextlib
import http.client
import socket
import threading

from jupyman.model.endpoint import LOOPBACK

# ValueError: the host reported a token or an address that cannot be sent.
_NO_ANSWER = (OSError, http.client.HTTPException, ValueError)


class Asking:
    """Two connections through a forward, opened before the request is known: that saves a round trip later.

    Args:
        local_port: of the forward, on loopback.
        timeout: seconds for all of it.
    """

    def __init__(self, local_port: int, timeout: float = 10.0) -> None:
        self._timeout = timeout
        self._late = False
        self._anonymous = http.client.HTTPConnection(LOOPBACK, local_port, timeout=timeout)
        self._authorized = http.client.HTTPConnection(LOOPBACK, local_port, timeout=timeout)
        for connection in (self._anonymous, self._authorized):
            # http.client would reconnect by itself, and another program may have the port by then.
            connection.auto_open = 0
            with contextlib.suppress(OSError):
                connection.connect()

    def ask(self, base_url: str, token: str) -> tuple[int | None, int | None]:
        """GET ``/api/status`` on both at the same time.

        Args:
            base_url: of the server, "/" as a rule.
            token: sent in the Authorization header of the second request; "": the server needs none.

        Returns:
            The HTTP statuses without and with the token; None when there was no HTTP answer.
        """
        path = f"{base_url.rstrip('/')}/api/status"
        # A limit for each read is not enough: a server can send a byte at a time.
        limit = threading.Timer(self._timeout, self._cut)
        limit.daemon = True
        limit.start()
        try:
            statuses = self._ask(path, token)
        finally:
            limit.cancel()
        # http.client takes a truncated head for a complete one.
        return (None, None) if self._late else statuses

    def _ask(self, path: str, token: str) -> tuple[int | None, int | None]:
        with contextlib.suppress(*_NO_ANSWER):
            self._anonymous.request("GET", path)
        with contextlib.suppress(*_NO_ANSWER):
            self._authorized.request("GET", path, headers={"Authorization": f"token {token}"} if token else {})
        return _status(self._anonymous), _status(self._authorized)

    def _cut(self) -> None:
        self._late = True
        for connection in (self._anonymous, self._authorized):
            with contextlib.suppress(OSError):
                if connection.sock is not None:
                    connection.sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Close them."""
        self._anonymous.close()
        self._authorized.close()


def _status(connection: http.client.HTTPConnection) -> int | None:
    if connection.sock is None:
        return None
    try:
        response = connection.getresponse()
        response.read(65536)
    except _NO_ANSWER:
        return None
    return response.status
