"""A network that fails in earnest: packets vanish, the cable is pulled. The session is the same afterwards."""

from __future__ import annotations

import http.client
import json
import re
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from jupyman.demo.cell import CellKernel
from tests.bed import Bed, Cli, Network, Sshd, private_home, wait_until
from tests.integration.account import get
from tests.integration.notebooks import local_port, token
from tests.integration.tab import Tab


@pytest.fixture
def network() -> Iterator[Network]:
    with Network() as made:
        yield made


@pytest.fixture
def sshd(fresh_bed: Bed, network: Network) -> Iterator[Sshd]:
    with fresh_bed.start_sshd(network=network) as made:
        yield made


@pytest.fixture
def cli(sshd: Sshd) -> Iterator[Cli]:
    with private_home() as home:
        yield Cli(home, sshd.ssh_config)


def session(cli: Cli) -> dict[str, Any]:
    found: dict[str, Any] = cli("ps", "--json").json["sessions"][0]
    return found


def link(cli: Cli) -> str:
    state: str = session(cli)["link"]["state"]
    return state


def logins(sshd: Sshd) -> int:
    return len(re.findall(r"^Accepted ", sshd.log.read_text(), re.MULTILINE))


def test_a_stall_loses_nothing(cli: Cli, network: Network, sshd: Sshd) -> None:
    """Packets vanish until the host is shown as silent; its connection delivers everything later."""
    made = cli("up", "server1", "--no-browser", "--json").json
    before = logins(sshd)
    tab = Tab(made["url"])
    answers: list[int] = []

    def ask() -> None:
        status, _ = get(local_port(made), "/api/kernels", token(made))
        answers.append(status)

    asking = threading.Thread(target=ask)
    try:
        tab.start("import time\nfor i in range(60):\n    print('line', i, flush=True); time.sleep(0.2)")
        wait_until(lambda: tab.lines > 3, what="the first lines")
        with network.dropping():
            wait_until(lambda: session(cli)["link"]["silent_since"], what="the notice that the host is silent")
            silent = session(cli)
            asking.start()
            page = http.client.HTTPConnection("127.0.0.1", local_port(made), timeout=10)
            page.request("GET", "/lab", headers={"Accept": "text/html"})
            answer = page.getresponse()
            assert (answer.status, b"does not answer" in answer.read()) == (503, True)
            page.close()
            assert not answers, "what is no page waits"
        assert tab.over.wait(60), "the cell has not ended"
        wait_until(lambda: link(cli) == "up", what="the return")
        asking.join(30)
        after = session(cli)
    finally:
        tab.close()
    assert (silent["link"]["state"], silent["link"]["next_attempt"]) == ("reconnecting", None)
    assert (tab.lines, tab.closed) == (60, 0)
    assert answers == [200]
    assert (after["link"]["reconnects"], after["link"]["silent_since"]) == (0, None)
    assert logins(sshd) == before, "a stall costs no login"


def test_up_during_a_stall_logs_in_at_once(cli: Cli, network: Network, sshd: Sshd) -> None:
    made = cli("up", "server1", "--no-browser", "--json").json
    with CellKernel(made["url"]) as kernel:
        kernel.run("x = 41")
        with network.dropping():
            wait_until(lambda: session(cli)["link"]["silent_since"], what="the notice that the host is silent")
        again = cli("up", "server1", "--no-browser", "--json").json
        kernel.reconnect()
        assert kernel.run("print(x + 1)") == "42\n"
    assert (again["url"], again["server"]["pid"]) == (made["url"], made["server"]["pid"])
    assert session(cli)["link"]["silent_since"] is None
    # The lost connection's process there is ended, or it would be kept for hours.
    wait_until(lambda: len(sshd.connections()) == 1, what="the end of what the old connection left there", timeout=60)


def test_a_black_hole_is_noticed_and_survived(cli: Cli, network: Network) -> None:
    made = cli("up", "server1", "--no-browser", "--json")
    assert made.rc == 0, made
    url = made.json["url"]
    port = int(made.json["forwards"][0]["local"].rsplit(":", 1)[1])
    with CellKernel(url) as kernel:
        kernel.run("x = 41")
        lost = time.monotonic()
        with network.dropping():
            wait_until(lambda: link(cli) == "reconnecting", what="the notice of the black hole")
            noticed = time.monotonic() - lost
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
            connection.request("GET", "/lab", headers={"Accept": "text/html"})
            assert connection.getresponse().status == 503
            connection.close()
            wait_until(lambda: not session(cli)["link"]["silent_since"], what="the connection's end", timeout=40)
        healed = time.monotonic()
        wait_until(lambda: session(cli)["state"] == "running" and link(cli) == "up", what="the return", timeout=40)
        back = time.monotonic() - healed
        after = session(cli)
        assert after["url"] == url
        assert after["server"]["pid"] == made.json["server"]["pid"]
        assert after["link"]["reconnects"] == 1
        kernel.reconnect()
        assert kernel.run("print(x + 1)") == "42\n"
    print(json.dumps({"noticed": round(noticed, 1), "back": round(back, 1)}))
    assert noticed < 10, "6 s by design, and a busy machine"


def test_a_pulled_cable_and_another_login_in_the_meantime(cli: Cli, network: Network) -> None:
    assert cli("up", "server1", "--no-browser").rc == 0
    before = session(cli)
    network.pull()
    try:
        wait_until(lambda: link(cli) == "reconnecting", what="the notice of the pulled cable")
        failed = cli("check", "server1", "--json", timeout=60)
        assert failed.rc == 10, failed
        assert failed.json["error"]["code"] == "host-unreachable"
    finally:
        network.plug()
    wait_until(lambda: session(cli)["state"] == "running" and link(cli) == "up", what="the return", timeout=40)
    assert session(cli)["url"] == before["url"]


def test_a_session_on_a_machine_that_is_gone_can_be_forgotten(cli: Cli, network: Network) -> None:
    assert cli("up", "server1", "--no-browser").rc == 0
    network.pull()
    try:
        wait_until(lambda: link(cli) == "reconnecting", what="the notice of the pulled cable")
        assert cli("kill", "-y", "server1", timeout=60).rc == 10
        assert session(cli)["name"] == "server1"
        forced = cli("kill", "-y", "--force", "server1", timeout=60)
        assert forced.rc == 0, forced
        assert "is not known" in forced.stderr
        assert cli("ps", "--json").json["sessions"] == []
    finally:
        network.plug()
