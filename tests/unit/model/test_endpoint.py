"""Where a program listens, as an SSH target and as text."""

from __future__ import annotations

import msgspec
import pytest

from jupyman.model.endpoint import LOOPBACK, Endpoint, Target


@pytest.mark.parametrize(
    ("endpoint", "target", "port", "text"),
    [
        (Endpoint(None, 8888), (LOOPBACK, 8888), 8888, "127.0.0.1:8888"),
        (Endpoint("gpu1", "/tmp/jm-a/s"), "/tmp/jm-a/s", None, "unix:/tmp/jm-a/s"),
        (Endpoint(None, 22, "::1"), ("::1", 22), 22, "[::1]:22"),
        (Endpoint("gpu1", 80, "intranet"), ("intranet", 80), 80, "intranet:80"),
    ],
)
def test_an_endpoint_is_a_target_and_a_text(endpoint: Endpoint, target: Target, port: int | None, text: str) -> None:
    assert endpoint.target == target
    assert endpoint.port == port
    assert endpoint.text == text
    assert msgspec.json.decode(msgspec.json.encode(endpoint), type=Endpoint) == endpoint
