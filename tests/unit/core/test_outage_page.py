"""What a browser hears while the link is away: pure, from the request's first bytes."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jupyman.core.sessions import outage_page

FACTS = outage_page.OutageFacts(
    "server1", "gpu<b>1", "link lost 14 s ago", since="10:42:01", seen="10:42:00", next_attempt="10:42:20"
)
PAGE = b"GET /lab/tree/a.ipynb HTTP/1.1\r\nHost: 127.0.0.1:8888\r\nAccept: text/html,*/*\r\n\r\n"
API = b"GET /api/kernels HTTP/1.1\r\nHost: localhost:8888\r\nAccept: */*\r\n\r\n"
SOCKET = (
    b"GET /api/kernels/1/channels HTTP/1.1\r\nHost: 127.0.0.1:8888\r\nAccept: text/html\r\n"
    b"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
)


def split(answer: bytes | None) -> tuple[str, dict[str, str], str]:
    assert answer is not None
    head, _, body = answer.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    fields = dict(line.split(": ", 1) for line in lines)
    assert int(fields["Content-Length"]) == len(body)
    assert fields["Connection"] == "close"
    assert fields["Retry-After"] == "2"
    return first, fields, body.decode()


def test_a_page_gets_a_page_that_loads_itself_again() -> None:
    first, fields, body = split(outage_page.answer(PAGE, FACTS))
    assert first.split()[1] == "503"
    assert fields["Content-Type"].startswith("text/html")
    assert 'http-equiv="refresh"' in body
    assert "link lost 14 s ago" in body
    assert "10:42:20" in body
    assert "gpu&lt;b&gt;1" in body, "names of hosts are not HTML"


@pytest.mark.parametrize("request_", [API, SOCKET, API.replace(b"GET", b"POST")])
def test_the_rest_is_told_to_come_again(request_: bytes) -> None:
    first, fields, body = split(outage_page.answer(request_, FACTS))
    assert first.split()[1] == "503"
    assert fields["Content-Type"] == "application/json"
    assert "link lost" in json.loads(body)["message"]


LISTS = [b"/api/kernels?1774", b"/api/sessions?1", b"/api/terminals?1"]
FROM_A_PAGE = b"Sec-Fetch-Mode: cors\r\nSec-Fetch-Site: same-origin\r\n\r\n"


@pytest.mark.parametrize("path", LISTS)
def test_the_lists_of_a_page_get_what_brings_up_no_dialog(path: bytes) -> None:
    asked = b"GET " + path + b" HTTP/1.1\r\nHost: 127.0.0.1:8888\r\n" + FROM_A_PAGE
    for waited in (None, 1.0):
        assert split(outage_page.answer(asked, FACTS, waited))[0].split()[1] == "504"
    assert split(outage_page.answer(asked.replace(FROM_A_PAGE, b"\r\n"), FACTS, 1.0))[0].split()[1] == "503"


def test_what_is_asked_about_one_kernel_waits_and_is_never_told_that_it_is_dead() -> None:
    model = b"GET /api/kernels/6f0a-11?1774 HTTP/1.1\r\nHost: 127.0.0.1:8888\r\n" + FROM_A_PAGE
    channels = SOCKET.replace(b"Upgrade: websocket", b"Upgrade: websocket\r\nSec-WebSocket-Key: eA==")
    for asked in (model, channels):
        assert outage_page.answer(asked, FACTS, None) is None
        assert outage_page.answer(asked, FACTS, 1.0) is None
        assert split(outage_page.answer(asked, FACTS, outage_page.PATIENCE))[0].split()[1] == "503"


def test_what_can_be_asked_once_only_is_answered_at_once() -> None:
    asked = b"POST /api/kernels/6f0a-11/restart HTTP/1.1\r\nHost: 127.0.0.1:8888\r\n" + FROM_A_PAGE
    assert split(outage_page.answer(asked, FACTS, None))[0].split()[1] == "503"
    assert outage_page.answer(b"\x81\x05hello", FACTS, None) == b"", "frames of a websocket: it is closed"


def test_another_name_for_this_computer_learns_nothing() -> None:
    _, _, body = split(outage_page.answer(PAGE.replace(b"127.0.0.1:8888", b"evil.example.org"), FACTS))
    assert "server1" not in body
    assert "gpu" not in body


@pytest.mark.parametrize("said", [b"", b"GET /lab HT", PAGE[:-2], b"SSH-2.0-OpenSSH\r\n", b"\x16\x03\x01\x02\x00"])
def test_half_a_request_and_what_is_no_http_wait(said: bytes) -> None:
    assert outage_page.answer(said, FACTS) is None


@given(st.binary(max_size=400))
def test_nothing_that_is_said_breaks_it(said: bytes) -> None:
    for start in (b"", b"GET / HTTP/1.1\r\n"):
        found = outage_page.answer(start + said + b"\r\n\r\n", FACTS)
        assert found is None or found.startswith(b"HTTP/1.1 503")
