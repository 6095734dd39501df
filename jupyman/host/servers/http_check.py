"""Ask a Jupyter server through a forward whether it answers, and whether it is closed to strangers."""

from __future__ import annotations

import contextlib
import http.client
import socket
import threading

# The last: a token or an address that is none, by the host.
_NO_ANSWER = (OSError, http.client.HTTPException, ValueError)


class Asking:
    """Two connections through a forward, made before it is known what to say on them: that saves a round trip later.

    Args:
        local_port: of the forward on 127.0.0.1.
        timeout: seconds for all of it.
    """

    def __init__(self, local_port: int, timeout: float = 10.0) -> None:
        self._timeout = timeout
        self._late = False
        self._stranger = http.client.HTTPConnection("127.0.0.1", local_port, timeout=timeout)
        self._known = http.client.HTTPConnection("127.0.0.1", local_port, timeout=timeout)
        for connection in (self._stranger, self._known):
            # By itself it would connect anew, and the port may be somebody else's by then.
            connection.auto_open = 0
            with contextlib.suppress(OSError):
                connection.connect()

    def ask(self, base_url: str, token: str) -> tuple[int | None, int | None]:
        """GET ``/api/status`` on both at the same time.

        Args:
            base_url: of the server, "/" as a rule.
            token: sent in the Authorization header of the second; "": the server wants none.

        Returns:
            The HTTP status without the token, and that with it; None when no HTTP answer came.
        """
        path = f"{base_url.rstrip('/')}/api/status"
        # A limit for each read alone would be none: a server can drip.
        limit = threading.Timer(self._timeout, self._cut)
        limit.daemon = True
        limit.start()
        try:
            statuses = self._ask(path, token)
        finally:
            limit.cancel()
        # To http.client a head without an end is one that ended.
        return (None, None) if self._late else statuses

    def _ask(self, path: str, token: str) -> tuple[int | None, int | None]:
        with contextlib.suppress(*_NO_ANSWER):
            self._stranger.request("GET", path)
        with contextlib.suppress(*_NO_ANSWER):
            self._known.request("GET", path, headers={"Authorization": f"token {token}"} if token else {})
        return _status(self._stranger), _status(self._known)

    def _cut(self) -> None:
        self._late = True
        for connection in (self._stranger, self._known):
            with contextlib.suppress(OSError):
                if connection.sock is not None:
                    connection.sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Close them."""
        self._stranger.close()
        self._known.close()


def _status(connection: http.client.HTTPConnection) -> int | None:
    if connection.sock is None:
        return None
    try:
        response = connection.getresponse()
        response.read(65536)
    except _NO_ANSWER:
        return None
    return response.status
