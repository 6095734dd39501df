"""A host that requests a code: after a lost link one attempt and one notice, and no more until its user is there."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.bed import Bed, Cli, Ran, Sshd, User, private_home, wait_until
from tests.bed.aftermath import no_traceback, says
from tests.bed.codes import OPTIONS, Codes, one_time_codes
from tests.bed.http import get_page
from tests.bed.notebooks import Kernel, local_port, now
from tests.bed.ports import free_ports
from tests.bed.terminal import Terminal


@dataclass
class Gate:
    """The machine that asks for codes, and the command line of a user of the host that it leads to, or is.

    Attributes:
        name: of the machine, as the user's SSH configuration has it.
    """

    cli: Cli
    sshd: Sshd
    codes: Codes
    name: str

    @property
    def visits(self) -> int:
        """How many connections the machine has seen."""
        return self.sshd.log.read_text().count("Connection from ")

    def run(self, *words: str, answers: Sequence[str]) -> Ran:
        """Run a command on a terminal and give the answers."""
        with Terminal(self.cli, *words, "--json") as terminal:
            for answer in answers:
                terminal.expect(f"@{self.name}) Password: ")
                terminal.type(f"{answer}\n")
            return terminal.end()


@pytest.fixture(params=["the host", "a jump host"])
def gate(request: pytest.FixtureRequest, fresh_bed: Bed, tmp_path: Path) -> Iterator[Gate]:
    with (
        one_time_codes(tmp_path / "codes") as codes,
        fresh_bed.start_sshd(*OPTIONS, program=codes.program) as sshd,
        private_home() as home,
    ):
        cli, name = Cli(home, sshd.ssh_config), "server1"
        if request.param == "a jump host":
            name = "gate"
            cli.ssh_config = cli.user_home / "ssh_config"
            jump = sshd.ssh_config.read_text().replace("Host server1 server-*", "Host gate").split("Host gate")[1]
            cli.ssh_config.write_text(
                f"Host server1\n    ProxyJump gate\nHost gate\n    User {fresh_bed.user().name}{jump}"
                f"{fresh_bed.ssh_config.read_text()}"
            )
        yield Gate(cli, sshd, codes, name)


def needs_auth(cli: Cli) -> bool:
    return bool(now(cli)["link"]["state"] == "needs-auth")


def test_after_a_lost_link_the_user_is_asked_once(gate: Gate, user: User) -> None:
    cli = gate.cli
    up = ("up", "server1", "--no-browser")
    tunnel = ("tunnel", f"{free_ports(1)[0]}:1", "--host", "server1")
    first = gate.codes.new()
    ran = gate.run(*up, answers=[first])
    assert ran.rc == 0, ran
    made: dict[str, Any] = ran.json
    kernel = Kernel(made)
    kernel.run(made, "x = 41")
    assert cli(*tunnel).rc == 0
    seen = gate.visits
    assert seen == 1
    for one in gate.sshd.connections():
        one.kill()
    wait_until(lambda: needs_auth(cli), what="the end of attempts")
    assert gate.visits == seen + 1, "one attempt, by the key alone"
    a_night(gate, made)
    assert gate.visits == seen + 1
    says(cli("up", "server1", "--no-browser"), 11)  # asked for, and nobody is there to answer
    assert needs_auth(cli)

    second = gate.codes.new()
    ran = gate.run(*up, answers=[first, second])  # a code is good once
    assert ran.rc == 0, ran
    assert [ran.json[same] for same in ("server", "url")] == [made[same] for same in ("server", "url")]
    assert kernel.run(made, "print(x + 1)") == "42\n"
    assert now(cli)["link"]["state"] == "up"
    assert gate.codes.tried == [first, first, second], "what the user typed and nothing else"
    for path in cli.home.rglob("*"):
        if path.is_file():
            assert first.encode() not in path.read_bytes()
            assert second.encode() not in path.read_bytes()

    seen = gate.visits
    assert cli("daemon", "restart").rc == 0
    wait_until(lambda: needs_auth(cli), what="the end of attempts of the next daemon")
    assert gate.visits == seen + 1
    ran = gate.run(*tunnel, answers=[gate.codes.new()])  # it stands already; and somebody is here who can log in
    assert (ran.rc, ran.json["forwards"][0]["link"]["state"]) == (0, "up"), ran
    wait_until(lambda: now(cli)["state"] == "running", what="the session's return")
    assert [now(cli)[same] for same in ("server", "url")] == [made[same] for same in ("server", "url")]
    assert kernel.run(made, "print(x + 2)") == "43\n"
    no_traceback(cli)


def a_night(gate: Gate, made: dict[str, Any]) -> None:
    """Everything that might tempt the daemon to log in again."""
    cli = gate.cli
    for number in range(3):
        listed = cli("ps", env={"SSH_AUTH_SOCK": f"/nowhere/{number}"})
        told = [line for line in listed.stdout.splitlines() if "asks for a passphrase, password or code" in line]
        assert len(told) == 1, listed
        assert told[0].startswith("server1: "), listed
        assert told[0].endswith("(jupyman up server1)"), listed
    status, _, page = get_page(local_port(made), "/lab", "text/html")
    assert status == 503
    assert "the host asks for a login" in page
    assert "jupyman up server1" in page
