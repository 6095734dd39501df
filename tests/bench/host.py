"""A host to measure against: sshd for the account that runs the benchmark, and what the forwards lead to."""

from __future__ import annotations

import contextlib
import getpass
import os
import pwd
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.bed import Sshd, User, keygen
from tests.bench.child import start
from tests.bench.delayline import NEAR, line

ADDRESS = "127.0.0.1"


@dataclass(frozen=True)
class Host:
    """A host that is there.

    Attributes:
        sshd: its SSH server; `sshd.ssh_config` names it ``server1``.
        prefix: goes before a command that is to run on this side of the line to it; empty on loopback.
        bulk: the port, as the host sees it, of the source and sink.
        echo: that of the echo.
    """

    sshd: Sshd
    prefix: tuple[str, ...]
    bulk: int
    echo: int


@contextlib.contextmanager
def loopback() -> Iterator[Host]:
    """Run a host on 127.0.0.1."""
    with folder() as place, sshds(place, 1) as (sshd,), _targets() as (bulk, echo):
        yield Host(sshd, (), bulk, echo)


@contextlib.contextmanager
def far_away(delay: float, *, buffers: int | None = None) -> Iterator[Host]:
    """Run a host at the other end of a long line; needs root.

    Args:
        delay: seconds each way.
        buffers: bytes to which TCP's buffers may grow at both ends; None: as the kernel has it.
    """
    with line(delay, buffers=buffers) as ends, folder() as place:
        far = ("ip", "netns", "exec", ends.far)
        with sshds(place, 1, address=ends.address, prefix=far) as (sshd,), _targets(far) as (bulk, echo):
            yield Host(sshd, (*NEAR, ends.near), bulk, echo)


@contextlib.contextmanager
def folder() -> Iterator[Path]:
    """Make a folder that is gone afterwards."""
    path = Path(tempfile.mkdtemp(prefix="jmbench-", dir="/tmp"))
    path.chmod(0o755)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


@contextlib.contextmanager
def sshds(place: Path, count: int, *, address: str = ADDRESS, prefix: Sequence[str] = ()) -> Iterator[list[Sshd]]:
    """Run sshds for the present account.

    Args:
        place: for their files.
        count: how many.
        address: that they listen on.
        prefix: before their commands.

    Yields:
        Them, listening.
    """
    entry = pwd.getpwuid(os.geteuid())
    home, programs, keys = place / "home", place / "bin", place / "authorized"
    for path in (home, programs, keys):
        path.mkdir()
    user = User(
        kind="bash",
        name=getpass.getuser(),
        uid=entry.pw_uid,
        gid=entry.pw_gid,
        home=home,
        shell=Path(entry.pw_shell),
        programs=programs,
        made=False,
        mark=f"JM_BENCH={os.getpid()}",
    )
    client, server = keygen(place / "client"), keygen(place / "host")
    (keys / user.name).write_text(Path(f"{client}.pub").read_text())
    with contextlib.ExitStack() as stack:
        made = []
        for number in range(count):
            sshd = Sshd(
                place / f"sshd-{number}",
                [user],
                client_key=client,
                host_keys=[server],
                authorized=keys / "%u",
                address=address,
                prefix=prefix,
            )
            stack.callback(sshd.stop)
            sshd.start()
            made.append(sshd)
        yield made


@contextlib.contextmanager
def _targets(prefix: Sequence[str] = ()) -> Iterator[tuple[int, int]]:
    with contextlib.ExitStack() as stack:
        yield stack.enter_context(target("bulk", prefix)), stack.enter_context(target("echo", prefix))


@contextlib.contextmanager
def target(kind: str, prefix: Sequence[str] = ()) -> Iterator[int]:
    """Run one of the programs of targets.py; yield its port."""
    words = [*prefix, sys.executable, "-m", "tests.bench.targets", kind]
    with start(words) as process:
        try:
            assert process.stdout is not None
            yield int(process.stdout.readline())
        finally:
            process.kill()
