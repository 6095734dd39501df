"""A real browser on a real JupyterLab through the tunnel, also after the link was lost."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.bed import Bed, wait_until
from tests.e2e.desk import Desk, at_desk


@pytest.fixture(scope="module")
def desk(bed: Bed) -> Iterator[Desk]:
    with at_desk(bed) as made:
        yield made


def test_the_browser_lands_in_lab_by_a_code_that_works_once(desk: Desk) -> None:
    base, token = desk.url.split("?token=")
    assert desk.address.split("?code=")[0].endswith("/go")
    assert token not in desk.address
    assert desk.page.url.startswith(f"{base}/tree/Untitled")
    assert token not in desk.page.evaluate("[document.URL, document.referrer].join()")
    again = desk.browser.new_page().goto(desk.address)  # a browser that is not logged in
    assert again is not None
    assert (again.status, again.url) == (404, desk.address)


def test_the_tab_goes_on_after_the_connection_was_lost(desk: Desk) -> None:
    assert desk.run_cell("kept = 41; print(kept + 1)", 1) == "42"
    before = [*desk.sockets]
    desk.sshd.connections()[0].kill()
    wait_until(lambda: desk.link()["reconnects"] == 1, 60, "the link's return")
    assert desk.link()["state"] == "up"
    assert desk.run_cell("print(kept + 2)", 2) == "43"
    assert before
    assert all(socket.is_closed() for socket in before)  # it was not the old connection that answered
