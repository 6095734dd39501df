"""After a reconnection the processes of the lost connection on the host are ended, and no others."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from jupyman.core.links.stale_connection import ServerProcess, take_over
from jupyman.ssh.config import ssh_g as ssh_config
from jupyman.ssh.link import Link
from jupyman.ssh.login.auth import Credentials, Keyring
from tests.bed import KINDS, Bed, Sshd, wait_until


@pytest.fixture(scope="module")
def sshd(bed: Bed) -> Iterator[Sshd]:
    with bed.start_sshd() as made:
        yield made


def connect(sshd: Sshd, kind: str) -> contextlib.closing[Link]:
    read = ssh_config.read(f"server-{kind}", ssh_config=str(sshd.ssh_config))
    return contextlib.closing(Link.open(read, Credentials(), Keyring()))


@pytest.mark.parametrize("kind", KINDS)
def test_the_connection_before_is_ended(bed: Bed, sshd: Sshd, kind: str) -> None:
    bed.user(kind)
    with connect(sshd, kind) as first:
        before = take_over(first, None)
        assert before is not None
        assert before.pid in {one.pid for one in sshd.connections()}
        assert take_over(first, before) == before, "not the one that asks"
        with connect(sshd, kind) as second:
            now = take_over(second, before)
            assert now is not None
            assert now.pid != before.pid
            wait_until(lambda: not psutil.pid_exists(before.pid), what="the end of the first")
            wait_until(lambda: not first.alive, what="the notice of its end")
            assert take_over(second, now) == now
            assert take_over(second, before) == now


@pytest.mark.parametrize("other", [{"ticks": 1}, {"boot": "another"}, {"pid": 1}])
def test_another_process_of_that_pid_is_left_alone(sshd: Sshd, other: dict[str, int | str]) -> None:
    with connect(sshd, "bash") as first, connect(sshd, "bash") as second:
        before = take_over(first, None)
        assert before is not None
        take_over(second, dataclasses.replace(before, **other))  # type: ignore[arg-type]
        assert first.heartbeat(10) < 10


def test_a_process_that_is_not_sshds_is_left_alone(bed: Bed, sshd: Sshd) -> None:
    with bed.user().start("sleep", "60") as work, connect(sshd, "bash") as link:
        ticks = int(Path(f"/proc/{work.pid}/stat").read_text().rpartition(")")[2].split()[19])  # proc(5): field 22
        mine = take_over(link, None)
        assert mine is not None
        take_over(link, ServerProcess(work.pid, ticks, mine.boot))
        assert link.run("true", timeout=10).status == 0
        assert work.poll() is None
        work.kill()
