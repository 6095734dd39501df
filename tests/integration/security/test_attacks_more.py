"""Further attacks that once succeeded: by another account of the host, and by a hostile host."""

from __future__ import annotations

import contextlib
import logging
import os
import runpy
import shutil
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import paramiko
import pytest
from paramiko.common import AUTH_SUCCESSFUL, OPEN_SUCCEEDED

from jupyman import __version__, errors
from jupyman.daemon.log import RedactingFormatter
from jupyman.demo import flow
from jupyman.host.report import probe
from jupyman.host.servers import records
from jupyman.host.shell.script import Facts
from jupyman.ssh.channels.transport import PACKET, WINDOW, Transport
from jupyman.ssh.config.ssh_g import HostConfig
from jupyman.ssh.exec import command
from jupyman.ssh.login import route
from jupyman.tools.envs import choice
from jupyman.tools.host import sockets
from tests.bed.launches import build_environment
from tests.bed.local_account import Account, alive, public_folder
from tests.integration.security.neighbour import Neighbour, functions

RUNTIME = "/tmp/jm-abcdef"


# --- on the host --------------------------------------------------------------------------------------------------


def test_a_neighbours_process_names_none_of_ours_to_be_ended(account: Account, neighbour: Neighbour) -> None:
    # The name of a process may hold line breaks, and /proc/PID/stat prints them: lines for what ends a server.
    prctl = "import ctypes, signal; prctl = ctypes.CDLL(None).prctl; prctl(1, 9); prctl(15, {name!r}.encode()); "
    code = prctl + "print('ready', flush=True); signal.pause()"
    with subprocess.Popen(account.command("sleep", "100"), cwd="/", start_new_session=True) as training:
        try:
            neighbour.start(code.format(name=f"\nkernel {training.pid}\n"))
            # A kernel by its command line, and a child of it by a line of his own, with a start time that he can hit.
            child = code.format(name=f"\n{training.pid} (")
            neighbour.start(f"import subprocess; subprocess.run(['python3', '-c', {child!r}]) # {RUNTIME}/k.json")
            assert functions(account, f"jm_tree 1 1 {RUNTIME}; jm_end_server 1 1 {RUNTIME} 1 1") == []
            assert alive(training.pid)
        finally:
            training.kill()


def test_an_environment_that_a_neighbour_made_in_a_shared_conda_is_chosen_by_name_only(
    account: Account, neighbour: Neighbour
) -> None:
    with public_folder() as shared:
        (shared / "conda-meta").mkdir()
        own = build_environment(shared / "envs" / "lab", kind="conda")
        planted = shared / "envs" / "aaa"
        build_environment(planted, kind="conda")
        neighbour.owns(planted, *planted.rglob("*"))
        (account.home / ".conda").mkdir()
        (account.home / ".conda" / "environments.txt").write_text(f"{own.prefix}\n")
        look = probe.probe(account, "host", depth="launch")
        assert choice.choose(look, None, None, "lab")[0].prefix == own.prefix
        assert choice.choose(look, "aaa", None, "lab")[0].prefix == str(planted)
        # A conda that one of us keeps is theirs altogether.
        neighbour.owns(shared, *shared.rglob("*"))
        look = probe.probe(account, "host", depth="launch")
        assert choice.choose(look, None, None, "lab")[0].prefix == str(planted)
        # Where it is the only one, too, the user says so.
        neighbour.owns(planted)
        os.chown(shared / "envs", 0, 0)
        shutil.rmtree(own.prefix)
        look = probe.probe(account, "host", depth="launch")
        with pytest.raises(errors.JupyterMissing, match="which another user made"):
            choice.choose(look, None, None, "lab")


def test_an_environment_is_not_named_by_a_link_that_a_neighbour_can_turn(
    account: Account, neighbour: Neighbour
) -> None:
    with public_folder() as shared, public_folder() as system:
        real = build_environment(system / "tools")
        link = shared / ".venv"
        link.symlink_to(real.prefix)
        neighbour.owns(link, shared)
        look = probe.probe(account, "host", depth="launch", directory=str(shared))
        assert choice.choose(look, None, None, "lab")[0].prefix == real.prefix
        # In a folder of his he could put another in its place.
        neighbour.owns(system)
        look = probe.probe(account, "host", depth="launch", directory=str(shared))
        assert not any(one.prefix in {str(link), real.prefix} for one in look.environments)


# --- by a hostile host --------------------------------------------------------------------------------------------


class _Willing(paramiko.ServerInterface):
    """Lets everybody in, and opens every channel."""

    def check_auth_none(self, username: str) -> int:
        del username
        return AUTH_SUCCESSFUL

    def check_channel_direct_tcpip_request(
        self, chanid: int, origin: tuple[str, int], destination: tuple[str, int]
    ) -> int:
        del chanid, origin, destination
        return OPEN_SUCCEEDED

    def check_channel_request(self, kind: str, chanid: int) -> int:
        del kind, chanid
        return OPEN_SUCCEEDED

    def check_channel_exec_request(self, channel: paramiko.Channel, command: bytes) -> bool:
        del channel, command
        return True


@contextlib.contextmanager
def connected() -> Iterator[tuple[Transport, paramiko.Transport]]:
    """Yield our end of an SSH connection, and the server's."""
    ours, its = socket.socketpair()
    server = paramiko.Transport(its)
    server.add_server_key(paramiko.ECDSAKey.generate())
    server.start_server(event=threading.Event(), server=_Willing())
    client = Transport(ours)
    try:
        client.start_client(timeout=20)
        client.auth_none("alice")
        yield client, server
    finally:
        client.close()
        server.close()


@pytest.mark.parametrize("stderr", [False, True])
def test_a_host_that_sends_more_than_it_may_fills_no_memory(stderr: bool) -> None:
    # A browser's tab that does not read, or an error stream of which nobody knows.
    with connected() as (client, server):
        channel = client.wait_channel(("127.0.0.1", 8888), 20)
        its: Any = server.accept(20)
        its.out_window_size = 2**40
        with contextlib.suppress(OSError, EOFError, paramiko.SSHException):
            for _ in range(4 * WINDOW // PACKET):
                its.sendall_stderr(bytes(PACKET)) if stderr else its.sendall(bytes(PACKET))
        assert len(channel.in_buffer) + len(channel.in_stderr_buffer) <= WINDOW + PACKET
        client.join(20)
        assert client.reason == "the server sent more than the window allows"


def test_a_packet_without_end_is_not_waited_for() -> None:
    ours, its = socket.socketpair()
    with its:
        its.sendall(b"SSH-2.0-hostile\r\n" + struct.pack(">I", 2**32 - 4) + bytes(4))
        config = HostConfig(alias="server1", hostname="h", port=22, user="alice")
        with pytest.raises(errors.HostUnreachable, match="impossible length"):
            route.handshake(config, ours, time.monotonic() + 3, None)


def test_a_host_that_never_stops_is_given_up_all_the_same() -> None:
    cancelled = threading.Event()
    with connected() as (client, server):
        channel = client.wait_channel(None, 20)
        its: Any = server.accept(20)

        def chatter() -> None:
            with contextlib.suppress(OSError, EOFError, paramiko.SSHException):
                while True:
                    its.sendall(b"\n" * PACKET)

        def listen() -> None:
            with pytest.raises(errors.Interrupted):
                command.talk(
                    channel,
                    "exit",
                    deadline=time.monotonic() + 60,
                    limit=100,
                    on_line=lambda line: cancelled.set(),
                    cancelled=cancelled,
                )

        threading.Thread(target=chatter, daemon=True).start()
        listener = threading.Thread(target=listen, daemon=True)
        listener.start()
        listener.join(20)
        assert not listener.is_alive()


def test_a_host_with_any_number_of_gpus_and_environments_is_read_in_time() -> None:
    gpus = [("gpu.row", f"{n}, GPU-{n}, A100, 550.54, 80, 1, 0, 8.0, Disabled") for n in range(1000)]
    environments = [("env.prefix", f"/envs/{n}") for n in range(3000)]
    report = probe.read(Facts([("gpu.status", "0"), *gpus, *environments]), "host")
    assert (len(report.gpus), len(report.environments)) == (64, 2000)


def test_no_answer_takes_hours_to_read() -> None:
    # Each took time by the square of its length: pytest's own limit ends this where one does again.
    [socket_] = sockets.ss(["LISTEN 0 0 127.0.0.1:80 0.0.0.0:* " + 'users:(("' * 400_000])
    assert socket_.command is None
    servers = [("record.directory", "/x"), ("record.pid", "1"), ("record.start_ticks", "1"), ("record.name", "x")]
    found = records.read(Facts([*servers, ("record.state", "alive")] * 40_000))
    assert len(found.records) == 40_000
    environments = [("env.prefix", "/x"), ("env.executable", "/x/p"), ("env.app", "lab")] * 40_000
    assert len(probe.read(Facts([*environments, *[("on_path", "/y")] * 40_000]), "host").environments) == 2000


def test_a_hosts_text_in_the_daemons_log_has_no_control_characters() -> None:
    # Its reason for refusing a forward is in our error, and that in the log.
    said = "forwarding-refused: sshd: \x1b]0;pwned\x07\x9b2J\u202e größe"
    record = logging.LogRecord("n", logging.INFO, "f", 1, "%s", (said,), None)
    assert (
        RedactingFormatter("%(message)s").format(record)
        == r"forwarding-refused: sshd: \x1b]0;pwned\x07\x9b2J\u202e größe"
    )


# --- on this computer ---------------------------------------------------------------------------------------------


def test_modules_that_lie_in_the_current_directory_are_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # `python -m` looks there first, and whoever types a command may stand in /tmp.
    for name in ("jupyman", "venv", "pip"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('planted')\n")
    monkeypatch.chdir(tmp_path)
    told = subprocess.run(flow._command("--version"), capture_output=True, text=True, check=False)
    assert (told.stdout, told.stderr) == (f"jupyman, version {__version__}\n", "")
    place = Path(__file__).parents[3] / "examples" / "install.py"
    install = runpy.run_path(str(place))
    for name in ("venv", "pip"):
        assert install["run"](*install["module"](sys.executable, name), "--help")
