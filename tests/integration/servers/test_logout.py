"""A host whose logind ends everything of a user with the last login: the server is spared there, or `up` says so.

systemd cannot run here. `loginctl` and `systemd-run` are stand-ins that answer as the real ones; what logind does at
the last logout is done by `log_out`: every process of the user ends that is in no scope of its own.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.bed import Bed, Cli, Sshd, User, private_home, wait_until

LOGINCTL = """\
#!/bin/sh
case $* in
    show-session) printf 'KillUserProcesses=yes\\nKillOnlyUsers=\\nKillExcludeUsers=root\\n' ;;
    show-user*) printf 'Name=x\\nLinger={linger}\\n' ;;
esac
"""
# As systemd-run(1) --scope: it registers the scope, then becomes the command.
SYSTEMD_RUN = """\
#!/bin/sh
[ -n "$XDG_RUNTIME_DIR" ] || exit 1
while [ "$1" != -- ]; do shift; done
shift
JM_IN_SCOPE=1
export JM_IN_SCOPE
exec "$@"
"""


@pytest.fixture
def sshd(fresh_bed: Bed) -> Iterator[Sshd]:
    with fresh_bed.start_sshd() as made:
        yield made


@pytest.fixture
def cli(sshd: Sshd) -> Iterator[Cli]:
    with private_home() as home:
        yield Cli(home, sshd.ssh_config)


@pytest.fixture
def manager(user: User) -> Iterator[None]:
    """The socket of the user's own manager."""
    if os.geteuid() != 0:
        pytest.skip("only root can make /run/user/UID")
    folder = Path("/run/user", str(user.uid))
    folder.mkdir(parents=True, mode=0o700)
    os.chown(folder, user.uid, user.gid)
    try:
        with contextlib.closing(socket.socket(socket.AF_UNIX)) as bus:
            bus.bind(str(folder / "bus"))
            yield
    finally:
        shutil.rmtree(folder)
        with contextlib.suppress(OSError):  # others may have one
            folder.parent.rmdir()


def install(user: User, *, linger: bool) -> None:
    user.program("loginctl", LOGINCTL.format(linger="yes" if linger else "no"))
    user.program("systemd-run", SYSTEMD_RUN)


def log_out(user: User, sshd: Sshd) -> None:
    """End the last login, and do what logind does then."""
    sshd.stop()
    doomed = []
    for process in user.processes():
        with contextlib.suppress(psutil.Error):
            if "JM_IN_SCOPE" not in process.environ():
                process.kill()
                doomed.append(process)
    psutil.wait_procs(doomed, 10)


def session(cli: Cli) -> dict[str, Any]:
    found: dict[str, Any] = cli("ps", "--json").json["sessions"][0]
    return found


def codes(session: dict[str, Any]) -> set[str]:
    return {problem["code"] for problem in session["problems"]}


@pytest.mark.usefixtures("manager")
def test_with_linger_the_server_outlives_the_last_login(cli: Cli, sshd: Sshd, user: User) -> None:
    install(user, linger=True)
    made = cli("up", "server1", "--no-browser", "--json")
    assert made.rc == 0, made
    assert "ends-at-logout" not in codes(made.json)
    log_out(user, sshd)
    sshd.start()

    def back() -> bool:
        one = session(cli)
        return bool(one["state"] == "running" and one["link"]["state"] == "up")

    wait_until(back, what="the return", timeout=30)
    assert session(cli)["server"]["pid"] == made.json["server"]["pid"]


def test_without_linger_up_reports_that_the_server_will_end(cli: Cli, sshd: Sshd, user: User) -> None:
    install(user, linger=False)
    made = cli("up", "server1", "--no-browser", "--json")
    assert made.rc == 0, made
    [problem] = [one for one in made.json["problems"] if one["code"] == "ends-at-logout"]
    assert "enable-linger" in problem["fix"]
    log_out(user, sshd)
    sshd.start()

    def noticed() -> bool:
        return bool(session(cli)["state"] == "exited")

    wait_until(noticed, what="word of the end", timeout=30)
    assert "server-killed" in codes(session(cli))


def test_a_manager_that_does_not_answer_is_no_reason_not_to_start(cli: Cli, user: User, manager: None) -> None:
    del manager
    install(user, linger=True)
    user.program("systemd-run", "#!/bin/sh\necho 'Failed to connect to bus' >&2\nexit 1\n")
    made = cli("up", "server1", "--no-browser", "--json")
    assert made.rc == 0, made
    assert "ends-at-logout" in codes(made.json)
