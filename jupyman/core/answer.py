"""Ask a Jupyter server through a forward whether it answers, and whether it is closed to strangers."""

from __future__ import annotations

import http.client
import json


def status(local_port: int, base_url: str, token: str | None, timeout: float = 10.0) -> int | None:
    """GET ``/api/status`` on a local port.

    Args:
        local_port: of the forward on 127.0.0.1.
        base_url: of the server, "/" as a rule.
        token: sent in the Authorization header; None asks as a stranger would.
        timeout: seconds for each read.

    Returns:
        The HTTP status; None when no HTTP answer came.
    """
    headers = {"Authorization": f"token {token}"} if token else {}
    connection = http.client.HTTPConnection("127.0.0.1", local_port, timeout=timeout)
    try:
        connection.request("GET", f"{base_url.rstrip('/')}/api/status", headers=headers)
        response = connection.getresponse()
        response.read(65536)
    except (OSError, http.client.HTTPException, ValueError):  # the last: a token or address that is none, by the host
        return None
    else:
        return response.status
    finally:
        connection.close()


def version(local_port: int, base_url: str, timeout: float = 10.0) -> str | None:
    """GET ``/api``, which needs no token, for the server's version; None when it does not say."""
    connection = http.client.HTTPConnection("127.0.0.1", local_port, timeout=timeout)
    try:
        connection.request("GET", f"{base_url.rstrip('/')}/api")
        body = json.loads(connection.getresponse().read(65536))
    except (OSError, http.client.HTTPException, ValueError):
        return None
    finally:
        connection.close()
    found = body.get("version") if isinstance(body, dict) else None
    return found if isinstance(found, str) else None
