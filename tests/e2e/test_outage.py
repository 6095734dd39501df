"""The network is away for a while: the same tab goes on without a reload, and the kernel has computed meanwhile.

``JUPYMAN_OUTAGE=300 pytest -s tests/e2e/test_outage.py`` waits five minutes; the lines that were seen are printed.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator

import pytest

from tests.bed import Bed, Network, wait_until
from tests.e2e.desk import Desk, at_desk

OUTAGE = float(os.environ.get("JUPYMAN_OUTAGE", "20"))
COUNT = int(OUTAGE) + 15
# A host that is silent for less than half a minute goes on over the same connection. After a longer outage Jupyter has
# written into a lost one until its pings showed that, 30 to 40 s.
LOST = 0 if OUTAGE < 25 else 45
# The outage is waited for, and then JupyterLab's own next look, which it puts off for longer and longer.
pytestmark = pytest.mark.timeout(180 + 2 * OUTAGE)


@pytest.fixture
def desk(bed: Bed, network: Network) -> Iterator[Desk]:
    with at_desk(bed, network) as made:
        yield made


def test_the_tab_goes_on_and_the_kernel_has_counted(desk: Desk, network: Network) -> None:
    assert desk.run_cell("kept = 41; print(kept + 1)", 1) == "42"
    desk.start_cell(f"import time\nfor i in range({COUNT}):\n    print('line', i, flush=True); time.sleep(1)")
    wait_until(lambda: "line 2" in desk.shown(2), what="the first lines")
    with network.dropping():
        time.sleep(OUTAGE)  # what is tested is that it lasts
    healed = time.monotonic()
    wait_until(lambda: desk.link()["state"] == "up", timeout=60, what="the link's return")
    back = time.monotonic() - healed

    def new_line() -> bool:
        return f"line {int(OUTAGE) + 5}" in desk.shown(2) or f"line {COUNT - 1}" in desk.shown(2)

    wait_until(new_line, timeout=120 + OUTAGE, what="output in the same tab")
    output = time.monotonic() - healed
    wait_until(lambda: f"line {COUNT - 1}" in desk.shown(2), timeout=COUNT + 30, what="the last line")
    seen = {int(number) for number in re.findall(r"line (\d+)", desk.shown(2))}
    dialogs = desk.dismiss()
    missing = sorted(set(range(COUNT)) - seen)
    assert len(missing) <= LOST, (missing, desk.link(), [one.is_closed() for one in desk.sockets])
    # That a notebook could not be saved meanwhile (JupyterLab tries every two minutes) is worth a word to the user.
    assert all("Save" in text for text in dialogs)
    assert desk.run_cell("print(kept + 2)", 3) == "43"
    print(
        f"\noutage {OUTAGE:.0f} s: link back {back:.1f} s after the network, output in the tab after {output:.1f} s, "
        f"{len(seen)} of {COUNT} lines seen, dialogs: {dialogs}"
    )
