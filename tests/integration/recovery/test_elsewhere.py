"""The computer wakes in another network; the host's name resolves differently once the VPN is up."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from jupyman.local import daemon_file
from tests.bed import Bed, Cli, Network, Sshd, private_home, wait_until
from tests.bed.aftermath import no_traceback
from tests.bed.notebooks import Kernel, now

NAME = "gpu.lab.jupyman.invalid"  # RFC 6761: no name server knows it
# In a mount namespace of its own, so that this computer's files stay as they are.
INSIDE = 'mount --bind "$1" /etc/hosts && mount --bind "$2" /etc/resolv.conf && shift 2 && exec "$@"'


class Laptop(Cli):
    """A command line, and a daemon, to which a file of ours is /etc/hosts; the only name server says nothing."""

    @property
    def hosts(self) -> Path:
        return self.user_home / "hosts"

    def resolve(self, to: str | None) -> None:
        """Say where the host's name leads; None: it does not resolve."""
        # The file itself stays the same one: it is what is mounted.
        self.hosts.write_text("127.0.0.1 localhost\n" + (f"{to} {NAME}\n" if to is not None else ""))

    def start(self, *words: str, env: Mapping[str, str] | None = None, **how: Any) -> subprocess.Popen[str]:
        streams = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **how}
        servers = self.user_home / "resolv.conf"
        servers.write_text("nameserver 127.0.0.1\noptions timeout:1 attempts:1\n")
        argv = ["unshare", "--mount", "sh", "-c", INSIDE, "sh", str(self.hosts), str(servers)]
        argv += [sys.executable, "-m", "jupyman", *words]
        environ = {**self.environ, **(env or {})}
        return subprocess.Popen(argv, text=True, env=environ, cwd=self.user_home, start_new_session=True, **streams)

    @property
    def daemon(self) -> psutil.Process:
        found = daemon_file.read(self.home / "run" / "daemon.json")
        assert found is not None
        return psutil.Process(found.pid)


@dataclass
class Places:
    """A host, and its addresses as it is reached from the lab and from home."""

    laptop: Laptop
    network: Network
    sshd: Sshd
    lab: str
    home: str

    def visits(self) -> list[str]:
        """By which address the host was visited, each time."""
        return re.findall(r"Connection from .* on ([0-9.]+) port", self.sshd.log.read_text())


@pytest.fixture
def places(fresh_bed: Bed) -> Iterator[Places]:
    with (
        Network() as network,
        network.elsewhere() as home,
        fresh_bed.start_sshd(f"ListenAddress {home}", network=network) as sshd,
        private_home() as folder,
    ):
        laptop = Laptop(folder)
        known = laptop.user_home / "known_hosts"
        known.write_text(sshd.known_hosts.read_text().replace(network.address, NAME))
        laptop.ssh_config = laptop.user_home / "ssh_config"
        # No HostName: the name is the address, and without a network it is no name at all.
        laptop.ssh_config.write_text(
            f"Host {NAME}\n    User {fresh_bed.user().name}\n    IdentityFile {fresh_bed.client_key}\n"
            f"    IdentitiesOnly yes\n    UserKnownHostsFile {known}\n    GlobalKnownHostsFile /dev/null\n"
        )
        laptop.resolve(network.address)
        yield Places(laptop, network, sshd, network.address, home)


def test_closed_in_the_lab_and_opened_at_home(places: Places) -> None:
    laptop = places.laptop
    ran = laptop("up", NAME, "--no-browser", "--json")
    assert ran.rc == 0, ran
    made = ran.json
    kernel = Kernel(made)
    kernel.run(made, "x = 41")
    wait_until(lambda: "carries the link" in log_of(laptop), what="the note of what the connection is on the host")
    laptop.daemon.suspend()
    places.network.pull()
    laptop.resolve(None)
    time.sleep(4)  # long enough that the daemon sees that it slept; nothing tells when that is
    laptop.daemon.send_signal(signal.SIGCONT)
    wait_until(lambda: link(laptop) == "reconnecting", what="the notice that it is elsewhere")
    wait_until(lambda: "there is no host" in last_error(laptop), what="an attempt without the VPN")
    assert link(laptop) == "reconnecting", "a name that does not resolve is no reason to give up"
    laptop.resolve(places.home)
    wait_until(lambda: (link(laptop), now(laptop, NAME)["state"]) == ("up", "running"), what="the return")
    after = now(laptop, NAME)
    assert [after[same] for same in ("server", "url")] == [made[same] for same in ("server", "url")]
    assert after["link"]["reconnects"] == 1
    assert kernel.run(made, "print(x + 1)") == "42\n"
    assert places.visits() == [places.lab, places.home]
    # The host cannot know that nobody will come back to the first connection, and would keep it for hours.
    wait_until(lambda: len(places.sshd.connections()) == 1, what="the end of what the first connection left there")
    no_traceback(laptop)


def test_a_computer_that_starts_without_a_network_finds_its_session_later(places: Places) -> None:
    laptop = places.laptop
    ran = laptop("up", NAME, "--no-browser", "--json")
    assert ran.rc == 0, ran
    assert laptop("daemon", "stop").rc == 0
    laptop.resolve(None)
    seen = now(laptop, NAME)
    assert (seen["state"], seen["link"]["state"], seen["url"]) == ("lost", "reconnecting", None)
    failed = laptop("check", NAME, "--json")
    assert failed.json["error"]["code"] == "unknown-host"
    assert link(laptop) == "reconnecting", "also after somebody asked in vain"
    laptop.resolve(places.lab)
    wait_until(lambda: now(laptop, NAME)["state"] == "running", what="the return")
    assert now(laptop, NAME)["url"] == ran.json["url"]


def log_of(cli: Cli) -> str:
    return (cli.home / "state" / "daemon.log").read_text()


def link(cli: Cli) -> str:
    state: str = now(cli, NAME)["link"]["state"]
    return state


def last_error(cli: Cli) -> str:
    return now(cli, NAME)["link"]["last_error"] or ""
