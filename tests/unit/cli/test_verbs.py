"""Each verb, in process, against a fake behind the real daemon server: its request, its output, its exit status.

Over 400 lines because it has one short test for each verb.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from jupyman import api, errors, model
from jupyman.api import results
from jupyman.cli.context import Context
from tests import fakes


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[fakes.Served]:
    with fakes.serving(tmp_path_factory.mktemp("home")) as served:
        yield served


@pytest.fixture
def daemon(server: fakes.Served) -> fakes.Served:
    server.reset()
    return server


def plain(value: Any) -> Any:
    return json.loads(msgspec.json.encode(value))


REQUESTS: list[tuple[str, Any]] = [
    ("up", api.Up(open_browser=True)),
    ("up server1 --no-browser", api.Up(host="server1")),
    (
        (
            "up alice@10.0.0.7:2222 --name s2 --env pytorch --dir ~/w --app notebook --gpu free>=20G --port 9000 "
            "--local-port 9001 --on-conflict fail --restart always --no-install --no-browser --timeout 7.5"
        ),
        api.Up(
            host="alice@10.0.0.7:2222",
            name="s2",
            env="pytorch",
            dir="~/w",
            app="notebook",
            gpu="free>=20G",
            port=9000,
            local_port=9001,
            on_conflict="fail",
            restart="always",
            install=False,
            timeout=7.5,
        ),
    ),
    ("up server1 --install --json", api.Up(host="server1", install=True)),
    ("down a b", api.Down(sessions=["a", "b"])),
    ("kill", api.Kill(targets=[])),
    ("kill server1 -y --force", api.Kill(targets=["server1"], yes=True, force=True)),
    ("kill 8888 --host server1", api.Kill(targets=["8888"], host="server1")),
    ("kill server1:8888 8889", api.Kill(targets=["server1:8888", "8889"])),
    ("kill --orphans server1 -y --force", api.Kill(targets=[], orphans="server1", yes=True, force=True)),
    ("ps", api.PsRequest()),
    ("ps -a server1 server2", api.PsRequest(hosts=["server1", "server2"], all=True)),
    ("tunnel 8888", api.Tunnel(specs=["8888"])),
    ("tunnel 8888 server1", api.Tunnel(specs=["8888"], host="server1")),
    ("tunnel 8888 10.0.0.7", api.Tunnel(specs=["8888"], host="10.0.0.7")),
    ("tunnel 8888 4090box", api.Tunnel(specs=["8888"], host="4090box")),
    ("tunnel 8080:80 5000:10.0.0.3:5000 --host h", api.Tunnel(specs=["8080:80", "5000:10.0.0.3:5000"], host="h")),
    ("tunnel 80:[::1]:80 --close", api.Tunnel(specs=["80:[::1]:80"], close=True)),
    ("url", api.Url()),
    ("url server1", api.Url(session="server1")),
    ("open server1", api.OpenCode(session="server1")),
    ("logs server1 -n 5 -f", api.Logs(session="server1", lines=5, follow=True)),
    ("check --env pytorch", api.Check(env="pytorch")),
    ("check server1", api.Check(host="server1")),
    ("check server1 --env e --deep", api.Check(host="server1", env="e", deep=True)),
    ("kernel add pytorch", api.KernelAdd(env="pytorch")),
    ("kernel add pytorch server1", api.KernelAdd(env="pytorch", host="server1")),
    (
        "kernel add pytorch --host server1 --name n --display-name D --install --replace",
        api.KernelAdd(env="pytorch", host="server1", name="n", display_name="D", install=True, replace=True),
    ),
    ("kernel ls", api.KernelLs()),
    ("kernel ls server1", api.KernelLs(host="server1")),
    ("kernel check", api.KernelCheck()),
    ("kernel check pytorch", api.KernelCheck(name="pytorch")),
    ("kernel check pytorch server1", api.KernelCheck(name="pytorch", host="server1")),
    ("kernel check alice@10.0.0.7:22", api.KernelCheck(host="alice@10.0.0.7:22")),  # no kernel can be called so
    ("kernel check p --host server1 --fix -y", api.KernelCheck(name="p", host="server1", fix=True, yes=True)),
    ("kernel rm pytorch server1 -y", api.KernelRm(name="pytorch", host="server1", yes=True)),
    ("env ls", api.EnvLs()),
    ("env ls server1", api.EnvLs(host="server1")),
    ("env create new", api.EnvCreate(name="new")),
    (
        "env create new server1 --torch --pyg -d",
        api.EnvCreate(name="new", host="server1", torch="auto", pyg=True, detach=True),
    ),
    (
        (
            "env create new --host server1 --python 3.12 --torch 2.5.1+cu121 --cuda cu121 --packages a>=1 "
            "--packages pip:b --channel x --channel y --mirror tuna --torch-index file:///w --tool uv --dir ~/e "
            "--kernel k --replace --dry-run"
        ),
        api.EnvCreate(
            name="new",
            host="server1",
            python="3.12",
            torch="2.5.1+cu121",
            cuda="cu121",
            packages=["a>=1", "pip:b"],
            channels=["x", "y"],
            mirror="tuna",
            torch_index="file:///w",
            tool="uv",
            dir="~/e",
            kernel="k",
            replace=True,
            dry_run=True,
        ),
    ),
    ("env logs new server1 -n 3 -f", api.EnvLogs(name="new", host="server1", lines=3, follow=True)),
    ("env rm ~/e/new --host server1 -y --force", api.EnvRm(env="~/e/new", host="server1", yes=True, force=True)),
    ("env mirror ls server1", api.EnvMirrorLs(host="server1")),
    ("env mirror use tuna server1 -y", api.EnvMirror(action="use", name="tuna", host="server1", yes=True)),
    ("env mirror reset --host server1", api.EnvMirror(action="reset", host="server1")),
    ("host ls", api.HostLs()),
    ("host trust server1 -y", api.HostTrust(host="server1", yes=True)),
]


@pytest.mark.parametrize(("line", "request_"), REQUESTS)
def test_request(daemon: fakes.Served, line: str, request_: Any) -> None:
    result = daemon.run(*line.split())
    assert (result.status, daemon.last) == (0, request_), result.stderr


JSON = [
    ("up server1 --json", api.Up),
    ("down server1 --json", api.Down),
    ("kill server1 -y --json", api.Kill),
    ("ps --json", api.PsRequest),
    ("tunnel 6006 --json", api.Tunnel),
    ("url --json", api.Url),
    ("check --json", api.Check),
    ("kernel add pytorch --json", api.KernelAdd),
    ("kernel ls --json", api.KernelLs),
    ("kernel check --json", api.KernelCheck),
    ("kernel rm pytorch -y --json", api.KernelRm),
    ("env ls --json", api.EnvLs),
    ("env create new --json", api.EnvCreate),
    ("env rm new -y --json", api.EnvRm),
    ("env mirror ls --json", api.EnvMirrorLs),
    ("env mirror use m -y --json", api.EnvMirror),
    ("host ls --json", api.HostLs),
    ("host trust server1 --json", api.HostTrust),
]


@pytest.mark.parametrize(("line", "kind"), JSON)
def test_json_is_the_result_and_nothing_else(daemon: fakes.Served, line: str, kind: type[api.AnyRequest]) -> None:
    result = daemon.run(*line.split())
    assert result.status == 0
    assert result.json == plain(fakes.ANSWERS[kind])
    assert result.stderr == ""
    assert result.browsed == []


@pytest.mark.parametrize(("line", "kind"), JSON)
def test_failure_as_json(daemon: fakes.Served, line: str, kind: type[api.AnyRequest]) -> None:
    fault = errors.PortInUse("taken", "choose", port=8888)
    daemon.backend.answers[kind] = fault
    result = daemon.run(*line.split())
    assert result.status == fault.status
    assert result.json == {"error": plain(fault.info())}


@pytest.mark.parametrize("cls", errors.every()[1:], ids=lambda cls: cls.__name__)
def test_every_error_has_its_status_and_two_lines(daemon: fakes.Served, cls: type[errors.JupymanError]) -> None:
    daemon.backend.answers[api.PsRequest] = cls("it\nhappened")
    result = daemon.run("ps")
    assert result.status == cls.status
    assert result.stdout == ""
    assert result.stderr.splitlines() == ["error: it happened", f"hint: {cls.default_hint}"]


def test_a_bug_names_the_log(daemon: fakes.Served) -> None:
    daemon.backend.answers[api.PsRequest] = ZeroDivisionError("oh")
    result = daemon.run("ps")
    assert result.status == 1
    assert str(daemon.home / "state" / "daemon.log") in result.stderr


def test_a_bug_here_is_kept_in_the_log(daemon: fakes.Served, monkeypatch: pytest.MonkeyPatch) -> None:
    def out(context: Context, text: str = "") -> None:
        raise KeyError(text)

    monkeypatch.setattr(Context, "out", out)
    result = daemon.run("url")
    log = daemon.home / "state" / "daemon.log"
    assert result.status == 1
    assert str(log) in result.stderr
    assert "KeyError" in log.read_text()
    assert log.stat().st_mode & 0o077 == 0


# --- what people see ----------------------------------------------------------------------------------------------


def test_up_prints_the_address_and_opens_a_one_time_one(daemon: fakes.Served) -> None:
    def up(request: api.Up, operation: api.Operation) -> model.Session:
        operation.emit(api.Step(key="link", text="connecting", state="run"))
        operation.emit(api.Step(key="link", text="connected", state="done", seconds=0.2))
        if request.open_browser:
            operation.emit(api.OpenBrowser(url="/go?code=once"))
        return fakes.SESSION

    daemon.backend.scripts[api.Up] = up
    result = daemon.run("up", "server1")
    assert result.stdout == fakes.SECRET_URL + "\n"
    assert result.browsed == [f"{daemon.base}/go?code=once"]
    lines = result.stderr.splitlines()
    assert len(lines) == 1  # no terminal: finished steps only
    assert lines[0].startswith("✓ connected")
    assert lines[0].endswith("0.2 s")
    assert daemon.run("up", "server1", "--no-browser").browsed == []
    assert daemon.run("up", "server1", "--json").browsed == []


def test_up_names_problems_and_their_fix(daemon: fakes.Served) -> None:
    problem = model.Problem(code="server-as-root", severity="warning", text="runs as root", fix="use an account")
    daemon.backend.answers[api.Up] = msgspec.structs.replace(fakes.SESSION, problems=[problem])
    assert daemon.run("up").stderr.splitlines() == ["warning: runs as root", "  fix: use an account"]


@pytest.mark.parametrize("tty", [True, False])
def test_what_to_do_with_a_taken_port_is_decided_by_the_daemon(daemon: fakes.Served, tty: bool) -> None:
    """It knows the host, and its table in config.toml, also where the user names none."""
    daemon.run("up", "server1", tty=tty)
    assert daemon.last.on_conflict is None
    assert daemon.backend.clients[-1].interactive is tty


def test_ps_shows_no_token(daemon: fakes.Served) -> None:
    result = daemon.run("ps")
    assert " ".join(result.stdout.splitlines()[0].split()) == "NAME HOST STATE LINK URL ENV GPU PORT UPTIME"
    assert "http://127.0.0.1:8888/lab" in result.stdout
    assert "pytorch" in result.stdout
    assert "127.0.0.1:6006" in result.stdout
    assert "secret" not in result.stdout


def test_ps_of_nothing(daemon: fakes.Served) -> None:
    daemon.backend.answers[api.PsRequest] = results.Ps()
    result = daemon.run("ps")
    assert (result.status, result.stdout) == (0, "")
    assert "jupyman up" in result.stderr


def test_ps_with_everything_unknown(daemon: fakes.Served) -> None:
    session = model.Session(
        name="x", host="x", state="lost", link=model.LinkStatus(state="needs-auth", last_error="no key fits")
    )
    found = model.FoundServer(host="x", pid=1, port=None, user="alice", root_dir=None, started=None)
    daemon.backend.answers[api.PsRequest] = results.Ps(sessions=[session], servers=[found])
    result = daemon.run("ps", "-a")
    assert result.status == 0
    assert "None" not in result.stdout
    assert "no key fits" in result.stdout


GONE = model.ErrorInfo(code="host-unreachable", message="h2 does not answer", hint="look at the network")


def failing(kind: type[api.AnyRequest]) -> Any:
    return msgspec.structs.replace(fakes.ANSWERS[kind], error=GONE)


@pytest.mark.parametrize(
    ("line", "kind", "answer", "shown"),
    [
        (
            "ps -a",
            api.PsRequest,
            results.Ps(sessions=[fakes.SESSION], unreachable=[results.Unreachable(host="h2", error=GONE)], error=GONE),
            ["server1", "NOT REACHED", "h2", "h2 does not answer"],
        ),
        (
            "kill server1 h2:1",
            api.Kill,
            failing(api.Kill),
            ["stopped session server1"],
        ),
        (
            "down server1 x",
            api.Down,
            failing(api.Down),
            ["server1: forwards closed"],
        ),
        ("tunnel 1 2", api.Tunnel, failing(api.Tunnel), ["127.0.0.1:6006"]),
    ],
)
def test_what_was_done_is_shown_beside_what_failed(
    daemon: fakes.Served, line: str, kind: type[api.AnyRequest], answer: Any, shown: list[str]
) -> None:
    daemon.backend.answers[kind] = answer
    result = daemon.run(*line.split())
    assert result.status == 10
    assert [text for text in shown if text not in result.stdout] == []
    assert result.stderr.splitlines()[-2:] == ["error: h2 does not answer", "hint: look at the network"]
    told = daemon.run(*line.split(), "--json")
    assert (told.status, told.stderr) == (10, "")
    assert told.json["error"] == plain(GONE)
    assert {key: told.json[key] for key in plain(answer)} == plain(answer), "one object holds both"


def ago(seconds: float) -> str:
    return (datetime.now(UTC) - timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%SZ")


@pytest.mark.parametrize(
    ("state", "away", "told"),
    [
        ("up", 600, ""),
        ("reconnecting", 2, ""),  # a blip
        ("reconnecting", 60, "no answer in 3 s (jupyman keeps trying, next attempt at "),
        ("connecting", 60, ""),
        ("needs-auth", 1, "no answer in 3 s (jupyman up server1)"),
        ("failed", 1, "no answer in 3 s (jupyman up server1)"),
    ],
)
def test_ps_says_what_is_the_matter_and_keeps_silent_about_a_blip(
    daemon: fakes.Served, state: model.LinkState, away: float, told: str
) -> None:
    link = model.LinkStatus(
        state=state, since=ago(away), reconnects=3, last_error="no answer in 3 s", next_attempt=ago(-3)
    )
    session = msgspec.structs.replace(fakes.SESSION, link=link)
    daemon.backend.answers[api.PsRequest] = results.Ps(sessions=[session])
    lines = daemon.run("ps").stdout.splitlines()
    assert f"{state} (reconnected 3 times)" in lines[1]
    if told:
        assert lines[2].startswith(f"server1: {told}")
    assert len(lines) == (3 if told else 2)


def test_ps_says_once_for_each_host_what_keeps_its_forwards(daemon: fakes.Served) -> None:
    link = model.LinkStatus(state="needs-auth", since=ago(60), last_error="it asks for a code")
    tunnel = msgspec.structs.replace(fakes.TUNNEL, link=link, state="waiting", open=2, bytes_in=2048, bytes_out=5)
    other = msgspec.structs.replace(tunnel, local="127.0.0.1:6007")
    daemon.backend.answers[api.PsRequest] = results.Ps(forwards=[tunnel, other])
    lines = daemon.run("ps").stdout.splitlines()
    assert lines[0].split() == ["FORWARD", "HOST", "REMOTE", "STATE", "OPEN", "IN", "OUT"]
    assert lines[1].split()[3:] == ["waiting", "2", "2", "kiB", "5", "B"]
    assert lines[3:] == ["server1: it asks for a code (jupyman tunnel 6006 --host server1)"]
    session = msgspec.structs.replace(fakes.SESSION, link=link)
    daemon.backend.answers[api.PsRequest] = results.Ps(sessions=[session], forwards=[tunnel])
    assert daemon.run("ps").stdout.count("it asks for a code") == 1


def test_what_a_host_says_cannot_drive_the_terminal(daemon: fakes.Served) -> None:
    evil = "a\x1b[2J\x9b31m\x00b\u202ec\nSPOOFED  row"
    found = model.FoundServer(host="x", pid=1, port=1, user=evil, root_dir=evil, started=None)
    daemon.backend.answers[api.PsRequest] = results.Ps(servers=[found])
    result = daemon.run("ps", "-a", tty=True)
    assert not {"\x1b", "\x9b", "\x00", "\u202e"} & set(result.stdout)
    assert not any(line.startswith("SPOOFED") for line in result.stdout.splitlines())
    kept = daemon.run("ps", "-a", "--json", tty=True)
    assert kept.json["servers"][0]["user"] == evil  # escaped, not changed
    assert not {"\x1b", "\x9b", "\x00", "\u202e"} & set(kept.stdout)


def test_logs_come_as_they_are_emitted(daemon: fakes.Served) -> None:
    def logs(request: api.Logs, operation: api.Operation) -> Any:
        for number in range(request.lines):
            operation.emit(api.Output(line=f"line {number} \x1b[31m"))
        return results.SessionName(name="server1")

    daemon.backend.scripts[api.Logs] = logs
    assert daemon.run("logs", "-n", "2").stdout == "line 0 \\x1b[31m\nline 1 \\x1b[31m\n"


def test_a_failed_server_shows_its_last_lines(daemon: fakes.Served) -> None:
    daemon.backend.answers[api.Up] = errors.ServerExited("it ended", log=["Traceback", "ImportError: x"])
    result = daemon.run("up")
    assert result.status == 23
    assert result.stderr.splitlines()[:3] == ["  Traceback", "  ImportError: x", "error: it ended"]


def test_check_report(daemon: fakes.Served) -> None:
    text = daemon.run("check").stdout
    for word in ("Debian", "550.54", "12.4", "A100", "? / 80 GiB", "torch 2.4.0 fits", "fix: remove something"):
        assert word in text


def test_kernel_check_of_a_broken_kernel(daemon: fakes.Served) -> None:
    broken = msgspec.structs.replace(fakes.KERNEL, ok=False, problem="no such python")
    daemon.backend.answers[api.KernelCheck] = results.Kernels(kernels=[broken])
    assert daemon.run("kernel", "check", "pytorch").status == 25
    assert daemon.run("kernel", "check", "PyTorch").status == 25
    for words in ((), ("server1",)):  # the host's word names no kernel
        result = daemon.run("kernel", "check", *words)
        assert result.status == 0
        assert "no such python" in result.stdout


def test_kernel_check_says_what_is_wrong_and_what_was_done(daemon: fakes.Served) -> None:
    problem = model.Problem(code="widgets-kernel", severity="warning", text="no ipywidgets", fix="install it")
    command = ["/e/bin/python", "-m", "pip", "install", "ipywidgets>=8,<9"]
    repairs = [
        model.Repair(prefix="/e", packages=["ipywidgets>=8,<9"], command=command, state=state)
        for state in ("done", "declined")
    ]
    answer = results.Kernels(kernels=[fakes.KERNEL], problems=[problem], repairs=repairs)
    daemon.backend.answers[api.KernelCheck] = answer
    result = daemon.run("kernel", "check", "--fix", "-y")
    assert result.stdout.count("done: /e/bin/python -m pip install 'ipywidgets>=8,<9'") == 1
    assert "warning: no ipywidgets\n    fix: install it" in result.stdout
    assert "restart the kernel" in result.stderr
    told = daemon.run("kernel", "check", "--fix", "-y", "--json").json
    assert [one["state"] for one in told["repairs"]] == ["done", "declined"]
    assert [one["code"] for one in told["problems"]] == ["widgets-kernel"]


def test_kernels_of_one_name_are_told_apart(daemon: fakes.Served) -> None:
    same = [
        msgspec.structs.replace(fakes.KERNEL, name="python3", environment=env, seen_by=seen)
        for env, seen in (("lab", ["lab"]), ("pytorch", []), (None, None))
    ]
    daemon.backend.answers[api.KernelLs] = results.Kernels(kernels=same)
    rows = [line.split()[:3] for line in daemon.run("kernel", "ls").stdout.splitlines()]
    assert rows == [
        ["KERNEL", "ENVIRONMENT", "SERVERS"],
        ["python3", "lab", "lab"],
        ["python3", "pytorch", "none"],
        ["python3", "-", "all"],
    ]


def test_open_without_a_browser_says_what_to_do(daemon: fakes.Served) -> None:
    def opened(request: api.OpenCode, operation: api.Operation) -> Any:
        del request
        operation.emit(api.OpenBrowser(url="/go?code=once"))
        return results.Opened(name="server1")

    daemon.backend.scripts[api.OpenCode] = opened
    assert daemon.run("open").browsed == [f"{daemon.base}/go?code=once"]
    assert daemon.run("open", "--json").json == {"name": "server1", "opened": True}
    result = daemon.run("open", browser=False)
    assert result.status == 0
    assert "jupyman url server1" in result.stderr


# --- questions ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("prompt", "typed", "answer"),
    [
        (api.Prompt(id="", kind="secret", text="Password:"), "s3cret\n", "s3cret"),
        (api.Prompt(id="", kind="text", text="Name?", default="x"), "\n", "x"),
        (api.Prompt(id="", kind="confirm", text="Sure?"), "YES\n", "y"),
        (api.Prompt(id="", kind="confirm", text="Sure?"), "\n", "n"),
        (api.Prompt(id="", kind="confirm", text="Sure?", default="y"), "\n", "y"),
        (api.Prompt(id="", kind="confirm", text="Sure?", default="y"), "what\n", "n"),
        (api.Prompt(id="", kind="choice", text="Which?", choices=["next", "kill"]), "\n", "next"),
        (api.Prompt(id="", kind="choice", text="Which?", choices=["next", "kill"]), "k\n", "kill"),
        (api.Prompt(id="", kind="choice", text="Which?", choices=["next", "kill"]), "x\nkill\n", "kill"),
        (api.Prompt(id="", kind="choice", text="Which?", choices=["kill all", "kill"]), "kill\n", "kill"),
    ],
)
def test_question(daemon: fakes.Served, prompt: api.Prompt, typed: str, answer: str) -> None:
    said: list[str] = []

    def script(request: api.Url, operation: api.Operation) -> Any:
        del request
        said.append(operation.ask(prompt))
        return results.SessionUrl(name="x", url="http://x")

    daemon.backend.scripts[api.Url] = script
    result = daemon.run("url", stdin=typed, tty=True)
    assert (result.status, said) == (0, [answer])
    assert prompt.text in result.stderr
    assert result.stdout == "http://x\n"


def test_end_of_input_gives_up(daemon: fakes.Served) -> None:
    daemon.backend.scripts[api.Url] = lambda _, operation: operation.ask(api.Prompt(id="", kind="text", text="?"))
    assert daemon.run("url", tty=True).status == 130


def test_no_question_without_a_terminal(daemon: fakes.Served) -> None:
    daemon.backend.scripts[api.Url] = lambda _, operation: operation.ask(api.Prompt(id="", kind="text", text="?"))
    result = daemon.run("url", stdin="yes\n")
    assert result.status == 130
    assert "?" not in result.stderr.split("error:")[0]


def test_the_daemon_learns_of_the_caller(daemon: fakes.Served) -> None:
    daemon.run("ps", tty=True, environ={"SSH_AUTH_SOCK": "/a", "JUPYMAN_SSH_CONFIG": "/b"})
    assert daemon.backend.clients[-1] == api.ClientContext(ssh_auth_sock="/a", ssh_config="/b", interactive=True)
