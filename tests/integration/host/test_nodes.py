"""One home on two machines, and an alias that leads to either: each finds its own servers only."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.bed import Bed, Cli, Sshd, private_home, wait_until


@pytest.fixture
def nodes(fresh_bed: Bed) -> Iterator[tuple[Sshd, Sshd]]:
    if os.geteuid() != 0:
        pytest.skip("only root can give a machine another name")
    with fresh_bed.start_sshd(node="node-a") as one, fresh_bed.start_sshd(node="node-b") as other:
        yield one, other


@pytest.fixture
def alias(nodes: tuple[Sshd, Sshd], fresh_bed: Bed) -> Path:
    """An SSH config whose `server1` leads to node A; `lead` changes that."""
    path = fresh_bed.folder / "ssh_config-alias"
    lead(path, nodes[0])
    return path


def lead(alias: Path, node: Sshd) -> None:
    text = node.ssh_config.read_text()
    alias.write_text(text + "    HostKeyAlias lab\n")
    keys = [line.split(" ", 1)[1] for line in node.known_hosts.read_text().splitlines()]
    node.known_hosts.write_text("".join(f"lab {key}\n" for key in keys))


@pytest.fixture
def cli(alias: Path) -> Iterator[Cli]:
    with private_home() as home:
        yield Cli(home, alias)


def session(cli: Cli) -> dict[str, Any]:
    found: dict[str, Any] = cli("ps", "--json").json["sessions"][0]
    return found


def test_the_other_machine_touches_nothing(cli: Cli, alias: Path, nodes: tuple[Sshd, Sshd], fresh_bed: Bed) -> None:
    made = cli("up", "server1", "--no-browser", "--json")
    assert made.rc == 0, made
    pid = made.json["server"]["pid"]
    assert made.json["server"]["node"] == "node-a"
    directory = fresh_bed.user("bash").home / ".local" / "state" / "jupyman" / "node-a" / "server1"
    before = {path.name: path.read_bytes() for path in directory.iterdir() if path.name != "log"}

    lead(alias, nodes[1])
    nodes[0].stop()

    def noticed() -> bool:
        return "other-node" in {problem["code"] for problem in session(cli)["problems"]}

    wait_until(noticed, what="word of the other machine", timeout=30)
    there = session(cli)
    assert there["state"] == "lost", "nothing is proven about it from here"
    [problem] = [one for one in there["problems"] if one["code"] == "other-node"]
    assert "node-a" in problem["text"]
    assert "node-b" in problem["text"]

    again = cli("up", "server1", "--no-browser", "--json")
    assert again.rc == 2, again
    assert "node-a" in again.json["error"]["message"]
    killed = cli("kill", "-y", "server1", "--json")
    assert killed.rc == 27, killed
    assert psutil.pid_exists(pid)
    listed = cli("ps", "-a", "server1", "--json").json["servers"]
    assert [(one["session"], one["node"], one["pid"]) for one in listed] == [("server1", "node-a", None)]
    assert {path.name: path.read_bytes() for path in directory.iterdir() if path.name != "log"} == before

    # A server of its own over there, then back home: the first one is as it was.
    other = cli("up", "server1", "--name", "second", "--no-browser", "--json")
    assert other.rc == 0, other
    assert other.json["server"]["node"] == "node-b"
    assert cli("kill", "-y", "second").rc == 0
    nodes[0].start()
    lead(alias, nodes[0])
    nodes[1].stop()

    def home_again() -> bool:
        one = session(cli)
        return bool(one["state"] == "running" and one["link"]["state"] == "up")

    wait_until(home_again, what="the way back", timeout=30)
    assert session(cli)["server"]["pid"] == pid
    assert session(cli)["url"] == made.json["url"]
    assert cli("kill", "-y", "server1").rc == 0
    assert not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
