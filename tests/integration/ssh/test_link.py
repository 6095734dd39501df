"""The link to a real sshd: commands, uploads, its end, its cost."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from jupyman import errors
from jupyman.errors import TargetRefused
from jupyman.ssh.link import Link
from tests.bed.sshd import Sshd, private_sshd


def test_a_script_runs_and_leaves_its_output_and_status(link: Link) -> None:
    done = link.run("printf 'a b\\n'; echo oops >&2; exit 7\n", timeout=10)
    assert (done.stdout, done.stderr, done.status) == (b"a b\n", b"oops\n", 7)


def test_a_killed_script_has_no_status(link: Link) -> None:
    assert link.run("kill -9 $$\n", timeout=10).status is None


def test_both_streams_are_read_at_once_and_kept_up_to_the_limit(link: Link) -> None:
    script = "head -c 5000000 /dev/zero | tr '\\0' x >&2; head -c 5000000 /dev/zero | tr '\\0' y\n"
    done = link.run(script, timeout=30, limit=1000)
    assert (done.stdout, done.stderr, done.status) == (b"y" * 1000, b"x" * 1000, 0)


def test_a_large_script_arrives_whole(link: Link) -> None:
    text = "x" * 3_000_000  # more than sshd's window
    done = link.run(f"{{\ncat <<'END' | wc -c\n{text}\nEND\n}}\n", timeout=30)
    assert done.stdout.strip() == b"3000001"


def test_lines_come_as_they_are_written(link: Link) -> None:
    lines: list[str] = []
    first = threading.Event()

    def on_line(line: str) -> None:
        lines.append(line)
        first.set()

    with ThreadPoolExecutor(1) as pool:
        script = 'echo one; i=0; while [ ! -e "$F" ] && [ $i -lt 100 ]; do sleep 0.1; i=$((i+1)); done; echo two\n'
        flag = f"/tmp/jupyman-test-{os.getpid()}-{time.monotonic_ns()}"
        running = pool.submit(link.run, f"F={flag}\n{script}", timeout=20, on_line=on_line)
        try:
            assert first.wait(5)
            assert not running.done()
            Path(flag).touch()
            assert running.result(10).status == 0
        finally:
            Path(flag).unlink(missing_ok=True)
    assert lines == ["one", "two"]


def test_output_that_comes_after_the_exit_status_is_kept(link: Link) -> None:
    done = link.run("( sleep 1; echo late ) &\nexit 3\n", timeout=10)
    assert (done.stdout, done.status) == (b"late\n", 3)


def test_a_process_left_behind_does_not_hold_the_answer(link: Link) -> None:
    start = time.monotonic()
    done = link.run("sleep 20 &\necho $!\n", timeout=15)
    assert done.status == 0
    assert time.monotonic() - start < 5
    os.kill(int(done.stdout), signal.SIGKILL)


def test_a_script_that_takes_too_long_is_given_up(link: Link) -> None:
    start = time.monotonic()
    with pytest.raises(errors.RemoteFailed):
        link.run("exec sleep 20\n", timeout=0.5)
    assert time.monotonic() - start < 2
    assert link.run("echo on\n", timeout=10).stdout == b"on\n"


def test_a_command_can_be_cancelled(link: Link) -> None:
    cancelled = threading.Event()
    started = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(
            link.run, "echo go; exec sleep 20\n", timeout=15, on_line=lambda _: started.set(), cancelled=cancelled
        )
        assert started.wait(5)
        cancelled.set()
        with pytest.raises(errors.Interrupted):
            running.result(3)


def test_many_commands_at_once_all_finish(link: Link) -> None:
    with ThreadPoolExecutor(20) as pool:
        results = list(pool.map(lambda n: link.run(f"echo {n}\n", timeout=30).stdout, range(20)))
    assert results == [f"{n}\n".encode() for n in range(20)]


def test_a_server_with_one_session_serves_them_one_by_one(tmp_path: Path) -> None:
    with private_sshd(tmp_path / "bed", "MaxSessions 1") as sshd:
        link = sshd.open()
        try:
            with ThreadPoolExecutor(6) as pool:
                results = list(pool.map(lambda n: link.run(f"echo {n}\n", timeout=30).stdout, range(6)))
            assert results == [f"{n}\n".encode() for n in range(6)]
        finally:
            link.close()


def test_a_server_without_sessions_is_named_soon(tmp_path: Path) -> None:
    with private_sshd(tmp_path / "bed", "MaxSessions 0") as sshd:
        link = sshd.open()
        start = time.monotonic()
        with pytest.raises(errors.RemoteFailed, match="starts no session"):
            link.run("echo never\n", timeout=30)
        assert time.monotonic() - start < 8
        link.close()


def test_a_command_survives_new_keys(tmp_path: Path) -> None:
    with private_sshd(tmp_path / "bed", "RekeyLimit 1M") as sshd:
        link = sshd.open()
        done = link.run("head -c 6000000 /dev/zero\n", timeout=30, limit=10_000_000)
        assert (len(done.stdout), done.status) == (6_000_000, 0)
        assert link.heartbeat(3) < 3
        link.close()


# --- its end -----------------------------------------------------------------------------------------------------


def waiter(link: Link) -> tuple[threading.Event, list[str]]:
    lost, reasons = threading.Event(), []

    def on_lost(reason: str) -> None:
        reasons.append(reason)
        lost.set()

    link.on_lost(on_lost)
    return lost, reasons


def test_a_heartbeat_is_answered(link: Link) -> None:
    assert 0 < link.heartbeat(3) < 3
    with ThreadPoolExecutor(4) as pool:  # they do not take each other's answers
        assert all(seconds < 3 for seconds in pool.map(lambda _: link.heartbeat(3), range(20)))


def test_a_killed_sshd_is_noticed_at_once(sshd: Sshd) -> None:
    link = sshd.open()
    lost, reasons = waiter(link)
    with ThreadPoolExecutor(1) as pool:
        started = threading.Event()
        running = pool.submit(link.run, "echo go; exec sleep 20\n", timeout=15, on_line=lambda _: started.set())
        assert started.wait(5)
        start = time.monotonic()
        sshd.signal_children(signal.SIGKILL)
        assert lost.wait(1)
        assert time.monotonic() - start < 1
        with pytest.raises(errors.LinkLost):
            running.result(2)
    assert len(reasons) == 1
    assert not link.alive
    with pytest.raises(errors.LinkLost):
        link.run("echo never\n", timeout=5)
    start = time.monotonic()
    with pytest.raises(errors.LinkLost):
        link.heartbeat(3)
    with pytest.raises(errors.LinkLost):
        link.open_channel(("127.0.0.1", 1))
    assert time.monotonic() - start < 0.5
    link.close()


def test_a_pending_heartbeat_ends_with_the_link(sshd: Sshd) -> None:
    link = sshd.open()
    sshd.signal_children(signal.SIGSTOP)
    with ThreadPoolExecutor(1) as pool:
        beating = pool.submit(link.heartbeat, 20)
        sshd.signal_children(signal.SIGKILL)
        start = time.monotonic()
        with pytest.raises(errors.LinkLost):
            beating.result(5)
        assert time.monotonic() - start < 1
    link.close()


def test_a_stopped_sshd_is_noticed_by_the_heartbeats_deadline(sshd: Sshd) -> None:
    link = sshd.open()
    lost, reasons = waiter(link)
    sshd.signal_children(signal.SIGSTOP)
    try:
        start = time.monotonic()
        with pytest.raises(errors.LinkLost, match="no answer in 1 s"):
            link.heartbeat(1.0)
        assert 0.9 < time.monotonic() - start < 1.5
        start = time.monotonic()
        link.close()
        assert lost.wait(1)
        assert time.monotonic() - start < 1
        assert reasons == ["closed"]
    finally:
        sshd.signal_children(signal.SIGCONT)


def test_close_is_reported_once_also_to_late_listeners_and_from_the_callback(sshd: Sshd) -> None:
    link = sshd.open()
    lost, reasons = waiter(link)
    start = time.monotonic()
    link.close()
    assert lost.wait(1)
    assert time.monotonic() - start < 1
    late = threading.Event()

    def closes(_: str) -> None:
        link.close()
        late.set()

    link.on_lost(closes)
    assert late.wait(1)
    assert reasons == ["closed"]


# --- streams ------------------------------------------------------------------------------------------------------


def test_a_target_without_a_listener_is_distinguished_from_a_refusal(
    link: Link, tmp_path: Path, unused_port: Callable[[], int]
) -> None:
    with pytest.raises(TargetRefused) as caught:
        link.open_channel(("127.0.0.1", unused_port()))
    assert caught.value.status == 14
    with pytest.raises(TargetRefused):
        link.open_channel(str(tmp_path / "no-socket"))
    with private_sshd(tmp_path / "bed", "AllowTcpForwarding no", "AllowStreamLocalForwarding no") as strict:
        forbidden = strict.open()
        with pytest.raises(errors.ForwardingRefused, match="does not allow") as refusal:
            forbidden.open_channel(("127.0.0.1", 22))
        assert not isinstance(refusal.value, TargetRefused)
        with pytest.raises(TargetRefused, match="AllowStreamLocalForwarding"):  # sshd gives one code for both
            forbidden.open_channel(str(tmp_path / "socket"))
        assert forbidden.run("echo on\n", timeout=10).stdout == b"on\n"
        forbidden.close()


def test_refusals_at_once_do_not_mix(link: Link, unused_port: Callable[[], int]) -> None:
    port = unused_port()

    def one(number: int) -> str:
        if number % 2:
            return link.run(f"echo {number}\n", timeout=20).stdout.decode()
        try:
            link.open_channel(("127.0.0.1", port))
        except TargetRefused:
            return "refused"
        return "opened"

    with ThreadPoolExecutor(16) as pool:
        results = list(pool.map(one, range(40)))
    assert results == [f"{n}\n" if n % 2 else "refused" for n in range(40)]


def test_the_connection_is_made_for_speed(link: Link) -> None:
    sock = link.transport.sock
    assert isinstance(sock, socket.socket)
    assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) != 0
    cipher: Any = link.transport  # paramiko's stubs leave it out
    assert cipher.remote_cipher == "aes128-gcm@openssh.com"
    assert link.transport.local_compression == "none"


def test_settings_of_fabric_are_not_ours(sshd: Sshd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".fabric.yaml").write_text("gateway: nowhere.invalid\nuser: nobody\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    with contextlib.closing(sshd.open()) as link:
        assert link.run("echo on\n", timeout=10).stdout == b"on\n"


# --- its price ----------------------------------------------------------------------------------------------------


def test_idle_links_cost_next_to_nothing(sshd: Sshd) -> None:
    links = [sshd.open() for _ in range(10)]
    try:
        before = time.process_time()
        threading.Event().wait(3)  # the measured time itself
        spent = time.process_time() - before
    finally:
        for link in links:
            link.close()
    # paramiko's own polling would be 10 wake-ups a second each, about 1 % of a core for ten.
    assert spent / 3 < 0.005, f"{spent / 3:.2%} of a core"


def test_nothing_is_printed_and_no_thread_is_left(
    sshd: Sshd, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    before = set(threading.enumerate())
    link = sshd.open()
    link.run("echo hello\n", timeout=10)
    transport = link.transport
    link.close()
    transport.join(2)
    for thread in set(threading.enumerate()) - before:
        thread.join(2)
        assert not thread.is_alive(), thread
    output = capfd.readouterr()
    assert (output.out, output.err) == ("", "")


@pytest.fixture
def unused_port() -> Callable[[], int]:
    def find() -> int:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port: int = probe.getsockname()[1]
            return port

    return find
