"""Whose GPU it is, as it is told: `check` and `ps` in words, the daemon's notes on its sessions, orphans, notebooks."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from jupyman import api, model
from jupyman.api import results
from jupyman.core.sessions import gpu_monitor
from jupyman.core.sessions.registry import SessionRegistry, SessionRuntime
from jupyman.core.sessions.state import Absent, Proven
from jupyman.core.verbs import kill_orphans
from jupyman.host.gpus import report as gpus
from jupyman.host.kernels import notebooks
from jupyman.host.shell import script
from jupyman.model import Gpu, GpuProcess, GpuUse, MigInstance, Problem
from tests import fakes
from tests.unit.core import known
from tests.unit.core.known import AT, UP, server

GIB = 1024**3
LINK = object()
MINE = GpuProcess(
    pid=4242,
    name="/opt/conda/bin/python",
    memory=3 * GIB,
    user="alice",
    ours=True,
    kernel="1f3c9a20-7d41",
    notebook="work/train.ipynb",
    server=4121,
    session="server1",
)
PLAIN = GpuProcess(pid=4243, name="train\x1b[2J, x", memory=None, user="bob", kernel="aaaabbbb-cccc")
UNSEEN = GpuProcess(pid=123, name=None, memory=GIB)
CONSOLE = GpuProcess(pid=4244, name="python", memory=GIB, user="alice", ours=True, server=4121, session="server1")


def gpu(index: int, *processes: GpuProcess, **more: Any) -> Gpu:
    return Gpu(
        index=index,
        uuid=f"GPU-{index}",
        name="A100",
        memory_total=80 * GIB,
        memory_used=3 * GIB,
        utilization=7,
        processes=list(processes),
        **more,
    )


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[fakes.Served]:
    with fakes.serving(tmp_path_factory.mktemp("home")) as served:
        yield served


def words(text: str) -> list[str]:
    return [" ".join(line.split()) for line in text.splitlines()]


def test_check_says_whose_each_process_is(daemon: fakes.Served) -> None:
    parts = [MigInstance(uuid="MIG-5a6e", name="3g.40gb")]
    report = model.HostReport(
        host="h",
        os=None,
        user="alice",
        shell=None,
        gpus=[gpu(0, MINE, PLAIN, UNSEEN, CONSOLE), gpu(1, mig=True, instances=parts)],
        cuda_toolkits=[model.Toolkit(version="12.4", path="/usr/local/cuda-12.4", on_path=True)],
        environments=[
            model.Environment(
                name="e", prefix="/e", kind="venv", python=None, jupyter=None, ipykernel=None, torch=None, cudnn="9.1"
            )
        ],
        deep=[
            model.DeepCheck(env="/e", ok=True, text="torch 2.5.1 computed on A100", device="A100", seconds=1.0),
            model.DeepCheck(env="/f", ok=False, text="torch fails"),
        ],
    )
    daemon.backend.answers[api.Check] = report
    text = daemon.run("check").stdout
    lines = words(text)
    assert "0 A100 3 GiB / 80 GiB 7 % GPU-0" in lines
    assert "MIG 3g.40gb MIG-5a6e" in lines
    assert "0 3 GiB alice 4242 work/train.ipynb (session server1, kernel 1f3c9a20)" in lines
    assert "0 ? bob 4243 train\\x1b[2J, x (kernel aaaabbbb)" in lines
    assert "0 1 GiB - 123 PID 123 (another container or a user that cannot be seen)" in lines
    assert "0 1 GiB alice 4244 python (session server1)" in lines
    assert "CUDA toolkit 12.4 in /usr/local/cuda-12.4 (nvcc on PATH)" in lines
    assert "cuDNN 9.1 in environment e" in lines
    assert "e: torch 2.5.1 computed on A100" in lines
    # A failure stands among the problems.
    assert "torch fails" not in text


def test_ps_says_what_a_sessions_notebooks_hold(daemon: fakes.Served) -> None:
    use = [
        GpuUse(gpu=0, pid=1, memory=3 * GIB, kernel="1f3c9a20-7d41", notebook="a.ipynb"),
        GpuUse(gpu=0, pid=2, memory=None, kernel="1f3c9a20-7d41"),
        GpuUse(gpu=1, pid=3, memory=GIB),
    ]
    session = model.Session(name="s", host="h", state="running", link=model.LinkStatus(), gpu_use=use)
    daemon.backend.answers[api.PsRequest] = results.Ps(sessions=[session])
    lines = daemon.run("ps").stdout.splitlines()
    assert lines[2:] == [
        "s: 3 GiB of GPU 0 held by a.ipynb (pid 1)",
        "s: ? of GPU 0 held by kernel 1f3c9a20 (pid 2)",
        "s: 1 GiB of GPU 1 held by a process of its server (pid 3)",
    ]


def test_kill_orphans_says_what_was_ended(daemon: fakes.Served) -> None:
    killed = {"target": "h", "session": None, "host": "h", "pid": 5, "port": None, "kernel": "1f3c", "memory": None}
    daemon.backend.answers[api.Kill] = {"killed": [killed]}
    assert daemon.run("kill", "--orphans", "h", "-y").stdout == "ended kernel 1f3c (pid 5) on h\n"
    assert daemon.last == api.Kill(targets=[], orphans="h", yes=True)
    for more in (("8888",), ("--host", "h")):
        assert daemon.run("kill", "--orphans", "h", *more).status == 2


# --- the daemon's notes -------------------------------------------------------------------------------------------


@pytest.fixture
def sessions(tmp_path: Path) -> SessionRegistry:
    return known.registry(tmp_path)


def with_gpus(sessions: SessionRegistry, *given: int) -> SessionRuntime:
    return known.put(sessions, running=server(gpus=list(given)), state="running", link=LINK)


def see(
    sessions: SessionRegistry,
    session: SessionRuntime,
    seen: list[Gpu],
    notebooks: dict[str, str] | None = None,
    trouble: Problem | None = None,
) -> None:
    running = session.current.running
    assert running is not None
    sessions.apply(session, gpu_monitor.observed(running, seen, notebooks or {}, trouble))


def codes(sessions: SessionRegistry, session: SessionRuntime) -> list[str]:
    return [problem.code for problem in sessions.view(session.current, UP).problems]


def test_what_was_seen_is_kept_with_the_session(sessions: SessionRegistry) -> None:
    one = with_gpus(sessions, 0)
    see(sessions, one, [gpu(0, MINE, UNSEEN), gpu(1, CONSOLE, PLAIN)], {"1f3c9a20-7d41": "a.ipynb"})
    view = sessions.view(one.current, UP)
    assert [(use.gpu, use.pid, use.notebook) for use in view.gpu_use] == [(0, 4242, "a.ipynb"), (1, 4244, None)]
    # Other GPUs than the session's do not matter.
    [problem] = view.problems
    assert problem.code == "gpu-shared"
    assert problem.text == (
        "GPU 0 of this session is used by others too: PID 123 (another container or a user that cannot be seen), 1 GiB"
    )


def test_a_gpu_that_vanished_and_a_driver_that_hangs(sessions: SessionRegistry) -> None:
    one = with_gpus(sessions, 0, 2)
    see(sessions, one, [gpu(0)])
    assert codes(sessions, one) == ["gpu-gone"]
    see(sessions, one, [], trouble=Problem(code="nvidia-smi-hangs", severity="warning", text="t", fix="f"))
    assert codes(sessions, one) == ["nvidia-smi-hangs"]


def test_it_is_forgotten_with_the_server(sessions: SessionRegistry) -> None:
    one = with_gpus(sessions, 0)
    see(sessions, one, [gpu(0, MINE, PLAIN)])
    assert codes(sessions, one) == ["gpu-shared"]
    running = server(gpus=[0])
    sessions.apply(one, Absent(problem=known.ENDED, running=running, at=0.0, restartable=False))
    assert codes(sessions, one) == ["server-exited"]
    assert sessions.view(one.current, UP).gpu_use == []
    sessions.apply(one, Proven(running=running, over=LINK, at=AT))
    assert codes(sessions, one) == ["gpu-shared"]
    sessions.apply(one, Proven(running=server(5, gpus=[0]), over=LINK, at=AT))
    assert codes(sessions, one) == []


# --- facts of the host --------------------------------------------------------------------------------------------

FACTS = [
    ("uid", "1000"),
    ("gpu.row", "0, GPU-0, A100, 550.54.15, 81920, 3000, 7, 8.0, Disabled"),
    ("gpu.app", "GPU-0, 500, python, 1024"),
    ("gpu.app", "GPU-0, 501, python, 1024"),
    ("gpu.app", "GPU-0, 600, sleep, [N/A]"),
    ("gpu.app", "GPU-0, 700, train, 5"),
    ("gpu.user", "500 alice"),
    ("gpu.uid", "500 1000"),
    ("gpu.uid", "501 1000"),
    ("gpu.uid", "700 1001"),
    ("gpu.link", "500 4121"),
    ("gpu.link", "700 4121"),  # a neighbour can forge such a line: the name of his process may hold a line break
    ("gpu.kernel", "500 /tmp/jm-x/kernel-k1.json"),
    ("orphan.pid", "490"),
    ("orphan.ticks", "7"),
    ("orphan.file", "/tmp/jm-x/kernel-k1.json"),
    ("orphan.memory", "2048"),
    ("orphan.child", "500"),
    ("orphan.child", "600"),
    ("orphan.pid", "500"),
    ("orphan.ticks", "8"),
    ("orphan.file", "/tmp/jm-x/kernel-k1.json"),
    ("orphan.memory", "1048576"),
    ("orphan.child", "600"),
    ("orphan.child", "x"),
    ("orphan.pid", "502"),
    ("orphan.ticks", "9"),
    ("orphan.file", "/no/id.json"),
]


def test_nobody_elses_process_belongs_to_a_server_of_ours() -> None:
    facts = script.Facts(FACTS)
    [seen] = gpus.attribute(gpus.read(facts), gpus.tree(facts), {4121: "s"}, {(4121, "k1"): "a.ipynb"})
    assert [one.user for one in seen.processes] == ["alice", "uid 1000", None, "uid 1001"]
    told = {one.pid: (one.ours, one.server, one.session, one.notebook) for one in seen.processes}
    nobody = (None, None, None)
    assert told == {
        500: (True, 4121, "s", "a.ipynb"),
        501: (True, *nobody),
        600: (False, *nobody),
        700: (False, *nobody),
    }


def test_what_a_wrapper_and_its_kernel_started_is_counted_once() -> None:
    facts = script.Facts(FACTS)
    found = kill_orphans.read(facts, gpus.read(facts))
    assert [(one.pid, one.ticks, one.kernel, one.memory, one.children, dict(one.gpu)) for one in found] == [
        (490, 7, "k1", 2048 * 1024, (600,), {0: 0}),
        (500, 8, "k1", GIB, (), {0: GIB}),
    ]
    problem = kill_orphans.problem("h", found)
    assert problem is not None
    assert problem.text == "1 orphaned kernel holds 1 GiB of memory and 1 GiB of GPU 0: pid 490, pid 500"
    assert kill_orphans.problem("h", []) is None


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ([{"path": "a.ipynb", "kernel": {"id": "k"}}], {"k": "a.ipynb"}),
        ([{"notebook": {"path": "old.ipynb"}, "kernel": {"id": "k"}}], {"k": "old.ipynb"}),  # notebook 6
        ([{"path": "a\x1b[2J", "kernel": {"id": "k"}}], {"k": "a\N{REPLACEMENT CHARACTER}[2J"}),
        ([{"path": "", "kernel": {"id": "k"}}, {"path": "b", "kernel": None}, 7, {}], {}),
        ({"message": "Forbidden"}, {}),
        (None, {}),
    ],
)
def test_paths_by_kernel(body: Any, expected: dict[str, str]) -> None:
    assert notebooks.read(body) == expected


MOMENT = "2026-01-02T03:04:05.678901Z"


@pytest.mark.parametrize(
    ("kernels", "expected"),
    [
        ([], []),
        ([{"id": "k1", "execution_state": "idle", "last_activity": MOMENT}], []),
        ([{"id": "k1", "execution_state": "starting"}, {"id": "k3"}, {"execution_state": "busy"}, 7, None], []),
        ([{"id": "k1", "execution_state": "busy", "last_activity": MOMENT}], [("k1", "a.ipynb", MOMENT)]),
        ([{"id": "k2", "execution_state": "busy", "last_activity": 5}], [("k2", None, None)]),
        (
            [{"id": "\x1b[2J", "execution_state": "busy", "last_activity": "\x1b"}],
            [("\N{REPLACEMENT CHARACTER}[2J", None, "\N{REPLACEMENT CHARACTER}")],
        ),
    ],
)
def test_kernels_at_work(kernels: list[Any], expected: list[tuple[str, str | None, str | None]]) -> None:
    found = notebooks.read_busy(kernels, {"k1": "a.ipynb"})
    assert [(one.kernel, one.notebook, one.since) for one in found] == expected


@pytest.mark.parametrize(
    ("notebook", "since", "said"),
    [
        ("a b.ipynb", MOMENT, r"a b\.ipynb \(since 202[56]-\d\d-\d\d \d\d:\d\d or before\)"),
        (None, None, "kernel 12345678"),
        ("a", "yesterday", "a"),
        ("a", "now", r"a \(since \d\d:\d\d:\d\d or before\)"),
    ],
)
def test_a_kernel_at_work_in_words(notebook: str | None, since: str | None, said: str) -> None:
    if since == "now":
        since = datetime.now(UTC).isoformat()
    assert re.fullmatch(said, notebooks.Busy(kernel="123456789", notebook=notebook, since=since).text)
