"""Who listens, and ending our own processes: real sockets, held by us and by another account."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import msgspec
import pytest

from jupyman import errors
from jupyman.host.report import ports
from jupyman.model import PortHolder
from tests.bed.local_account import Account, new_account
from tests.local_shell import LocalShell, bare_path

pytestmark = pytest.mark.skipif(os.getuid() != 0, reason="makes accounts: needs root")

PYTHON = "/usr/bin/python3"  # the test's own may lie in a home that is closed to others
# Prints its port when it listens, then does as it is told by its arguments.
LISTENER = """
import os, signal, socket, sys
family = socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET
server = socket.socket(family)
if family == socket.AF_INET6:
    server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
server.bind((sys.argv[1], 0))
server.listen()
behaviour = sys.argv[2] if len(sys.argv) > 2 else ""
if behaviour == "stubborn":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
if behaviour == "hangs after close":
    signal.signal(signal.SIGTERM, lambda *_: server.close())
if behaviour == "worker" and os.fork() == 0:
    signal.pause()
print(server.getsockname()[1], flush=True)
if behaviour == "closes":
    sys.stdin.readline()
    server.close()
    print("closed", flush=True)
while True:
    signal.pause()
"""


@dataclass
class Listener:
    process: subprocess.Popen[str]
    port: int

    @property
    def pid(self) -> int:
        return self.process.pid


class Host:
    """An account, a shell as it, and listeners of it and of others."""

    def __init__(self, account: Account, stack: ExitStack) -> None:
        self.account = account
        self.shell = LocalShell(account.home, account.name)
        self._stack = stack

    def listener(self, behaviour: str = "", *, address: str = "127.0.0.1", root: bool = False) -> Listener:
        argv = [PYTHON, "-c", LISTENER, address, behaviour]
        command = argv if root else self.shell.command(*argv)
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd="/", start_new_session=True
        )
        self._stack.callback(_end, process)
        assert process.stdout is not None
        return Listener(process, int(process.stdout.readline()))

    def holder(self, listener: Listener) -> PortHolder:
        (found,) = ports.who(self.shell, [listener.port])
        return found


def _end(process: subprocess.Popen[str]) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


@contextmanager
def made() -> Iterator[Host]:
    with new_account(named=True) as account, ExitStack() as stack:
        yield Host(account, stack)


@pytest.fixture(name="host")
def _host() -> Iterator[Host]:
    with made() as host:
        yield host


@pytest.fixture(name="tool", params=["lsof", "ss", "proc"])
def _tool(request: pytest.FixtureRequest, host: Host, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Take away the tools that are better than this one."""
    name = str(request.param)
    without = {"lsof": [], "ss": ["lsof"], "proc": ["lsof", "ss"]}[name]
    host.shell.env["PATH"] = bare_path(host.account.home / "bin", *without)
    return name


def test_own_listener_is_found_with_its_process(host: Host, tool: str) -> None:
    one = host.listener()
    found = host.holder(one)
    assert (found.port, found.pid, found.ours) == (one.port, one.pid, True)
    assert (found.uid, found.user, found.address) == (host.account.uid, host.account.name, "127.0.0.1")
    assert found.start_ticks is not None
    assert found.command is not None
    assert found.command.startswith(PYTHON)


def test_another_users_listener_is_taken_and_named(host: Host, tool: str) -> None:
    one = host.listener(root=True)
    found = host.holder(one)
    assert (found.uid, found.user, found.pid, found.ours) == (0, "root", None, False)
    with pytest.raises(errors.NotOurs):
        ports.stop_process(host.shell, found, force=True)
    assert one.process.poll() is None


@pytest.mark.parametrize("address", ["0.0.0.0", "::", "::ffff:127.0.0.1"])
def test_wider_listeners_take_the_port_too(host: Host, tool: str, address: str) -> None:
    one = host.listener(address=address)
    found = host.holder(one)
    assert (found.address, found.pid) == (address, one.pid)


@pytest.mark.parametrize("address", ["::1", "127.0.0.2"])
def test_listeners_beside_loopback_leave_the_port_free(host: Host, tool: str, address: str) -> None:
    one = host.listener(address=address)
    assert ports.who(host.shell, [one.port]) == []


def test_the_master_of_a_shared_socket_is_found_not_its_worker(host: Host, tool: str) -> None:
    one = host.listener("worker")
    assert host.holder(one).pid == one.pid


def test_all_and_none(host: Host) -> None:
    mine, other = host.listener(), host.listener(root=True)
    found = {holder.port: holder for holder in ports.who(host.shell)}
    assert found[mine.port].ours
    assert not found[other.port].ours
    assert ports.who(host.shell, []) == []


def test_a_hanging_lsof_costs_its_time_only(host: Host) -> None:
    folder = host.account.home / "bin"
    host.shell.env["PATH"] = bare_path(folder, "lsof")
    (folder / "lsof").write_text("#!/bin/sh\nexec sleep 600\n")
    (folder / "lsof").chmod(0o755)
    one = host.listener()
    began = time.monotonic()
    assert host.holder(one).pid == one.pid
    assert time.monotonic() - began < 15


def test_an_lsof_without_output_is_not_believed(host: Host) -> None:
    folder = host.account.home / "bin"
    host.shell.env["PATH"] = bare_path(folder, "lsof")
    (folder / "lsof").write_text("#!/bin/sh\nexit 1\n")
    (folder / "lsof").chmod(0o755)
    one = host.listener()
    assert host.holder(one).pid == one.pid


# --- ending -------------------------------------------------------------------------------------------------------


def test_own_process_ends(host: Host, tool: str) -> None:
    one = host.listener()
    assert ports.stop_process(host.shell, host.holder(one)) is True
    assert one.process.wait(10) == -signal.SIGTERM
    assert ports.who(host.shell, [one.port]) == []


def test_a_stubborn_process_is_killed_only_by_force(host: Host) -> None:
    one = host.listener("stubborn")
    holder = host.holder(one)
    assert ports.stop_process(host.shell, holder, grace=1) is False
    assert one.process.poll() is None
    assert ports.stop_process(host.shell, holder, force=True, grace=1) is True
    assert one.process.wait(10) == -signal.SIGKILL


def test_a_process_that_closed_its_socket_and_hangs_is_killed_by_force(host: Host) -> None:
    one = host.listener("hangs after close")
    assert ports.stop_process(host.shell, host.holder(one), force=True, grace=1) is True
    assert one.process.wait(10) == -signal.SIGKILL


def test_a_stopped_process_ends(host: Host) -> None:
    one = host.listener()
    holder = host.holder(one)
    os.kill(one.pid, signal.SIGSTOP)
    assert ports.stop_process(host.shell, holder) is True
    assert one.process.wait(10) == -signal.SIGTERM


def test_a_process_that_does_not_exist_counts_as_ended(host: Host) -> None:
    one = host.listener()
    holder = host.holder(one)
    one.process.kill()
    one.process.wait(10)
    assert ports.stop_process(host.shell, holder) is True


@pytest.mark.parametrize("change", [{"start_ticks": 1}, {"boot_id": "another"}, {"port": 1}], ids=str)
def test_another_process_of_the_same_pid_is_left_alone(host: Host, change: dict[str, Any]) -> None:
    one = host.listener()
    holder = msgspec.structs.replace(host.holder(one), **change)
    with pytest.raises(errors.NotOurs):
        ports.stop_process(host.shell, holder, force=True)
    assert one.process.poll() is None


def test_a_process_that_no_longer_listens_is_left_alone(host: Host) -> None:
    one = host.listener("closes")
    holder = host.holder(one)
    assert one.process.stdin is not None
    assert one.process.stdout is not None
    one.process.stdin.write("\n")
    one.process.stdin.flush()
    assert one.process.stdout.readline() == "closed\n"
    with pytest.raises(errors.NotOurs):
        ports.stop_process(host.shell, holder, force=True)
    assert one.process.poll() is None


def test_even_root_ends_only_its_own(host: Host) -> None:
    one = host.listener()
    (seen,) = ports.who(LocalShell(), [one.port])
    assert (seen.pid, seen.user, seen.ours) == (one.pid, host.account.name, False)
    with pytest.raises(errors.NotOurs):
        ports.stop_process(LocalShell(), seen, force=True)
    # Nor where what was seen is a lie: the host looks again.
    with pytest.raises(errors.NotOurs):
        ports.stop_process(LocalShell(), msgspec.structs.replace(seen, ours=True), force=True)
    assert one.process.poll() is None
