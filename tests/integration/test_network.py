"""A network that fails in earnest: packets vanish, the cable is pulled. The session is the same afterwards."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Iterator
from typing import Any

import pytest

from jupyman.demo.cell import Kernel
from tests.bed import Bed, Cli, Network, Sshd, private_home, wait_until


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


def test_a_black_hole_is_noticed_and_survived(cli: Cli, network: Network) -> None:
    made = cli("up", "server1", "--no-browser", "--json")
    assert made.rc == 0, made
    url = made.json["url"]
    port = int(made.json["forwards"][0]["local"].rsplit(":", 1)[1])
    with Kernel(url) as kernel:
        kernel.run("x = 41")
        lost = time.monotonic()
        with network.dropping():
            wait_until(lambda: link(cli) == "reconnecting", what="the notice of the black hole")
            noticed = time.monotonic() - lost
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
            connection.request("GET", "/lab", headers={"Accept": "text/html"})
            assert connection.getresponse().status == 503
            connection.close()
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
