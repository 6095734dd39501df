"""Session channels that are opened ahead, so that commands start sooner; a server that allows few serves all."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import asyncssh
import psutil
import pytest

from jupyman import errors
from jupyman.ssh.config import ssh_g as ssh_config
from jupyman.ssh.exec.session_pool import AHEAD, MAX_COMMANDS
from jupyman.ssh.link import Link
from jupyman.ssh.login.auth import Credentials, Keyring
from tests.bed.sshd import Sshd, private_sshd, public
from tests.bed.wait import wait_until


def ahead(link: Link) -> int:
    return len(link._sessions._ahead)


def programs(sshd: Sshd) -> list[str]:
    """What runs on the host, besides sshd itself."""
    found = []
    for process in sshd.children():
        with contextlib.suppress(psutil.NoSuchProcess):
            found.append(process.name())
    return [name for name in found if not name.startswith("sshd")]


def test_what_is_opened_ahead_has_no_process(sshd: Sshd, link: Link) -> None:
    wait_until(lambda: ahead(link) == AHEAD)
    wait_until(lambda: programs(sshd) == [])


def test_they_are_replaced_while_commands_run(link: Link) -> None:
    wait_until(lambda: ahead(link) == AHEAD)
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda n: link.run(f"echo {n}\n", timeout=30).stdout, range(16)))
    assert results == [f"{n}\n".encode() for n in range(16)]
    wait_until(lambda: ahead(link) == AHEAD)


def test_those_that_the_server_has_ended_are_passed_over(link: Link) -> None:
    wait_until(lambda: ahead(link) == AHEAD)
    for channel in list(link._sessions._ahead):
        channel.close()
    assert link.run("echo on\n", timeout=10).stdout == b"on\n"


@pytest.mark.parametrize("allowed", [1, 2, 3])
def test_a_server_that_allows_few(tmp_path: Path, allowed: int) -> None:
    with private_sshd(tmp_path / "bed", f"MaxSessions {allowed}") as sshd:
        link = sshd.open()
        try:
            with link.shell_ahead() as shell, ThreadPoolExecutor(5) as pool:
                # Whoever holds a shell must not make the others wait for it.
                results = list(pool.map(lambda n: link.run(f"echo {n}\n", timeout=30).stdout, range(5)))
                assert results == [f"{n}\n".encode() for n in range(5)]
                assert shell.run("echo last\n", timeout=30).stdout == b"last\n"
        finally:
            link.close()


def test_a_shell_ahead_serves_one_script_and_then_as_the_link_does(link: Link) -> None:
    wait_until(lambda: ahead(link) == AHEAD)
    with link.shell_ahead() as shell:
        assert shell._channel is not None
        first = shell.run("echo $$; read -r line || echo end\n", timeout=10)
        assert (first.stdout.splitlines()[1:], first.status) == ([b"end"], 0)
        assert shell.run("exit 7\n", timeout=10).status == 7


def test_an_unused_shell_that_was_started_ahead_ends(sshd: Sshd, link: Link) -> None:
    wait_until(lambda: ahead(link) == AHEAD)

    with link.shell_ahead():
        wait_until(lambda: programs(sshd) != [])
    wait_until(lambda: programs(sshd) == [])


def test_no_shell_is_started_ahead_while_all_sessions_are_taken(link: Link) -> None:
    wait_until(lambda: ahead(link) == AHEAD)
    release = threading.Event()
    started = threading.Semaphore(0)

    def busy(_: int) -> None:
        link.run("echo on; sleep 60\n", timeout=60, on_line=lambda line: started.release(), cancelled=release)

    with ThreadPoolExecutor(MAX_COMMANDS) as pool:
        running = [pool.submit(busy, number) for number in range(MAX_COMMANDS)]
        try:
            for _ in running:
                assert started.acquire(timeout=20)
            with link.shell_ahead() as shell:
                assert shell._channel is None
        finally:
            release.set()
        for one in running:
            assert isinstance(one.exception(), errors.Interrupted)
    assert link.run("echo on\n", timeout=10).stdout == b"on\n"


# --- a server that starts nothing -----------------------------------------------------------------------------------


class Mute(asyncssh.SSHServer):
    """Takes everybody, and starts no program: it has none."""

    def begin_auth(self, username: str) -> bool:
        return False


@pytest.fixture
def mute(sshd: Sshd, tmp_path: Path) -> Iterator[Path]:
    """An ssh_config that leads to such a server."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()

    async def serve() -> asyncssh.SSHAcceptor:
        return await asyncssh.listen("127.0.0.1", 0, server_factory=Mute, server_host_keys=[str(sshd.host_keys[0])])

    acceptor = asyncio.run_coroutine_threadsafe(serve(), loop).result(10)
    known = tmp_path / "known_hosts"
    known.write_text(f"[127.0.0.1]:{acceptor.get_port()} {public(sshd.host_keys[0])}\n")
    text = sshd.ssh_config.read_text().replace(f"Port {sshd.port}", f"Port {acceptor.get_port()}")
    config = tmp_path / "ssh_config"
    config.write_text(text.replace(str(sshd.known_hosts), str(known)))
    yield config
    loop.call_soon_threadsafe(acceptor.close)
    asyncio.run_coroutine_threadsafe(acceptor.wait_closed(), loop).result(10)
    loop.call_soon_threadsafe(loop.stop)
    thread.join(5)
    loop.close()


def test_a_server_that_starts_no_program(sshd: Sshd, mute: Path) -> None:
    link = Link.open(ssh_config.read(sshd.host, ssh_config=str(mute)), Credentials(), Keyring())
    with contextlib.closing(link), pytest.raises(errors.RemoteFailed, match="starts no"):
        link.run("echo never\n", timeout=30)


@pytest.mark.parametrize("few", [False, True])
def test_shells_that_are_held_for_later_leave_room_for_others(link: Link, few: bool) -> None:
    """Each of them waits for commands that other sessions run: an `up` that asks its user, perhaps for minutes."""
    wait_until(lambda: ahead(link) == AHEAD)
    link._sessions._few = few
    with contextlib.ExitStack() as stack:
        for _ in range(2 * MAX_COMMANDS):
            stack.enter_context(link.shell_ahead())
            if not few:
                wait_until(lambda: ahead(link) == AHEAD)
        assert link.run("echo on\n", timeout=10).stdout == b"on\n"
    with ThreadPoolExecutor(MAX_COMMANDS) as pool:
        assert len(list(pool.map(lambda _: link.run("echo on\n", timeout=10), range(MAX_COMMANDS)))) == MAX_COMMANDS


def test_it_is_busy_while_commands_run(link: Link) -> None:
    assert link.busy == 0.0
    ended = threading.Event()

    def follow() -> None:
        with pytest.raises(errors.Interrupted):
            link.run("exec sleep 60\n", timeout=70, cancelled=ended)

    following = threading.Thread(target=follow)
    following.start()
    wait_until(lambda: link.busy > 0.2)
    ended.set()
    following.join()
    assert link.busy == 0.0
