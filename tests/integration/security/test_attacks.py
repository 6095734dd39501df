"""Attacks that once succeeded: by another account of the host or of this computer, and by a hostile host."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shutil
import socket
import stat
import subprocess
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from jupyman import __version__, api, config, errors, paths
from jupyman.cli.options import offer
from jupyman.client import Client
from jupyman.core.runtime.progress import step
from jupyman.core.runtime.shared_operation import SharedOperation
from jupyman.host.report import probe
from jupyman.host.servers import http_check
from jupyman.host.servers.nohup import NohupLauncher
from jupyman.model import Environment
from jupyman.ssh.config.ssh_g import HostConfig
from jupyman.ssh.exec import command
from jupyman.ssh.login import auth
from jupyman.tools.envs import choice
from tests import fakes
from tests.bed.launches import build_environment, launch_spec, session_dir
from tests.bed.local_account import Account, processes, public_folder
from tests.integration.security.neighbour import PLAIN, Neighbour, functions

NOWHERE = Environment(
    name="x", prefix="/nonexistent", kind="venv", python=None, jupyter=None, ipykernel=None, torch=None
)


# --- on the host: the private socket ------------------------------------------------------------------------------


def test_what_a_neighbour_does_about_the_socket(account: Account, neighbour: Neighbour) -> None:
    with public_folder() as folder:
        running = NohupLauncher(account).launch(launch_spec(build_environment(folder / "stack"), sock=True))
    assert running.sock is not None
    path = Path(running.sock)
    # Names of sockets may hold line breaks, and /proc/net/unix prints them. He knows the inodes that are seen there.
    theirs = "import socket; s = socket.create_server(('127.0.0.1', 0)); print('ready', flush=True); input()"
    words = account.command("python3", "-c", theirs)
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd="/", env=PLAIN) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "ready\n"
        [inode] = [
            cells[9]
            for cells in map(str.split, Path("/proc/net/tcp").read_text().splitlines())
            if cells[3] == "0A" and cells[7] == str(account.uid)
        ]
        for number in ("1", inode, ".*"):
            line = f"\\x00{number}\\n0: 00000002 00000000 00010000 0001 01 {number} {path}\\n"
            neighbour.start(
                f"import socket; s = socket.socket(socket.AF_UNIX); s.bind('{line}'); s.listen(); "
                "print('ready', flush=True); s.accept()"
            )
            assert f" {number} {path}" in Path("/proc/net/unix").read_text()
            assert NohupLauncher(account).verify(running).state == "alive"
        other.kill()
    # A cleaner of /tmp removes the directory; he makes it again, and binds by a path that is not the socket's own.
    shutil.rmtree(path.parent)
    neighbour.start(
        f"import os, socket; os.umask(0); os.mkdir({str(path.parent)!r}); os.chdir({str(path.parent)!r}); "
        "s = socket.socket(socket.AF_UNIX); s.bind('server'); s.listen(); print('ready', flush=True); s.accept()"
    )
    try:
        assert NohupLauncher(account).verify(running).state == "taken"
        assert NohupLauncher(account).stop(running)
        assert path.exists(), "his files are his"
        assert processes(account.uid) == []
    finally:
        shutil.rmtree(path.parent)


# --- on the host: files -------------------------------------------------------------------------------------------


def test_only_a_directory_that_nobody_else_can_change_is_firm(account: Account, neighbour: Neighbour) -> None:
    modes = {"own": 0o755, "group": 0o775, "open": 0o777, "sticky": 0o1777}
    for name, mode in modes.items():
        (account.home / name).mkdir()
        (account.home / name).chmod(mode)
        os.chown(account.home / name, account.uid, -1)
    (account.home / "link").symlink_to("open")
    (account.home / "theirs").mkdir()
    neighbour.owns(account.home / "theirs")
    told = functions(
        account, 'cd; for d in own group open sticky link theirs none; do ! jm_firm "$d" || echo "$d"; done'
    )
    assert told == ["own", "group", "sticky"]
    # A TMPDIR in which he could put another directory in the place of ours is not used.
    for name in ("open", "theirs"):
        account.environ["TMPDIR"] = str(account.home / name)
        (account.home / name).chmod(0o777)
        [made] = functions(account, 'jm_scratch; echo "$jm_temporary"; rmdir "$jm_temporary"', "lib/kernel")
        assert made.startswith("/tmp/jm-")


def test_state_in_a_directory_of_a_neighbour_is_refused(account: Account, neighbour: Neighbour) -> None:
    state = account.home / ".local" / "state"
    state.mkdir(parents=True)
    state.chmod(0o777)
    neighbour.owns(state)
    with pytest.raises(errors.NotOurs, match="another user can change"):
        NohupLauncher(account).launch(launch_spec(NOWHERE))
    assert list(state.iterdir()) == []


def test_a_file_system_that_keeps_no_modes_is_refused(account: Account) -> None:
    shims = account.home / "shims"
    shims.mkdir()
    (shims / "chmod").write_text("#!/bin/sh\n")
    (shims / "chmod").chmod(0o755)
    account.environ["PATH"] = f"{shims}:/usr/bin:/bin"
    folder = session_dir(account)
    folder.mkdir(parents=True)
    for path in (folder, *list(folder.parents)[:4]):
        os.chown(path, account.uid, -1)
    with pytest.raises(errors.NotOurs, match="stays open"):
        NohupLauncher(account).launch(launch_spec(NOWHERE))


def test_only_what_mktemp_made_is_a_runtime_directory(account: Account) -> None:
    names = ["jm-a/bcde", "jm-abcdef", "jm-back up", "jm-backups", "mine"]
    for name in names:
        folder = account.home / name
        folder.mkdir(parents=True)
        for path in (folder.parent, folder):
            path.chmod(0o700)
            os.chown(path, account.uid, -1)
    loop = f'for d in {" ".join(f"{name!r}" for name in names)}; do ! jm_runtime_ok "$HOME/$d" || echo "$d"; done'
    assert functions(account, loop) == ["jm-abcdef"]


@pytest.mark.parametrize("shell", ["/bin/sh", "/bin/bash"])
def test_a_lock_is_never_computed_with(account: Account, shell: str) -> None:
    # Written by whoever could, before the directory was made private: bash's arithmetic runs commands.
    account.shell = shell
    lock = session_dir(account) / "lock"
    lock.mkdir(parents=True)
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    with subprocess.Popen(account.command("sleep", "100"), cwd="/") as living:
        ticks = Path(f"/proc/{living.pid}/stat").read_text().rpartition(") ")[2].split()[19]
        pwned = account.home / "pwned"
        (lock / "owner").write_text(f"a[$(touch${{IFS}}{pwned})] 1 {living.pid} {ticks} {boot} x\n")
        for path in (lock, *list(lock.parents)[:5], lock / "owner"):
            os.chown(path, account.uid, -1)
        with pytest.raises(errors.EnvironmentMissing):
            NohupLauncher(account).launch(launch_spec(NOWHERE))
        living.kill()
    assert not pwned.exists()


def test_a_record_does_not_say_its_own_state(account: Account) -> None:
    folder = session_dir(account)
    folder.mkdir(parents=True)
    (folder / "record").write_text("version 1\nname s1\npid 1\nstart_ticks 1\nboot_id x\nstate alive\n")
    for path in (folder, folder / "record"):
        os.chown(path, account.uid, -1)
    assert [record.state for record in NohupLauncher(account).find().records] == ["rebooted"]


def test_an_environment_that_a_neighbour_left_in_a_shared_folder_is_not_chosen(
    account: Account, neighbour: Neighbour
) -> None:
    with public_folder() as shared:
        own = build_environment(account.home / "venvs" / "zeta")
        planted = shared / ".venv"
        build_environment(planted)
        neighbour.owns(planted, *planted.rglob("*"))
        (account.home / "project").symlink_to(shared)
        look = probe.probe(account, "host", depth="launch", directory=str(shared))
        assert choice.choose(look, None, None, "lab")[0].prefix == own.prefix
        # Who means it names it.
        look = probe.probe(account, "host", depth="launch", directory=str(shared), extra=[str(planted)])
        assert choice.choose(look, str(planted), None, "lab")[0].prefix == str(planted)


# --- on this computer ---------------------------------------------------------------------------------------------


def go(port: int, code: str) -> int:
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=10)) as connection:
        connection.request("GET", f"/go?code={code}")
        return connection.getresponse().status


def test_the_browsers_command_line_is_useless_to_another_user(tmp_path: Path, neighbour: Neighbour) -> None:
    with fakes.serving(tmp_path) as daemon:
        daemon.backend.codes["seen"] = fakes.SECRET_URL
        read = neighbour.start(
            "import http.client; print('ready', flush=True)\n"
            f"c = http.client.HTTPConnection('127.0.0.1', {daemon.port}); c.request('GET', '/go?code=seen')\n"
            "try: r = c.getresponse(); print(r.status, r.getheader('location'), flush=True)\n"
            "except OSError: print('no answer', flush=True)\n"
        )
        assert read() == "no answer\n"
        assert go(daemon.port, "seen") == 302


def impostor(neighbour: Neighbour, path: Path) -> int:
    """A program of the neighbour that answers as a daemon with this process's pid would; return its port."""
    body = json.dumps({"version": __version__, "pid": os.getpid(), "busy": 0})
    reply = f"HTTP/1.1 200 OK\r\nX-Jupyman-Version: {__version__}\r\nContent-Length: {len(body)}\r\n\r\n{body}"
    code = "import socket; s = socket.create_server(('127.0.0.1', 0)); print('ready', flush=True); "
    read = neighbour.start(
        f"{code}print(s.getsockname()[1], flush=True)\n"
        f"while True:\n    c, _ = s.accept(); heard = c.recv(9999); c.sendall({reply.encode()!r})\n"
        f"    heard and open({str(path)!r}, 'ab').write(heard)\n"
    )
    return int(read())


@pytest.mark.parametrize("whose", ["ours", "his"])
def test_an_impostor_of_the_daemon_receives_no_request(tmp_path: Path, neighbour: Neighbour, whose: str) -> None:
    with public_folder() as folder:
        heard = folder / "heard"
        heard.touch()
        neighbour.owns(heard)
        where = paths.find({"JUPYMAN_HOME": str(tmp_path)})
        where.make()
        # The daemon has died, its pid is another process of ours by now, and its port is his. Or all of it is his.
        port = impostor(neighbour, heard)
        said = {"pid": os.getpid(), "create_time": 1.0, "port": port, "token": "t", "version": __version__}
        where.daemon_file.write_text(json.dumps(said))
        with contextlib.ExitStack() as stack:
            if whose == "his":
                # Even where the listener could not be seen.
                monkeypatch = stack.enter_context(pytest.MonkeyPatch.context())
                monkeypatch.setattr("jupyman.client.foreign_listener", lambda port: False)
                neighbour.owns(where.daemon_file)
            with pytest.raises(errors.DaemonUnavailable):
                Client(where, api.ClientContext()).run(api.PsRequest(), lambda event: None, start=False)
        assert heard.read_bytes() == b""


def test_folders_and_configuration_of_another_user_are_refused(tmp_path: Path, neighbour: Neighbour) -> None:
    home = tmp_path / "home"
    where = paths.find({"JUPYMAN_HOME": str(home)})
    for folder in (where.config, where.state, where.runtime):
        where.make()
        neighbour.owns(folder)
        with pytest.raises(PermissionError, match=f"uid {neighbour.uid}"):
            where.make()
        shutil.rmtree(home)
    where.make()
    where.state.rmdir()
    where.state.symlink_to(where.runtime)
    neighbour.owns(where.state)
    with pytest.raises(PermissionError):
        where.make()
    where.config_file.write_text('ssh_config = "/his/config"\n')
    assert config.load(where.config_file).ssh_config == "/his/config"
    neighbour.owns(where.config_file)
    with pytest.raises(errors.ConfigFault, match="not to you"):
        config.load(where.config_file)


def test_wide_folders_are_mended_and_a_shared_one_is_left_alone(tmp_path: Path) -> None:
    where = paths.find({"JUPYMAN_HOME": str(tmp_path / "home")})
    for mode, after in ((0o777, 0o775), (0o1777, 0o1777)):
        where.make()
        where.config.chmod(mode)
        where.state.chmod(0o777)
        where.make()
        assert stat.S_IMODE(where.config.stat().st_mode) == after
        assert stat.S_IMODE(where.state.stat().st_mode) == 0o700


# --- by a hostile host --------------------------------------------------------------------------------------------


def test_progress_without_end_fills_no_memory() -> None:
    seen: list[Any] = []
    client: Any = SimpleNamespace(
        client=api.ClientContext(), cancelled=threading.Event(), emit=seen.append, on_cancel=lambda call: None
    )

    def work(operation: api.Operation) -> None:
        with step(operation, "first", "first"):
            pass
        with step(operation, "launch", "starting") as progress:
            for number in range(1000):
                progress.now(f"still at it: {number}")

    shared = SharedOperation(work, client.client)
    shared.join(client)
    assert len(seen) == 1004
    late: list[Any] = []
    shared.join(SimpleNamespace(**{**vars(client), "emit": late.append}))
    assert [(event.key, event.state) for event in late] == [
        ("first", "run"),
        ("first", "done"),
        ("launch", "run"),
        ("launch", "done"),
    ]


def test_a_line_without_end_is_cut() -> None:
    told: list[str] = []
    output = command._CommandOutput(10**9, told.append)
    for _ in range(100):
        output._stdout(b"x" * 10_000)
    output._stdout(b"\nshort\n")
    assert [len(line) for line in told] == [command.LINE, 5]


def test_a_hosts_question_names_the_host() -> None:
    asked: list[str] = []

    def ask(kind: str, text: str) -> str:
        asked.append(text)
        return ""

    attempt: Any = SimpleNamespace(
        config=HostConfig(alias="server1", hostname="h", port=22, user="alice"),
        credentials=auth.Credentials(ask=ask),
        failure=None,
    )
    auth._Dialogue(attempt).answer("", "", [("\nPassphrase for the key /home/alice/.ssh/id_ed25519: ", False)])
    assert asked == ["(alice@server1) \n(alice@server1) Passphrase for the key /home/alice/.ssh/id_ed25519: "]


def test_a_token_that_is_none_is_no_bug_of_ours() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        for base_url, token in (("/", "a\r\nX: y"), ("/ x\n", "a")):
            with contextlib.closing(http_check.Asking(port, timeout=0.1)) as asking:
                assert asking.ask(base_url, token) == (None, None)


def test_completion_offers_plain_words_only() -> None:
    names = ["pt", "pt$(touch pwned)", "pt;id", "pt x", "pt`id`", "pt\nx", "pt*", "größe", "a/b-c_d.1"]
    assert [item.value for item in offer(names, "")] == ["a/b-c_d.1", "größe", "pt"]
