"""Another token for a running server: without SSH, in an account of its own."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from jupyman import errors
from jupyman.host.servers.nohup import NohupLauncher
from jupyman.model import Environment, Running
from tests.bed import wait_until
from tests.bed.http import get
from tests.bed.launches import launch_spec, runtime_dir
from tests.bed.local_account import Account, new_account


@pytest.fixture(scope="module")
def made(environment: Environment) -> Iterator[tuple[Account, Running]]:
    with new_account() as account:
        yield account, NohupLauncher(account).launch(launch_spec(environment, app="lab"))


@pytest.fixture
def account(made: tuple[Account, Running]) -> Account:
    return made[0]


@pytest.fixture
def running(made: tuple[Account, Running]) -> Running:
    """The server, with the token that it has by now."""
    return NohupLauncher(made[0]).verify(made[1]).now(made[1])


def folder(running: Running) -> Path:
    return Path(running.directory)


def port(running: Running) -> int:
    assert running.server.port is not None
    return running.server.port


def enters(running: Running, token: str) -> int:
    return get(port(running), "/api/kernels", token)[0]


def cookie(running: Running) -> str:
    connection = http.client.HTTPConnection("127.0.0.1", port(running), timeout=30)
    with contextlib.closing(connection):
        connection.request("GET", f"/lab?token={running.token}")
        cookies = connection.getresponse().headers.get_all("Set-Cookie") or []
    return next(value.partition(";")[0] for value in cookies if not value.startswith("_xsrf"))


def enters_by_cookie(running: Running, crumb: str) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port(running), timeout=30)
    with contextlib.closing(connection):
        connection.request("GET", "/api/kernels", headers={"Cookie": crumb})
        return connection.getresponse().status


def tidy(running: Running) -> bool:
    """Nothing of a change is left: no lock, no other token."""
    return sorted(path.name for path in folder(running).iterdir() if path.name.startswith(("token", "lock"))) == [
        "token"
    ]


def renewed(account: Account, running: Running) -> Running:
    seen, token = NohupLauncher(account).renew(running)
    assert seen.ok
    assert token is not None
    return msgspec.structs.replace(running, token=token)


@contextlib.contextmanager
def record(running: Running, key: str, value: str | None) -> Iterator[None]:
    """Let the launch record say something else, or nothing."""
    path = folder(running) / "record"
    before = path.read_text()
    lines = [line for line in before.splitlines() if not line.startswith(f"{key} ")]
    path.write_text("".join(f"{line}\n" for line in [*lines, *([f"{key} {value}"] if value is not None else [])]))
    try:
        yield
    finally:
        path.write_text(before)


def program(account: Account, text: str) -> str:
    """Put an interpreter of our own on the host."""
    path = account.home / "interpreter"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


def test_the_old_token_and_its_cookie_open_nothing_and_kernels_go_on(account: Account, running: Running) -> None:
    assert get(port(running), "/api/kernels", running.token, "POST", {"name": "python3"})[0] == 201
    kernels = get(port(running), "/api/kernels", running.token)[1]
    crumb, key = cookie(running), (folder(running) / "cookie_secret").read_bytes()
    assert enters_by_cookie(running, crumb) == 200
    after = renewed(account, running)
    assert len(after.token) == 48
    assert after.token != running.token
    assert (enters(after, running.token), enters(after, after.token)) == (403, 200)
    assert enters_by_cookie(after, crumb) == 403
    assert enters_by_cookie(after, cookie(after)) == 200
    assert [one["id"] for one in get(port(running), "/api/kernels", after.token)[1]] == [one["id"] for one in kernels]
    assert (folder(running) / "cookie_secret").read_bytes() != key
    for name in ("token", "cookie_secret"):
        status = (folder(running) / name).stat()
        assert (stat.S_IMODE(status.st_mode), status.st_uid) == (0o600, account.uid)
    assert tidy(running)
    # Whoever looks next finds it: by the record, by a look at the server, and by Jupyter's own file.
    assert NohupLauncher(account).find().records[0].running.token == after.token
    assert NohupLauncher(account).verify(running).token == after.token
    [told] = runtime_dir(running).glob(f"jpserver-{running.server.pid}.json")
    assert json.loads(told.read_text())["token"] == after.token
    assert stat.S_IMODE(told.stat().st_mode) == 0o600
    # Both are blotted out of the log.
    for token in (running.token, after.token):
        get(port(running), f"/api/contents/nowhere?token={token}", after.token)
        assert token not in (folder(running) / "log").read_text()


def test_two_at_once_leave_one_token_that_works(account: Account, running: Running) -> None:
    found: list[str | None] = []
    threads = [
        threading.Thread(target=lambda: found.append(NohupLauncher(account).renew(running)[1])) for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(found)) == 3
    [now] = [token for token in found if token is not None and enters(running, token) == 200]
    assert NohupLauncher(account).verify(running).token == now
    assert enters(running, running.token) == 403
    assert tidy(running)


@pytest.mark.parametrize("what", ["pid", "ticks", "boot", "node", "record"])
def test_nothing_is_changed_for_another_server(account: Account, running: Running, what: str) -> None:
    other = {
        "pid": lambda: msgspec.structs.replace(running, server=msgspec.structs.replace(running.server, pid=1)),
        "ticks": lambda: msgspec.structs.replace(running, start_ticks=running.start_ticks + 1),
        "boot": lambda: msgspec.structs.replace(running, boot_id="another"),
        "node": lambda: msgspec.structs.replace(running, server=msgspec.structs.replace(running.server, node="n2")),
        "record": lambda: running,
    }[what]()
    with record(running, "start_ticks", "1") if what == "record" else contextlib.nullcontext():
        seen, token = NohupLauncher(account).renew(other)
    assert not seen.ok
    assert token is None
    assert enters(running, running.token) == 200
    assert tidy(running)


def test_a_server_that_reads_its_token_once_is_recognised(account: Account, running: Running) -> None:
    with record(running, "rereads", None):
        seen, token = NohupLauncher(account).renew(running)
    assert (seen.ok, token) == (True, None)
    # Nor is its word believed: the host asks it, and the old token comes back. (Asked here by a stand-in.)
    with record(running, "python", program(account, "echo 403 200")):
        seen, token = NohupLauncher(account).renew(running)
    assert (seen.ok, token) == (True, None)
    assert enters(running, running.token) == 200
    assert tidy(running)


@pytest.mark.parametrize("answer", ["200 200", "500 500", ""])
def test_if_the_change_is_not_proven_the_old_token_is_restored(account: Account, running: Running, answer: str) -> None:
    with (
        record(running, "python", program(account, f"echo {answer}")),
        pytest.raises(errors.RemoteFailed, match="did not accept another token"),
    ):
        NohupLauncher(account).renew(running)
    assert enters(running, running.token) == 200
    assert NohupLauncher(account).verify(running).token == running.token
    assert tidy(running)


def test_a_link_that_is_lost_in_the_middle_leaves_a_token_that_works(account: Account, running: Running) -> None:
    reached = account.home / "reached"
    stuck = program(account, f": >{reached}; exec sleep 3")
    ended = threading.Event()

    def change() -> None:
        with contextlib.suppress(errors.JupymanError):
            NohupLauncher(account).renew(running)
        ended.set()

    with record(running, "python", stuck):
        threading.Thread(target=change, daemon=True).start()
        wait_until(reached.exists)
        [script] = [
            int(path.parent.name)
            for path in Path("/proc").glob("[0-9]*/comm")
            if owner(path) == account.uid and path.read_text() == "sh\n" and session(path) == int(path.parent.name)
        ]
        os.killpg(script, signal.SIGHUP)
        assert ended.wait(60)  # it hears of it when the program that it waits for has ended
    wait_until(lambda: tidy(running))
    now = NohupLauncher(account).verify(running).token
    assert now is not None
    assert now != running.token
    assert (enters(running, now), enters(running, running.token)) == (200, 403)


def owner(path: Path) -> int:
    try:
        return path.stat().st_uid
    except OSError:
        return -1


def session(path: Path) -> int:
    try:
        return os.getsid(int(path.parent.name))
    except OSError:
        return -1


@pytest.mark.parametrize("name", ["token", "cookie_secret"])
def test_a_planted_link_is_refused(account: Account, running: Running, name: str) -> None:
    path, victim = folder(running) / name, account.home / "victim"
    victim.write_text("precious")
    kept = path.with_name("kept")
    path.rename(kept)
    path.symlink_to(victim)
    try:
        with pytest.raises(errors.NotOurs, match="symbolic link"):
            NohupLauncher(account).renew(running)
        # Nor does the server read it.
        assert enters(running, running.token) == 200
        assert victim.read_text() == "precious"
    finally:
        path.unlink()
        kept.rename(path)
    assert tidy(running)


@pytest.mark.parametrize("spoiled", ["mode", "content", "empty", "gone"])
def test_a_token_file_that_is_not_as_it_should_be_changes_nothing(
    account: Account, running: Running, spoiled: str
) -> None:
    path = folder(running) / "token"
    if spoiled == "mode":
        path.write_text("0" * 48)
        path.chmod(0o644)
    elif spoiled == "gone":
        path.unlink()
    else:
        path.write_text("not a token" if spoiled == "content" else "")
    try:
        assert (enters(running, running.token), enters(running, "0" * 48)) == (200, 403)
    finally:
        path.write_text(running.token)
        path.chmod(0o600)
        os.chown(path, account.uid, -1)
    assert enters(running, running.token) == 200


CONFIG = """\
from tornado.web import RequestHandler
class Mine(RequestHandler):
    pass
c.ServerApp.cookie_secret = b"known to everybody"
c.ServerApp.login_handler_class = Mine
c.LabApp.cookie_secret = b"known to everybody"
c.ServerApp.identity_provider_class = "jupyter_server.auth.identity.IdentityProvider"
"""


def test_the_users_own_configuration_keeps_no_cookie_alive(environment: Environment) -> None:
    with new_account() as account:
        own = account.home / ".jupyter"
        own.mkdir()
        os.chown(own, account.uid, -1)
        for name in ("jupyter_server_config", "jupyter_lab_config"):
            (own / f"{name}.py").write_text(CONFIG)
        spec = launch_spec(environment, app="lab")
        running = NohupLauncher(account).launch(spec)
        crumb = cookie(running)
        assert enters_by_cookie(running, crumb) == 200
        after = renewed(account, running)
        assert (enters(after, running.token), enters_by_cookie(after, crumb)) == (403, 403)
        young = cookie(after)
        # A server that is started again knows the browser's cookie, and not the one of before.
        os.kill(running.server.pid, signal.SIGKILL)
        wait_until(lambda: NohupLauncher(account).verify(running).dead)
        again = NohupLauncher(account).launch(msgspec.structs.replace(spec, ports=[port(running)]))
        assert again.token == after.token
        assert (enters_by_cookie(again, young), enters_by_cookie(again, crumb)) == (200, 403)
        assert NohupLauncher(account).stop(again, force=True)
