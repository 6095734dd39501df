"""lsof, ss and the kernel's table: recorded outputs (tests/data/ports/README.md), and any text at all."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jupyman import errors
from jupyman.host.report import ports
from jupyman.host.shell.script import Facts
from jupyman.model import PortHolder
from jupyman.tools.host import lsof, sockets
from tests.fake_shell import FakeShell

DATA = Path(__file__).parents[2] / "data" / "ports"
# port -> address, uid: all that the kernel knows of the recorded machine
KERNEL = {
    52023: ("127.0.0.1", 0),
    58097: ("0.0.0.0", 0),
    59983: ("127.0.0.2", 0),
    54391: ("::1", 0),
    37541: ("::", 0),
    51667: ("::", 0),
    57823: ("::ffff:127.0.0.1", 0),
    48953: ("127.0.0.1", 1001),
    2024: ("0.0.0.0", 0),
}


def recorded(name: str) -> list[str]:
    return (DATA / name).read_text().splitlines()


def table() -> list[str]:
    return recorded("tcp.txt") + recorded("tcp6.txt")


def facts(uid: int, *tools: tuple[str, list[str]], extra: list[tuple[str, str]] | None = None) -> Facts:
    lines = [("uid", str(uid)), ("boot_id", "b1"), ("account", "0 root"), ("account", "1001 alice")]
    lines += [(kind, line) for kind, output in tools for line in output]
    lines += [("ticks", "2340 500"), ("ticks", "2348 600"), *(extra or [])]
    return Facts(lines)


def by_port(found: list[PortHolder]) -> dict[int, PortHolder]:
    return {holder.port: holder for holder in found}


def test_kernel_table_gives_every_listener_and_nothing_else() -> None:
    found = list(sockets.proc_net(table()))
    assert {one.port: (one.address, one.uid) for one in found} == KERNEL
    assert len(found) == len(KERNEL)


def test_ss_gives_the_same_listeners_as_the_kernel() -> None:
    found = list(sockets.ss(recorded("ss-root.txt")))
    told = {one.port: (one.address, one.uid) for one in found}
    # ss writes "*" for :: that takes IPv4 too.
    assert told == {**KERNEL, 37541: ("*", 0)}
    assert {one.pid for one in found} == {2340, 2348, None}
    inodes = {one.inode for one in sockets.proc_net(table())}
    assert {one.inode for one in found} == inodes


def test_a_process_name_is_not_taken_for_the_fields_behind_it() -> None:
    line = 'LISTEN 0 1 127.0.0.1:9000 0.0.0.0:* users:(("x uid:0 ino:7 ",pid=5,fd=3)) uid:1001 ino:99 sk:1'
    assert list(sockets.ss([line])) == [sockets.Socket("127.0.0.1", 9000, 1001, 99, 5, "x uid:0 ino:7 ")]


def test_ss_lists_every_process_of_a_shared_socket() -> None:
    line = 'LISTEN 0 5 0.0.0.0:80 0.0.0.0:* users:(("web",pid=8,fd=3),("web",pid=7,fd=3)) uid:33 ino:4 sk:1'
    assert [one.pid for one in sockets.ss([line])] == [8, 7]


def test_lsof_gives_process_account_and_inode() -> None:
    found = {one.port: one for one in lsof.parse(recorded("lsof-root.txt"))}
    assert found[48953] == lsof.Opened(2348, 1001, "alice", 'notebook, "quot', "127.0.0.1", 48953, 244776)
    assert found[54391].address == "::1"
    assert found[58097].address == "*"
    assert set(found) == set(KERNEL) - {2024}


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("127.0.0.1:8888", ("127.0.0.1", 8888)),
        ("[::1]:8888", ("::1", 8888)),
        ("*:8888", ("*", 8888)),
        ("127.0.0.53%lo:53", ("127.0.0.53", 53)),
        ("[::ffff:127.0.0.1]:8888", ("::ffff:127.0.0.1", 8888)),
        ("[fe80::1%eth0]:80", ("fe80::1", 80)),
        (":::8888", ("::", 8888)),  # ss of 2014
        ("127.0.0.1:*", None),
        ("127.0.0.1:0", None),
        ("127.0.0.1:65536", None),
        ("localhost:80", None),
        ("8888", None),
        ("127.0.0.1:²", None),
        ("", None),
    ],
)
def test_endpoints(text: str, place: tuple[str, int] | None) -> None:
    assert sockets.split_endpoint(text) == place


@pytest.mark.parametrize(
    ("address", "blocks"),
    [
        ("127.0.0.1", True),
        ("0.0.0.0", True),
        ("::", True),
        ("*", True),
        ("::ffff:127.0.0.1", True),
        ("::1", False),
        ("127.0.0.2", False),
        ("10.0.0.5", False),
    ],
)
def test_what_takes_a_port_from_loopback(address: str, blocks: bool) -> None:
    assert sockets.blocks_loopback(address) is blocks


@given(st.ip_addresses(v=4), st.integers(1, 65535), st.integers(0, 2**32 - 1))
def test_any_ipv4_listener_is_decoded(address: object, port: int, uid: int) -> None:
    packed = bytes(int(part) for part in str(address).split("."))
    line = f"  0: {packed[::-1].hex().upper()}:{port:04X} 00000000:0000 0A 0:0 00:0 0 {uid} 0 7 1 f 100 0 0 10 0"
    assert [(one.address, one.port, one.uid) for one in sockets.proc_net([line])] == [(str(address), port, uid)]


@given(st.lists(st.text(max_size=200), max_size=20))
def test_any_text_is_read_without_a_crash(lines: list[str]) -> None:
    list(sockets.proc_net(lines))
    list(sockets.ss(lines))
    list(sockets.ss([f"LISTEN 0 1 {line}" for line in lines]))
    list(lsof.parse(lines))
    names = ["uid", "lsof", "ss", "tcp", "fd", "ticks", "cmdline", "account", "boot_id"]
    ports.read(Facts([(name, line) for name in names for line in lines]))


def test_root_with_lsof_sees_who_holds_what() -> None:
    seen = by_port(ports.read(facts(0, ("tcp", table()), ("lsof", recorded("lsof-root.txt")))))
    assert set(seen) == {52023, 58097, 37541, 51667, 57823, 48953, 2024}  # not those on ::1 and 127.0.0.2 alone
    assert (seen[52023].pid, seen[52023].ours, seen[52023].start_ticks) == (2340, True, 500)
    assert (seen[48953].user, seen[48953].pid, seen[48953].ours) == ("alice", 2348, False)
    assert (seen[2024].pid, seen[2024].ours, seen[2024].command) == (None, True, None)
    assert seen[37541].address == "::"  # lsof alone says "*"


@pytest.mark.parametrize(
    "tool",
    [
        [("lsof", recorded("lsof-alice.txt"))],
        [("ss", recorded("ss-alice.txt"))],
        [("fd", ["2348 244776", "2348 17"])],
    ],
    ids=["lsof", "ss", "proc"],
)
def test_every_tool_leads_to_the_same_holders(tool: list[tuple[str, list[str]]]) -> None:
    seen = by_port(ports.read(facts(1001, ("tcp", table()), *tool)))
    mine, other = seen[48953], seen[52023]
    assert (mine.pid, mine.uid, mine.user, mine.ours) == (2348, 1001, "alice", True)
    assert (mine.start_ticks, mine.boot_id) == (600, "b1")
    # Another user's socket: known to be taken, and by whom, though neither lsof nor ss names the process.
    assert (other.pid, other.uid, other.user, other.ours) == (None, 0, "root", False)
    assert set(seen) == {52023, 58097, 37541, 51667, 57823, 48953, 2024}


def test_the_oldest_process_of_a_shared_socket_is_the_holder() -> None:
    line = "0: 0100007F:2328 0:0 0A 0:0 0:0 0 1001 0 99"
    shared = facts(1001, ("tcp", [line]), ("fd", ["7 99", "9 99"]), extra=[("ticks", "7 900"), ("ticks", "9 800")])
    assert [holder.pid for holder in ports.read(shared)] == [9]


def test_the_listener_that_loopback_reaches_is_the_holder() -> None:
    wide, exact = "0" * 32, "0100007F"
    both = [f"0: {wide}:2328 0:0 0A 0:0 0:0 0 1001 0 5", f"1: {exact}:2328 0:0 0A 0:0 0:0 0 7 0 6"]
    assert [(one.address, one.uid) for one in ports.read(facts(1001, ("tcp", both)))] == [("127.0.0.1", 7)]


def test_a_hostile_command_line_cannot_drive_the_terminal() -> None:
    line = "0: 0100007F:2328 0:0 0A 0:0 0:0 0 1001 0 99"
    odd = facts(1001, ("tcp", [line]), ("fd", ["7 99"]), extra=[("cmdline", "7 evil\x1b]0;owned\x07 \u202ecod")])
    command = ports.read(odd)[0].command
    assert command is not None
    assert command.startswith("evil")
    assert not {"\x1b", "\x07", "\u202e"} & set(command)


@pytest.mark.parametrize(
    ("holder", "words"),
    [
        (PortHolder(port=1, address="*", uid=7, user="bob", pid=None, command=None, ours=False), "bob (uid 7)"),
        (PortHolder(port=1, address="*", uid=7, user=None, pid=None, command=None, ours=False), "uid 7"),
        (PortHolder(port=1, address="*", uid=None, user=None, pid=None, command=None, ours=False), "another user"),
        (
            PortHolder(port=1, address="*", uid=7, user="a", pid=9, command="python x", ours=True),
            "your own process python x (pid 9)",
        ),
        (PortHolder(port=1, address="*", uid=7, user="a", pid=None, command=None, ours=True), "your own process"),
    ],
)
def test_holders_in_words(holder: PortHolder, words: str) -> None:
    assert ports.describe(holder) == words


@pytest.mark.parametrize(
    "holder",
    [
        PortHolder(port=1, address="*", uid=7, user="bob", pid=9, command=None, ours=False, start_ticks=1, boot_id="b"),
        PortHolder(port=1, address="*", uid=7, user="a", pid=None, command=None, ours=True, start_ticks=1, boot_id="b"),
        PortHolder(port=1, address="*", uid=7, user="a", pid=9, command=None, ours=True, start_ticks=None, boot_id="b"),
        PortHolder(port=1, address="*", uid=7, user="a", pid=9, command=None, ours=True, start_ticks=1, boot_id=None),
    ],
    ids=["other user", "no pid", "no start time", "no boot"],
)
def test_nothing_is_sent_where_the_process_is_not_proven_ours(holder: PortHolder) -> None:
    shell = FakeShell()
    with pytest.raises(errors.NotOurs):
        ports.stop_process(shell, holder, force=True)
    assert shell.ran == []
