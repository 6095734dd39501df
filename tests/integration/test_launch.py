"""A server's life on a host, with a real JupyterLab and as an account of its own: launch, find, verify, stop."""

from __future__ import annotations

import http.client
import json
import os
import random
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from jupyman import errors
from jupyman.core.launchers import nohup
from jupyman.model import App, Environment, LaunchSpec, Running

SITE = next(Path(entry) for entry in sys.path if entry.endswith("site-packages"))
VENV = Path(sys.prefix)


# --- an account and an environment --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Completed:
    """What a finished script left."""

    stdout: bytes
    stderr: bytes
    status: int | None


@dataclass
class Account:
    """A uid of its own with a home: a host without SSH in between. Implements `jupyman.core.shell.Shell`."""

    uid: int
    home: Path
    shell: str = "/bin/sh"
    environ: dict[str, str] = field(default_factory=dict)
    cut_at: str | None = None  # a line that ends so closes the channel, as a lost link does

    def command(self, *argv: str) -> list[str]:
        if os.getuid() == self.uid:
            return list(argv)
        return ["setpriv", f"--reuid={self.uid}", f"--regid={self.uid}", "--clear-groups", *argv]

    def variables(self) -> dict[str, str]:
        base = {"HOME": str(self.home), "PATH": "/usr/local/bin:/usr/bin:/bin", "USER": "tester", "LANG": "C.UTF-8"}
        return {**base, **self.environ}

    def run(
        self,
        script: str,
        *,
        timeout: float,
        limit: int = 0,
        on_line: Callable[[str], None] | None = None,
        cancelled: threading.Event | None = None,
    ) -> Completed:
        del limit
        with tempfile.TemporaryFile() as complaints:
            process = subprocess.Popen(
                self.command(self.shell, "-s"),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=complaints,
                env=self.variables(),
                cwd="/",
                start_new_session=True,
                umask=0o022,
            )
            assert process.stdin is not None
            assert process.stdout is not None
            watch = threading.Timer(timeout, process.kill)
            watch.start()
            lines: list[bytes] = []
            try:
                process.stdin.write(script.encode())
                process.stdin.close()
                for line in process.stdout:
                    lines.append(line)
                    text = line.decode("utf-8", "replace").rstrip("\n")
                    if on_line is not None:
                        on_line(text)
                    lost = self.cut_at is not None and self.cut_at in text
                    stopped = cancelled is not None and cancelled.is_set()
                    if lost or stopped:
                        process.stdout.close()  # as sshd does when the channel closes; the script runs on
                        threading.Thread(target=process.wait, daemon=True).start()
                        raise errors.Interrupted("interrupted") if stopped else errors.LinkLost("the link was lost")
                process.wait()
            finally:
                watch.cancel()
                process.stdout.close()
            complaints.seek(0)
            return Completed(b"".join(lines), complaints.read(), process.returncode)


@contextmanager
def new_account() -> Iterator[Account]:
    """Yield a fresh account; whatever it left running is ended afterwards."""
    uid = random.randrange(200_000, 2_000_000) if os.getuid() == 0 else os.getuid()
    home = Path(tempfile.mkdtemp(prefix="jmh-", dir="/tmp"))
    os.chown(home, uid, -1)
    try:
        yield Account(uid, home)
    finally:
        if os.getuid() == 0:
            for pid in processes(uid):
                os.kill(pid, signal.SIGKILL)
            for left in Path("/tmp").glob("jm-*"):
                if left.lstat().st_uid == uid:
                    shutil.rmtree(left, ignore_errors=True)
        home.chmod(0o700)
        shutil.rmtree(home, ignore_errors=True)


def processes(uid: int) -> list[int]:
    """Return the living processes of a uid."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if entry.stat().st_uid == uid and "\nState:\tZ" not in (entry / "status").read_text():
                found.append(int(entry.name))
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found


def build_environment(folder: Path, *, kind: str = "venv", packages: bool = True) -> Environment:
    """Make an environment that another account can reach: this one's packages with the system's Python of its version.

    (This environment's own interpreter may lie in a home that is closed to others.)
    """
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    base = Path(f"/usr/bin/python{version}")
    if not base.exists():
        base = Path(sys.executable).resolve()
    (folder / "bin").mkdir(parents=True)
    (folder / "lib" / f"python{version}").mkdir(parents=True)
    (folder / "pyvenv.cfg").write_text(f"home = {base.parent}\ninclude-system-site-packages = false\n")
    (folder / "bin" / "python").symlink_to(base)
    target = folder / "lib" / f"python{version}" / "site-packages"
    if packages:
        target.symlink_to(SITE)
        for name in ("jupyter-lab", "jupyter-server"):
            shutil.copy(VENV / "bin" / name, folder / "bin" / name)
        (folder / "share").symlink_to(VENV / "share")
    else:
        target.mkdir()
    if kind == "conda":
        (folder / "etc" / "conda" / "activate.d").mkdir(parents=True)
        (folder / "conda-meta").mkdir()
        (folder / "conda-meta" / "history").touch()
    elif packages:
        (folder / "etc").symlink_to(VENV / "etc")
    return Environment(
        name=folder.name,
        prefix=str(folder),
        kind="conda" if kind == "conda" else "venv",
        python=version,
        jupyter="2" if packages else None,
        ipykernel="7" if packages else None,
        torch=None,
    )


@contextmanager
def public_folder() -> Iterator[Path]:
    """Yield a temporary folder that other accounts can read."""
    folder = Path(tempfile.mkdtemp(prefix="jme-", dir="/tmp"))
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


@pytest.fixture(scope="module")
def environment() -> Iterator[Environment]:
    with public_folder() as folder:
        yield build_environment(folder / "stack")


@pytest.fixture
def account() -> Iterator[Account]:
    with new_account() as fresh:
        yield fresh


def free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        held = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [one.getsockname()[1] for one in held]


def wish(env: Environment, *, name: str = "s1", app: App = "server", timeout: float = 60, **more: Any) -> LaunchSpec:
    fields: dict[str, Any] = {
        "kernel_env": None,
        "dir": None,
        "ports": free_ports(2),
        "cuda_visible_devices": None,
        **more,
    }
    return LaunchSpec(name=name, env=env, app=app, timeout=timeout, **fields)


def get(port: int, path: str, token: str | None = None, method: str = "GET", body: Any = None) -> tuple[int, Any]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    headers = {"Authorization": f"token {token}"} if token else {}
    connection.request(method, path, headers=headers, body=json.dumps(body) if body is not None else None)
    answer = connection.getresponse()
    content = answer.read()
    connection.close()
    return answer.status, json.loads(content) if content[:1] in {b"{", b"["} else content


def until(condition: Callable[[], Any], timeout: float = 20) -> Any:
    """Wait for a condition that no event tells of."""
    end = time.monotonic() + timeout
    pause = threading.Event()
    while not (found := condition()):
        assert time.monotonic() < end, "the condition did not come true"
        pause.wait(0.05)
    return found


def alive(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


def session_dir(account: Account, name: str = "s1") -> Path:
    return account.home / ".local/state/jupyman" / os.uname().nodename.replace("-", "_") / name


def runtime_dir(running: Running) -> Path:
    record = Path(running.directory, "record").read_text()
    return Path(next(line.split(" ", 1)[1] for line in record.splitlines() if line.startswith("runtime ")))


def execute(running: Running, code: str) -> str:
    """Start a kernel by the server's REST interface, run code in it, return what it printed; the kernel stays."""
    from jupyter_client.blocking.client import BlockingKernelClient

    port = running.server.port
    assert port is not None
    status, kernel = get(port, "/api/kernels", running.token, "POST", {"name": "python3"})
    assert status == 201
    file = runtime_dir(running) / f"kernel-{kernel['id']}.json"
    client = BlockingKernelClient(connection_file=str(file))
    client.load_connection_file()
    client.start_channels()
    try:
        client.wait_for_ready(timeout=60)
        printed: list[str] = []

        def hook(message: dict[str, Any]) -> None:
            if message["msg_type"] == "stream":
                printed.append(message["content"]["text"])

        client.execute_interactive(code, timeout=60, output_hook=hook)
        return "".join(printed)
    finally:
        client.stop_channels()


# --- one server, looked at from all sides -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def lab(environment: Environment) -> Iterator[tuple[Account, Running, list[str]]]:
    with new_account() as account:
        steps: list[str] = []
        account.environ = {"JUPYTER_TOKEN": "evil", "JUPYTER_PORT": "1", "XDG_RUNTIME_DIR": "/nowhere"}
        account.environ["LC_ALL"] = "C.UTF-8"
        spec = wish(environment, app="lab", cuda_visible_devices="1,2", gpus=[1, 2])
        yield account, nohup.launch(account, spec, progress=steps.append), steps


def test_it_answers_with_the_token_and_to_nobody_else(lab: tuple[Account, Running, list[str]]) -> None:
    account, running, steps = lab
    assert running.server.port is not None
    assert get(running.server.port, "/api/status")[0] == 403
    assert get(running.server.port, "/api/status", running.token)[0] == 200
    assert get(running.server.port, "/lab", running.token)[0] == 200
    assert len(running.token) == 48
    assert running.server.root_dir == str(account.home)
    assert running.server.gpus == [1, 2]
    assert running.server.version
    assert not running.server.adopted
    assert steps[0].startswith("starting jupyter-lab")


def test_find_and_verify_see_it(lab: tuple[Account, Running, list[str]]) -> None:
    account, running, _ = lab
    found = nohup.find(account)
    assert [record.state for record in found.records] == ["alive"]
    record = found.records[0]
    assert record.running == running
    assert found.servers == []
    assert nohup.verify(account, running).ok
    row = nohup.rows("h", found)[0]
    assert (row.pid, row.port, row.session) == (running.server.pid, running.server.port, "s1")
    assert running.token not in repr(row)


def test_the_token_is_in_no_place_that_others_see(lab: tuple[Account, Running, list[str]]) -> None:
    account, running, _ = lab
    secret = running.token.encode()
    execute(running, "print(1)")
    for pid in processes(account.uid):
        assert secret not in Path(f"/proc/{pid}/cmdline").read_bytes()
        assert secret not in Path(f"/proc/{pid}/environ").read_bytes()
    holders = []
    for top in (account.home, runtime_dir(running)):
        for path in [top, *top.rglob("*")]:
            if path.is_file() and secret in path.read_bytes():
                private = any(stat.S_IMODE(parent.stat().st_mode) & 0o077 == 0 for parent in [path, *path.parents])
                assert private, path
                holders.append(path.name)
    assert "token" in holders
    assert "log" not in holders
    for name in ("log", "token", "jupyter_config.py", "record"):
        assert stat.S_IMODE(Path(running.directory, name).stat().st_mode) == 0o600
    for folder in (Path(running.directory), Path(running.directory).parent, runtime_dir(running)):
        assert stat.S_IMODE(folder.stat().st_mode) & 0o777 == 0o700


def test_kernels_use_sockets_in_a_private_directory_and_inherit_a_clean_process(
    lab: tuple[Account, Running, list[str]],
) -> None:
    account, running, _ = lab
    code = """
import os, resource, subprocess
mask = os.umask(0); os.umask(mask)
status = subprocess.run(["cat", "/proc/self/status"], capture_output=True, text=True).stdout
ignored = int(next(l.split()[1] for l in status.splitlines() if l.startswith("SigIgn")), 16)
soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
print(oct(mask), os.getcwd(), os.environ["CUDA_VISIBLE_DEVICES"], ignored & 0b111, soft == hard)
env = os.environ.get
print(env("LC_ALL"), env("JUPYTER_TOKEN"), env("XDG_RUNTIME_DIR"), env("PATH").split(":")[0])
"""
    first, second = execute(running, code).splitlines()
    # Bits 0-2: SIGHUP, SIGINT, SIGQUIT.
    assert first == f"0o22 {account.home} 1,2 0 True"
    assert second == f"C.UTF-8 None None {running.server.env}/bin"
    # (ipykernel also listens on a TCP port of its own, PULL only, for prints of forked children: iostream.py,
    # IOPubThread._setup_pipe_in. Nothing can be read there.)
    folder = runtime_dir(running)
    connections = [json.loads(path.read_text()) for path in folder.glob("kernel-*.json")]
    assert {connection["transport"] for connection in connections} == {"ipc"}
    assert all(Path(connection["ip"]).parent == folder for connection in connections)
    sockets = [path for path in folder.iterdir() if path.is_socket()]
    assert len(sockets) >= 5


def test_the_log_comes_without_tokens(lab: tuple[Account, Running, list[str]]) -> None:
    account, running, _ = lab
    with Path(running.directory, "log").open("a") as file:
        file.write(f"http://127.0.0.1:1/?token=abc%20def&x=1 and {running.token}\n")
    lines: list[str] = []
    nohup.logs(account, "s1", running.directory, lines=2, follow=False, on_line=lines.append)
    assert len(lines) == 2
    assert lines[-1] == "http://127.0.0.1:1/?token=***&x=1 and ***"


def test_a_followed_log_ends_with_its_channel(lab: tuple[Account, Running, list[str]]) -> None:
    account, running, _ = lab
    cancelled = threading.Event()
    seen: list[str] = []
    first = threading.Event()

    def line(text: str) -> None:
        seen.append(text)
        first.set()
        if text == "the last line":
            cancelled.set()

    def append() -> None:
        first.wait(20)
        with Path(running.directory, "log").open("a") as file:
            file.write("the last line\n")

    writer = threading.Thread(target=append)
    writer.start()
    before = set(processes(account.uid))
    with pytest.raises(errors.Interrupted):
        nohup.logs(account, "s1", None, lines=1, follow=True, on_line=line, cancelled=cancelled)
    writer.join()
    assert seen[-1] == "the last line"
    until(lambda: set(processes(account.uid)) <= before)


def test_a_second_launch_returns_the_running_server(
    lab: tuple[Account, Running, list[str]], environment: Environment
) -> None:
    account, running, _ = lab
    again = nohup.launch(account, wish(environment))
    assert again.server.pid == running.server.pid
    assert again.token == running.token
    assert again.server.adopted


def test_a_wrong_start_time_is_another_process(lab: tuple[Account, Running, list[str]]) -> None:
    import msgspec

    account, running, _ = lab
    reused = msgspec.structs.replace(running, start_ticks=running.start_ticks + 1, directory="")
    assert nohup.verify(account, reused).state == "exited"
    assert nohup.stop(account, reused, force=True)
    assert nohup.verify(account, running).ok
    rebooted = msgspec.structs.replace(running, boot_id="another", directory="")
    assert nohup.verify(account, rebooted).state == "rebooted"
    assert nohup.stop(account, rebooted, force=True)
    assert nohup.verify(account, running).ok


def test_another_process_on_the_port_is_seen(lab: tuple[Account, Running, list[str]]) -> None:
    import msgspec

    account, running, _ = lab

    def on(port: int) -> str:
        server = msgspec.structs.replace(running.server, port=port)
        return nohup.verify(account, msgspec.structs.replace(running, server=server)).state

    with socket.create_server(("127.0.0.1", 0)) as strange:
        assert on(strange.getsockname()[1]) == "taken"
    assert on(free_ports(1)[0]) == "not-listening"


# --- the user's own configuration ---------------------------------------------------------------------------------

HOSTILE = """
for section in (c.ServerApp, c.NotebookApp, c.LabApp):
    section.token = ""
    section.ip = "0.0.0.0"
    section.port = 1
    section.base_url = "/elsewhere"
    section.certfile = "/etc/passwd"
    section.keyfile = "/etc/passwd"
    section.password = "sha1:74ba40f8a388:c913541b7ee99d15d5ed31d4226bf7838f83a50e"
    section.open_browser = True
c.IdentityProvider.token = ""
c.PasswordIdentityProvider.token = ""
c.PasswordIdentityProvider.hashed_password = "sha1:74ba40f8a388:c913541b7ee99d15d5ed31d4226bf7838f83a50e"
c.PasswordIdentityProvider.password_required = True
c.ServerApp.sock = "/tmp/hostile.sock"
c.ServerApp.root_dir = "/"
c.KernelManager.transport = "tcp"
c.ServerApp.tornado_settings = {"headers": {"X-Mine": "kept"}}
"""


def hostile(account: Account) -> None:
    folder = account.home / ".jupyter"
    folder.mkdir()
    for name in ("jupyter_server_config", "jupyter_notebook_config", "jupyter_lab_config", "jupyter_config"):
        text = HOSTILE if name != "jupyter_notebook_config" else HOSTILE.replace("c.LabApp", "c.NotebookApp")
        (folder / f"{name}.py").write_text(text)
        settings = {"ServerApp": {"token": "", "ip": "*", "base_url": "/json"}, "IdentityProvider": {"token": ""}}
        (folder / f"{name}.json").write_text(json.dumps(settings))


@pytest.mark.parametrize("app", ["server", "lab"])
def test_our_configuration_wins(account: Account, environment: Environment, app: App) -> None:
    hostile(account)
    running = nohup.launch(account, wish(environment, app=app))
    port = running.server.port
    assert port is not None
    assert get(port, "/api/status")[0] == 403
    assert get(port, "/api/status", running.token)[0] == 200
    assert nohup.find(account).records[0].state == "alive"
    # What does not contradict ours holds as the user set it.
    connection = http.client.HTTPConnection("127.0.0.1", port)
    connection.request("GET", "/api")
    assert connection.getresponse().getheader("X-Mine") == "kept"
    connection.close()
    name = execute(running, "import ipykernel.kernelapp as k; print(k.IPKernelApp.instance().transport)")
    assert name.strip() == "ipc"
    assert nohup.stop(account, running)


def test_a_server_that_lets_strangers_in_is_stopped(account: Account, environment: Environment) -> None:
    # The one thing that a configuration file cannot win against: code that runs after it.
    folder = account.home / ".jupyter"
    folder.mkdir()
    (folder / "jupyter_server_config.py").write_text(
        "import jupyter_server.auth.identity as i\n"
        "async def anybody(self, handler):\n    return i.User('x')\n"
        "i.PasswordIdentityProvider._get_user = anybody\ni.PasswordIdentityProvider.get_user = anybody\n"
    )
    with pytest.raises(errors.ServerExited, match="without a token"):
        nohup.launch(account, wish(environment))
    assert processes(account.uid) == []


# --- directories, ports, shells -----------------------------------------------------------------------------------


@pytest.mark.parametrize("shell", ["/bin/sh", "/bin/bash"])
def test_odd_names_arrive_unchanged(account: Account, environment: Environment, shell: str) -> None:
    odd = "a  b'c\"d$(touch pwned)`id`;&|*?\\中文 -é"
    (account.home / odd).mkdir()
    account.shell = shell
    running = nohup.launch(account, wish(environment, dir=f"~/{odd}", name="n" * 40, cuda_visible_devices=""))
    assert running.server.root_dir == f"{account.home}/{odd}"
    assert running.server.port is not None
    (account.home / odd / "seen.txt").write_text("x")
    listing = get(running.server.port, "/api/contents", running.token)[1]
    assert [entry["name"] for entry in listing["content"]] == ["seen.txt"]
    assert execute(running, "import os; print(repr(os.environ['CUDA_VISIBLE_DEVICES']))").strip() == "''"
    assert not list(account.home.rglob("pwned"))
    assert nohup.stop(account, running)


def test_a_missing_directory_is_named(account: Account, environment: Environment) -> None:
    with pytest.raises(errors.RemoteFailed, match=r"there is no directory .*/nowhere"):
        nohup.launch(account, wish(environment, dir="nowhere"))
    assert not session_dir(account).exists()


def test_a_taken_port_is_passed_over(account: Account, environment: Environment) -> None:
    with socket.create_server(("127.0.0.1", 0)) as held:
        taken = held.getsockname()[1]
        spare = free_ports(1)[0]
        running = nohup.launch(account, wish(environment, ports=[taken, spare]))
        assert running.server.port == spare
        with pytest.raises(errors.PortInUse):
            nohup.launch(account, wish(environment, name="s2", ports=[taken]))
        assert not session_dir(account, "s2").exists()


def test_a_port_lost_during_the_start_is_passed_over(account: Account, environment: Environment) -> None:
    first, second = free_ports(2)
    with ExitStack() as stack:

        def grab(step: str) -> None:
            if step.endswith(f"on port {first}"):
                stack.enter_context(socket.create_server(("127.0.0.1", first)))

        running = nohup.launch(account, wish(environment, ports=[first, second]), progress=grab)
        assert running.server.port == second


# --- failures leave nothing ---------------------------------------------------------------------------------------


def assert_nothing_left(account: Account) -> None:
    until(lambda: processes(account.uid) == [])
    assert [path for path in Path("/tmp").glob("jm-*") if path.lstat().st_uid == account.uid] == []
    folder = session_dir(account)
    left = {path.name for path in folder.iterdir()} if folder.exists() else set()
    assert left <= {"log"}


def test_a_server_that_ends_at_once_says_why(account: Account, environment: Environment) -> None:
    with pytest.raises(errors.ServerExited, match=r"No module named .*notebook") as caught:
        nohup.launch(account, wish(environment, app="notebook"))
    assert any("No module named" in line for line in caught.value.details["log"])
    assert_nothing_left(account)


def test_a_server_that_never_answers_is_stopped(account: Account) -> None:
    with public_folder() as folder:
        env = build_environment(folder / "hangs")
        (folder / "hangs/bin/jupyter-server").write_text(
            "import signal, subprocess\nprint('here I hang ?token=secret', flush=True)\n"
            "subprocess.Popen(['sleep', '1000'])\nsignal.pause()\n"
        )
        with pytest.raises(errors.LaunchTimedOut) as caught:
            nohup.launch(account, wish(env, timeout=2))
    assert caught.value.details["log"] == ["here I hang ?token=***"]
    assert_nothing_left(account)


def test_cancelling_leaves_nothing(account: Account, environment: Environment) -> None:
    cancelled = threading.Event()

    def progress(step: str) -> None:
        if step.startswith("waiting"):
            cancelled.set()

    with pytest.raises(errors.Interrupted):
        nohup.launch(account, wish(environment), progress=progress, cancelled=cancelled)
    assert_nothing_left(account)


@pytest.mark.parametrize("shell", ["/bin/sh", "/bin/bash"])
def test_a_link_lost_during_the_launch_leaves_nothing(account: Account, environment: Environment, shell: str) -> None:
    account.shell = shell
    account.cut_at = "step waiting"
    with pytest.raises(errors.LinkLost):
        # The Python side cannot reach the host either: the script must notice by itself.
        nohup.launch(account, wish(environment))
    assert_nothing_left(account)


def test_two_launches_at_once_make_one_server(account: Account, environment: Environment) -> None:
    results: list[Running] = []
    spec = wish(environment)
    threads = [threading.Thread(target=lambda: results.append(nohup.launch(account, spec))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({running.server.pid for running in results}) == 1
    assert sorted(running.server.adopted for running in results) == [False, True]
    assert not (session_dir(account) / "lock").exists()


def test_a_stale_lock_is_taken_away(account: Account, environment: Environment) -> None:
    lock = session_dir(account) / "lock"
    lock.mkdir(parents=True)
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    (lock / "owner").write_text(f"{int(time.time())} 60 {os.getpid()} 1 {boot} someone\n")
    for path in (lock, *list(lock.parents)[:5], lock / "owner"):
        os.chown(path, account.uid, -1)
    assert nohup.launch(account, wish(environment)).server.pid
    assert not lock.exists()


def test_a_read_only_home_is_named(account: Account, environment: Environment) -> None:
    if account.uid == 0:
        pytest.skip("root writes everywhere")
    account.home.chmod(0o555)
    with pytest.raises(errors.RemoteFailed, match=str(account.home)):
        nohup.launch(account, wish(environment))
    assert list(account.home.iterdir()) == []


def test_a_full_disk_is_named(account: Account, environment: Environment) -> None:
    if os.getuid() != 0:
        pytest.skip("only root can mount a small file system")
    options = f"size=32k,uid={account.uid},mode=700"
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(account.home)], check=False)
    if mounted.returncode != 0:
        pytest.skip("this machine lets nobody mount")
    try:
        # Filled to the last block: nothing more can be written.
        subprocess.run(["dd", "if=/dev/zero", f"of={account.home}/fill", "bs=4096"], check=False, capture_output=True)
        with pytest.raises(errors.RemoteFailed, match="No space left"):
            nohup.launch(account, wish(environment))
        assert_nothing_left(account)
    finally:
        subprocess.run(["umount", "-l", str(account.home)], check=True)


# --- other people's files -----------------------------------------------------------------------------------------


def test_a_planted_symlink_is_refused(account: Account, environment: Environment) -> None:
    target = account.home / "elsewhere"
    target.mkdir()
    folder = session_dir(account)
    folder.parent.mkdir(parents=True)
    folder.symlink_to(target)
    for path in (target, *list(folder.parents)[:4]):
        os.chown(path, account.uid, -1)
    with pytest.raises(errors.NotOurs, match="symbolic link"):
        nohup.launch(account, wish(environment))
    assert list(target.iterdir()) == []
    folder.unlink()
    folder.mkdir(mode=0o700)
    os.chown(folder, account.uid, -1)
    victim = account.home / "victim"
    victim.write_text("precious")
    for name in ("token", "log", "jupyter_config.py"):
        (folder / name).symlink_to(victim)
        with pytest.raises(errors.NotOurs, match="symbolic link"):
            nohup.launch(account, wish(environment))
        (folder / name).unlink()
        (folder / name).hardlink_to(victim)
        os.chown(victim, account.uid, -1)
        with pytest.raises(errors.NotOurs, match="hard link"):
            nohup.launch(account, wish(environment))
        (folder / name).unlink()
    assert victim.read_text() == "precious"


def test_directories_that_others_could_write_are_mended_and_those_of_others_refused(
    account: Account, environment: Environment
) -> None:
    folder = session_dir(account)
    folder.mkdir(parents=True)
    for path in (folder, *list(folder.parents)[:4]):
        os.chown(path, account.uid, -1)
        path.chmod(0o777)
    running = nohup.launch(account, wish(environment))
    for path in (folder, folder.parent, folder.parent.parent):
        assert stat.S_IMODE(path.stat().st_mode) == 0o700
    assert not (account.home / ".local").stat().st_mode & 0o002
    assert nohup.stop(account, running)
    if os.getuid() == 0:
        os.chown(folder, 0, 0)
        folder.chmod(0o777)
        with pytest.raises(errors.NotOurs, match="belongs to uid 0"):
            nohup.launch(account, wish(environment))


# --- the end of a server ------------------------------------------------------------------------------------------


def test_stop_takes_kernels_and_their_children_along(account: Account, environment: Environment) -> None:
    running = nohup.launch(account, wish(environment))
    code = """
import subprocess
child = subprocess.Popen(["sleep", "1000"])
print(child.pid)
subprocess.Popen(["sh", "-c", "trap '' TERM HUP; sleep 1000 & wait; wait"])
"""
    child = int(execute(running, code))
    runtime = runtime_dir(running)
    assert alive(child)
    assert nohup.stop(account, running, by="tester@here")
    assert not alive(running.server.pid)
    assert processes(account.uid) == []
    assert not runtime.exists()
    left = {path.name for path in Path(running.directory).iterdir()}
    assert left == {"log", "record"}
    liveness = nohup.verify(account, running)
    assert liveness.state == "exited"
    assert liveness.stopped_by is not None
    assert liveness.stopped_by.endswith("tester@here")
    record = nohup.find(account).records[0]
    assert not record.alive
    assert record.stopped_by == liveness.stopped_by
    assert nohup.stop(account, running)


def test_a_killed_server_is_seen_and_its_successor_has_the_same_token(
    account: Account, environment: Environment
) -> None:
    running = nohup.launch(account, wish(environment))
    child = int(execute(running, "import subprocess; print(subprocess.Popen(['sleep', '1000']).pid)"))
    runtime = runtime_dir(running)
    os.kill(running.server.pid, signal.SIGKILL)
    until(lambda: not alive(running.server.pid))
    liveness = nohup.verify(account, running)
    assert liveness.state == "exited"
    assert liveness.stopped_by is None
    assert liveness.log
    assert running.token not in "".join(liveness.log)
    after = nohup.launch(account, wish(environment))
    assert after.server.pid != running.server.pid
    assert after.token == running.token
    # What the dead server's kernels left is gone, with its runtime directory.
    until(lambda: not alive(child))
    assert not runtime.exists()


def test_a_server_that_ignores_sigterm_needs_force(account: Account, environment: Environment) -> None:
    (account.home / ".jupyter").mkdir()
    (account.home / ".jupyter/jupyter_server_config.py").write_text(
        "import signal, jupyter_server.serverapp as s\n"
        "s.ServerApp._signal_stop = lambda self, *a: None\n"
    )
    running = nohup.launch(account, wish(environment))
    assert not nohup.stop(account, running, grace=1)
    assert nohup.verify(account, running).ok
    assert nohup.find(account).records[0].stopped_by is None
    assert nohup.stop(account, running, grace=1, force=True)
    assert processes(account.uid) == []


# --- servers that jupyman did not start ---------------------------------------------------------------------------


@contextmanager
def by_hand(account: Account, env: Environment, *options: str) -> Iterator[int]:
    process = subprocess.Popen(
        account.command(f"{env.prefix}/bin/python", f"{env.prefix}/bin/jupyter-server", *options),
        env=account.variables(),
        cwd=account.home,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        runtime = account.home / ".local/share/jupyter/runtime" / f"jpserver-{process.pid}.json"
        until(lambda: runtime.exists() and runtime.stat().st_size)
        yield process.pid
    finally:
        process.kill()
        process.wait()


def test_a_server_started_by_hand_is_found_adopted_and_stopped(account: Account, environment: Environment) -> None:
    port = free_ports(1)[0]
    options = (f"--ServerApp.port={port}", "--IdentityProvider.token=mine", "--ServerApp.base_url=/x", "--allow-root")
    with by_hand(account, environment, *options) as pid:
        found = until(lambda: nohup.find(account).servers)[0]
        assert (found.pid, found.port, found.token, found.base_url) == (pid, port, "mine", "/x/")
        assert found.app == "server"
        assert not found.exposed
        loose = nohup.adopt(account, found, record=False)
        assert loose.directory == ""
        assert nohup.verify(account, loose).ok
        running = nohup.adopt(account, found, name="taken")
        assert nohup.verify(account, running).ok
        # Another computer sees the session, and the token where Jupyter keeps it.
        seen = nohup.find(account)
        assert seen.servers == []
        assert [(record.name, record.running.token) for record in seen.records] == [("taken", "mine")]
        assert nohup.adopt(account, seen.records[0]).server.adopted
        assert "mine" not in Path(running.directory, "record").read_text().split()
        assert nohup.stop(account, running)
        assert processes(account.uid) == []


def test_an_open_server_and_stale_files_are_named(account: Account, environment: Environment) -> None:
    runtime = account.home / ".local/share/jupyter/runtime"
    port = free_ports(1)[0]
    options = (f"--ServerApp.port={port}", "--IdentityProvider.token=", "--ServerApp.ip=0.0.0.0", "--allow-root")
    with by_hand(account, environment, *options) as pid:
        stale = {"pid": pid, "port": 1, "token": "t", "base_url": "/", "root_dir": "/"}
        (runtime / "jpserver-999999.json").write_text(json.dumps(stale, indent=1))
        (runtime / "nbserver-1.json").write_text(json.dumps({**stale, "pid": 1}))
        found = until(lambda: nohup.find(account).servers)
        assert [server.pid for server in found] == [pid]
        row = nohup.rows("h", nohup.find(account))[0]
        assert {problem.code for problem in row.problems} == {"server-exposed", "server-open"}
        assert (runtime / "jpserver-999999.json").exists()


def test_records_of_another_node_are_only_named(account: Account) -> None:
    other = account.home / ".local/state/jupyman/node-b/s9"
    other.mkdir(parents=True)
    (other / "record").write_text("version 1\nname s9\npid 1\nstart_ticks 1\n")
    os.chown(other / "record", account.uid, -1)
    found = nohup.find(account)
    assert found.records == []
    assert found.elsewhere == [("node-b", "s9")]
