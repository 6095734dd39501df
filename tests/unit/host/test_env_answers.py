"""What the scripts about environments answer: read as data, whatever a host makes of it."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest

from jupyman import errors
from jupyman.core.verbs import env_mirror
from jupyman.core.verbs.env import with_jobs
from jupyman.core.verbs.env_job import conclude
from jupyman.core.verbs.host_call import HostCall
from jupyman.host.envs import facilities
from jupyman.host.shell import jobs
from jupyman.host.shell.jobs import Ended, Job
from jupyman.host.shell.script import Facts
from jupyman.model import Environment, HostReport
from tests.fake_shell import FakeShell
from tests.unit.core.offline import Quiet
from tests.unit.tools.mutation import mutate


def mirror_files(shell: FakeShell) -> Any:
    nothing: Any = None
    link: Any = shell
    return env_mirror._read(HostCall("h", Quiet(), nothing, nothing, link))


JOBS = """\
job.name long
job.state running
job.node gpu1
job.prefix /home/alice/.virtualenvs/long
job.tool uv
job.new 1
job.text torch 2.6
job.name other
job.state elsewhere
job.node gpu2
job.prefix /home/alice/x/other
job.tool conda
job.new 1
"""
FOLLOWED = """\
event begin make Python 3.12
last Collecting package metadata
event end make done 12
event begin kernel kernel long
event end kernel failed 2
tick 8
state failed
code 1
key kernel
text kernel long
number 2
answer jm-0123456789abcdef0123456789abcdef begin
answer step registering kernel long
answer error kernel the kernel of long does not start: ImportError: zmq
answer hint nothing was changed
answer jm-0123456789abcdef0123456789abcdef end 1
log $ python -m ipykernel
log ImportError: zmq
"""
LOOK = """\
home /home/alice
jobs /home/alice/.local/state/jupyman/gpu1/.environments
machine x86_64
tool.kind conda
tool.path /opt/conda/bin/conda
tool.root /opt/conda
tool.writable no
tool.kind uv
tool.path /usr/bin/uv
tool.root\x20
tool.writable yes
python.path /usr/bin/python3
python.version 3.11.2
python.venv yes
"""
MIRRORS = """\
file.name condarc
file.path /home/alice/.condarc
file.state ours
file.sum 123 45
file.line channels:|
file.line   - defaults|
file.kept backup
kept.name condarc
kept.line # mine|
file.name pip
file.path /home/alice/.config/pip/pip.conf
file.state absent
"""
REPORT = HostReport(host="h", os=None, user="alice", shell=None)
READERS: dict[str, tuple[str, Callable[[FakeShell], Any]]] = {
    "jobs": (JOBS, jobs.find),
    "follow": (FOLLOWED, lambda host: jobs.follow(host, "long", on_begin=_two, on_end=_three, on_last=_one)),
    "look": (LOOK, lambda host: facilities.look(host, REPORT)),
    "mirrors": (MIRRORS, mirror_files),
}


def _one(text: str) -> None:
    assert "\n" not in text


def _two(key: str, text: str) -> None:
    assert "\x1b" not in text


def _three(key: str, state: str, seconds: float) -> None:
    assert seconds >= 0


@pytest.mark.parametrize("reader", READERS)
def test_hostile_answers(reader: str) -> None:
    answer, read = READERS[reader]
    for seed in range(1000):
        spoilt = mutate(answer, random.Random(seed))
        try:
            read(FakeShell(spoilt))
        except errors.JupymanError:
            continue
        except Exception as error:
            raise AssertionError(f"seed {seed}: {spoilt!r}") from error


def test_jobs_are_read() -> None:
    first, second = jobs.find(FakeShell(JOBS))
    assert first == Job(
        name="long",
        state="running",
        node="gpu1",
        prefix="/home/alice/.virtualenvs/long",
        tool="uv",
        new=True,
        text="torch 2.6",
    )
    assert (second.state, second.node) == ("elsewhere", "gpu2")


def test_installers_are_read() -> None:
    installers = facilities.look(FakeShell(LOOK), REPORT)
    assert [(tool.kind, tool.root, tool.writable) for tool in installers.tools] == [
        ("conda", "/opt/conda", False),
        ("uv", None, True),
    ]
    assert [(one.minor, one.venv) for one in installers.pythons] == [((3, 11), True)]


def test_mirror_files_are_read() -> None:
    condarc, pip = mirror_files(FakeShell(MIRRORS))
    assert (condarc.text, condarc.kept, condarc.changed) == ("channels:\n  - defaults\n", "# mine\n", True)
    assert (pip.text, pip.state, pip.changed) == ("", "absent", False)


def environment(prefix: str, state: str = "ready") -> Environment:
    return Environment(
        name=prefix.rpartition("/")[2],
        prefix=prefix,
        kind="uv",
        python=None,
        jupyter=None,
        ipykernel=None,
        torch=None,
        state=state,  # type: ignore[arg-type]
    )


def job(prefix: str, state: str, *, new: bool = True) -> Job:
    name = prefix.rpartition("/")[2]
    return Job(name=name, state=state, node=None, prefix=prefix, tool="conda", new=new, text=None)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("seen", "state", "new", "told"),
    [
        ("ready", "done", True, ["ready"]),
        ("incomplete", "running", True, ["installing"]),
        ("incomplete", "elsewhere", True, ["installing"]),
        ("incomplete", "failed", True, ["incomplete"]),
        ("incomplete", "interrupted", True, ["incomplete"]),
        ("ready", "running", False, ["ready"]),  # a push
        ("ready", "running", True, ["ready"]),  # only its kernel is still to come
        (None, "running", True, ["installing"]),
        (None, "failed", True, []),
    ],
)
def test_the_list_knows_what_is_under_way(seen: str | None, state: str, new: bool, told: list[str]) -> None:
    found = [environment("/p/e", seen)] if seen is not None else []
    assert [one.state for one in with_jobs(found, [job("/p/e", state, new=new)], "/home")] == told


def test_how_an_installation_ended() -> None:
    assert conclude("e", Ended(state="done"), "h", None) is None
    with pytest.raises(errors.RemoteFailed, match="stopped from outside at: torch") as caught:
        conclude("e", Ended(state="interrupted", text="torch"), "h", None)
    assert "jupyman env create e resumes it" in caught.value.hint
    log = ["$ pip", "ERROR: No matching distribution found for x"]
    with pytest.raises(errors.RemoteFailed, match=r"torch failed \(status 1\): ERROR: No matching") as caught:
        conclude("e", Ended(state="failed", key="torch", text="torch", code=1, log=log), "h", None)
    assert caught.value.details["log"] == log
    answer = Facts([("error", "kernel it does not start"), ("hint", "look at it")])
    with pytest.raises(errors.KernelFault, match="it does not start") as kernel:
        conclude("e", Ended(state="failed", key="kernel", text="kernel e", code=1, answer=answer), "h", None)
    assert "jupyman kernel add e --host h" in kernel.value.hint
