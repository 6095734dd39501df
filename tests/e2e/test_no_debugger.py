"""JupyterLab's debug button is off if other people have accounts on the host."""

from __future__ import annotations

from tests.bed import Bed
from tests.e2e.desk import at_desk


def test_jupyterlab_offers_no_debugger_if_others_have_accounts(bed: Bed) -> None:
    bed.user("other")
    with at_desk(bed) as desk:
        assert desk.run_cell("print(6 * 7)", 1) == "42"
        button = desk.page.locator(".jp-DebuggerBugButton")
        assert button.get_attribute("aria-disabled") == "true"
        assert button.get_attribute("title") == "Select a kernel that supports debugging to enable debugger"
