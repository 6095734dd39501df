"""A network that drops packets or goes down: the session is the same afterwards."""

from __future__ import annotations

import http.client
import json
import re
import threading
import time
from typing import Any

from jupyman.demo.cell import CellKernel
from tests.bed import Cli, Network, Sshd, wait_until
from tests.bed.http import get
from tests.bed.notebooks import local_port, token
from tests.bed.tab import Tab


def session(far_cli: Cli) -> dict[str, Any]:
    found: dict[str, Any] = far_cli("ps", "--json").json["sessions"][0]
    return found


def link(far_cli: Cli) -> str:
    state: str = session(far_cli)["link"]["state"]
    return state


def logins(far_sshd: Sshd) -> int:
    return len(re.findall(r"^Accepted ", far_sshd.log.read_text(), re.MULTILINE))


def test_a_stall_loses_nothing(far_cli: Cli, network: Network, far_sshd: Sshd) -> None:
    """Packets vanish until the host is shown as silent; its connection delivers everything later."""
    made = far_cli("up", "server1", "--no-browser", "--json").json
    before = logins(far_sshd)
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
            wait_until(lambda: session(far_cli)["link"]["silent_since"], what="the notice that the host is silent")
            silent = session(far_cli)
            asking.start()
            page = http.client.HTTPConnection("127.0.0.1", local_port(made), timeout=10)
            page.request("GET", "/lab", headers={"Accept": "text/html"})
            answer = page.getresponse()
            assert (answer.status, b"does not answer" in answer.read()) == (503, True)
            page.close()
            assert not answers, "what is no page waits"
        assert tab.over.wait(60), "the cell has not ended"
        wait_until(lambda: link(far_cli) == "up", what="the return")
        asking.join(30)
        after = session(far_cli)
    finally:
        tab.close()
    assert (silent["link"]["state"], silent["link"]["next_attempt"]) == ("reconnecting", None)
    assert (tab.lines, tab.closed) == (60, 0)
    assert answers == [200]
    assert (after["link"]["reconnects"], after["link"]["silent_since"]) == (0, None)
    assert logins(far_sshd) == before, "a stall costs no login"


def test_up_during_a_stall_logs_in_at_once(far_cli: Cli, network: Network, far_sshd: Sshd) -> None:
    made = far_cli("up", "server1", "--no-browser", "--json").json
    with CellKernel(made["url"]) as kernel:
        kernel.run("x = 41")
        with network.dropping():
            wait_until(lambda: session(far_cli)["link"]["silent_since"], what="the notice that the host is silent")
        again = far_cli("up", "server1", "--no-browser", "--json").json
        kernel.reconnect()
        assert kernel.run("print(x + 1)") == "42\n"
    assert (again["url"], again["server"]["pid"]) == (made["url"], made["server"]["pid"])
    assert session(far_cli)["link"]["silent_since"] is None
    # The lost connection's process there is ended, or it would be kept for hours.
    wait_until(
        lambda: len(far_sshd.connections()) == 1, what="the end of what the old connection left there", timeout=60
    )


def test_a_black_hole_is_noticed_and_survived(far_cli: Cli, network: Network) -> None:
    made = far_cli("up", "server1", "--no-browser", "--json")
    assert made.rc == 0, made
    url = made.json["url"]
    port = int(made.json["forwards"][0]["local"].rsplit(":", 1)[1])
    with CellKernel(url) as kernel:
        kernel.run("x = 41")
        lost = time.monotonic()
        with network.dropping():
            wait_until(lambda: link(far_cli) == "reconnecting", what="the notice of the black hole")
            noticed = time.monotonic() - lost
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
            connection.request("GET", "/lab", headers={"Accept": "text/html"})
            assert connection.getresponse().status == 503
            connection.close()
            wait_until(lambda: not session(far_cli)["link"]["silent_since"], what="the connection's end", timeout=40)
        healed = time.monotonic()
        wait_until(
            lambda: session(far_cli)["state"] == "running" and link(far_cli) == "up", what="the return", timeout=40
        )
        back = time.monotonic() - healed
        after = session(far_cli)
        assert after["url"] == url
        assert after["server"]["pid"] == made.json["server"]["pid"]
        assert after["link"]["reconnects"] == 1
        kernel.reconnect()
        assert kernel.run("print(x + 1)") == "42\n"
    print(json.dumps({"noticed": round(noticed, 1), "back": round(back, 1)}))
    assert noticed < 10, "6 s by design, and a busy machine"


def test_a_pulled_cable_and_another_login_in_the_meantime(far_cli: Cli, network: Network) -> None:
    assert far_cli("up", "server1", "--no-browser").rc == 0
    before = session(far_cli)
    network.pull()
    try:
        wait_until(lambda: link(far_cli) == "reconnecting", what="the notice of the pulled cable")
        failed = far_cli("check", "server1", "--json", timeout=60)
        assert failed.rc == 10, failed
        assert failed.json["error"]["code"] == "host-unreachable"
    finally:
        network.plug()
    wait_until(lambda: session(far_cli)["state"] == "running" and link(far_cli) == "up", what="the return", timeout=40)
    assert session(far_cli)["url"] == before["url"]


def test_a_session_on_a_machine_that_no_longer_exists_can_be_removed(far_cli: Cli, network: Network) -> None:
    assert far_cli("up", "server1", "--no-browser").rc == 0
    network.pull()
    try:
        wait_until(lambda: link(far_cli) == "reconnecting", what="the notice of the pulled cable")
        assert far_cli("kill", "-y", "server1", timeout=60).rc == 10
        assert session(far_cli)["name"] == "server1"
        forced = far_cli("kill", "-y", "--force", "server1", timeout=60)
        assert forced.rc == 0, forced
        assert "is not known" in forced.stderr
        assert far_cli("ps", "--json").json["sessions"] == []
    finally:
        network.plug()
