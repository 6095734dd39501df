"""Environments: names, torch builds, and how a user's word finds one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jupyman import errors
from jupyman.host.report import probe
from jupyman.host.shell.script import Facts
from jupyman.model import App, Environment, HostReport, Torch
from jupyman.tools.envs import choice, discovery
from jupyman.tools.host.text import clean, harmless


def environment(prefix: str, *apps: App, root: str | None = None, kind: discovery.Kind = "conda") -> Environment:
    return Environment(
        name=discovery.name_of(prefix, root, "/home/a"),
        prefix=prefix,
        kind=kind,
        python="3.12.1",
        jupyter="2.14" if apps else None,
        ipykernel=None,
        torch=None,
        apps=list(apps),
        root=root,
        executable=f"{prefix}/bin/python",
    )


@pytest.mark.parametrize(
    ("prefix", "root", "name"),
    [
        ("/opt/conda", "/opt/conda", "base"),
        ("/opt/conda/", "/opt/conda", "base"),
        ("/opt/conda/envs/pytorch", "/opt/conda", "pytorch"),
        ("/home/a/.conda/envs/tf", None, "tf"),
        ("/data/envs/my env", None, "my env"),
        ("/home/a/proj/.venv", None, "proj"),
        ("/home/a/proj/.conda", None, "proj"),
        ("/home/a/.venv", None, "venv"),
        ("/home/a/.local", None, "user"),
        ("/usr", None, "system"),
        ("/usr/local", None, "local"),
        ("/", None, "system"),
        ("/.venv", None, "venv"),
        ("/data/x\x1b[2J", None, "x\N{REPLACEMENT CHARACTER}[2J"),
    ],
)
def test_names(prefix: str, root: str | None, name: str) -> None:
    assert discovery.name_of(prefix, root, "/home/a") == name


@pytest.mark.parametrize(
    ("lines", "dist", "record", "torch"),
    [
        (["__version__ = '2.5.1+cu124'", "cuda = '12.4'"], None, None, Torch(version="2.5.1+cu124", cuda="12.4")),
        (
            ["__version__ = '2.7.0+cu126'", "cuda: Optional[str] = '12.6'"],
            "2.7.0",
            None,
            Torch(version="2.7.0+cu126", cuda="12.6"),
        ),
        (["__version__ = '2.5.1+cpu'", "cuda = None"], None, None, Torch(version="2.5.1+cpu", cuda=None)),
        (["__version__ = '2.6.0'", "cuda: Optional[str] = None"], None, None, Torch(version="2.6.0", cuda=None)),
        ([], "2.5.1+cu121", None, Torch(version="2.5.1+cu121", cuda="12.1")),
        ([], "2.5.1", None, Torch(version="2.5.1", cuda=None)),
        ([], None, "pytorch-2.5.1-py3.12_cuda12.4_cudnn9.1.0_0.json", Torch(version="2.5.1", cuda="12.4")),
        ([], None, "pytorch-2.6.0-cuda126_py312h0123_300.json", Torch(version="2.6.0", cuda="12.6")),
        ([], None, "pytorch-1.12.1-cuda112py39ha9c_201.json", Torch(version="1.12.1", cuda="11.2")),
        ([], None, "pytorch-2.6.0-cpu_generic_py312_1.json", Torch(version="2.6.0", cuda=None)),
        ([], None, "pytorch-mutex-1.0-cuda.json", None),
        (["from typing import Optional", "cuda = '12.4'"], None, None, None),
        ([], None, None, None),
    ],
)
def test_torch_is_read_without_importing_it(
    lines: list[str], dist: str | None, record: str | None, torch: Torch | None
) -> None:
    assert discovery.torch(lines, dist, record) == torch


def read(*lines: tuple[str, str]) -> Environment | None:
    facts = Facts(list(lines))
    return discovery.read(facts.one, facts.all, "/home/a")


def test_a_record_becomes_an_environment() -> None:
    found = read(
        ("prefix", "/opt/conda/envs/tf"),
        ("kind", "mamba"),
        ("root", "/opt/conda"),
        ("executable", "/opt/conda/envs/tf/bin/python"),
        ("app", "server"),
        ("app", "lab"),
        ("app", "game"),
        ("jupyter_server", "2.14.0"),
        ("ipykernel", "6.29"),
        ("python", "3.11.9"),
    )
    assert found is not None
    assert (found.name, found.kind, found.python, found.jupyter, found.ipykernel) == (
        "tf",
        "mamba",
        "3.11.9",
        "2.14.0",
        "6.29",
    )
    assert found.apps == ["lab", "server"]


def test_notebook_6_alone_is_a_server_too() -> None:
    found = read(("prefix", "/e"), ("executable", "/e/bin/python"), ("app", "notebook"), ("notebook", "6.4.10"))
    assert found is not None
    assert (found.jupyter, found.apps) == ("6.4.10", ["notebook", "server"])


def test_scripts_without_their_python_cannot_run() -> None:
    found = read(("prefix", "/e"), ("executable", ""), ("app", "lab"), ("jupyter_server", "2.14.0"))
    assert found is not None
    assert (found.jupyter, found.apps, found.executable) == (None, [], None)


@pytest.mark.parametrize("prefix", ["relative", "", "/x\x1b[2J", "/bad\N{REPLACEMENT CHARACTER}bytes", "/x\u202ey"])
def test_a_prefix_that_cannot_be_used_is_left_out(prefix: str) -> None:
    assert read(("prefix", prefix), ("kind", "conda")) is None


HOST = [
    environment("/opt/conda", root="/opt/conda"),
    environment("/opt/conda/envs/pytorch", root="/opt/conda"),
    environment("/home/a/.conda/envs/pytorch"),
    environment("/opt/conda/envs/tf", root="/opt/conda"),
    environment("/home/a/proj/.venv", kind="venv"),
    environment("/srv/proj/.conda"),
]


@pytest.mark.parametrize(
    ("wanted", "prefix"),
    [
        ("tf", "/opt/conda/envs/tf"),
        ("base", "/opt/conda"),
        ("/opt/conda/envs/pytorch", "/opt/conda/envs/pytorch"),
        ("/opt/conda/envs/pytorch/", "/opt/conda/envs/pytorch"),
        ("~/.conda/envs/pytorch", "/home/a/.conda/envs/pytorch"),
        ("~/proj/.venv/", "/home/a/proj/.venv"),
        (".venv", "/home/a/proj/.venv"),
    ],
)
def test_environments_are_found(wanted: str, prefix: str) -> None:
    assert discovery.find(HOST, wanted, "/home/a").prefix == prefix
    assert discovery.find(HOST, wanted).prefix == prefix


def test_several_of_a_name_are_listed() -> None:
    with pytest.raises(errors.UsageFault) as failure:
        discovery.find(HOST, "pytorch")
    assert "/opt/conda/envs/pytorch" in failure.value.hint
    assert "/home/a/.conda/envs/pytorch" in failure.value.hint


@pytest.mark.parametrize(
    ("wanted", "near"),
    [("pytorhc", ["pytorch"]), ("/opt/conda/envs/pytorhc", ["/opt/conda/envs/pytorch"]), ("zzz", []), ("~other/x", [])],
)
def test_a_missing_one_brings_near_names(wanted: str, near: list[str]) -> None:
    with pytest.raises(errors.EnvironmentMissing) as failure:
        discovery.find(HOST, wanted)
    assert failure.value.status == 21
    assert failure.value.details["near"][:1] == near
    assert all(one in failure.value.hint for one in near)


def test_a_host_without_any() -> None:
    with pytest.raises(errors.EnvironmentMissing) as failure:
        discovery.find([], "x")
    assert "no environments" in failure.value.hint


# --- which environment the server runs in--------------------------------------------------------------------------

BASE = environment("/opt/conda", "lab", "server", root="/opt/conda")
WORK = environment("/opt/conda/envs/work", root="/opt/conda")
LAB = environment("/opt/conda/envs/lab", "lab", "server", root="/opt/conda")
CLASSIC = environment("/opt/conda/envs/classic", "notebook", "server")


def report(*environments: Environment) -> HostReport:
    return HostReport(host="h", os=None, user="a", shell=None, environments=list(environments), home="/home/a")


@pytest.mark.parametrize(
    ("there", "wanted", "default", "app", "server", "working"),
    [
        ([BASE, LAB], None, None, "lab", BASE, None),
        ([WORK, LAB], None, None, "lab", LAB, None),
        ([BASE, LAB], "lab", None, "lab", LAB, None),
        ([BASE, WORK], "work", None, "lab", BASE, WORK),
        ([BASE, LAB], None, "lab", "lab", LAB, None),
        ([BASE, WORK], None, "work", "lab", BASE, WORK),
        ([BASE, WORK], None, "elsewhere", "lab", BASE, None),
        ([BASE, LAB, WORK], "lab", "work", "lab", LAB, None),
        ([BASE, CLASSIC], None, None, "notebook", CLASSIC, None),
        ([BASE, CLASSIC], "classic", None, "lab", BASE, CLASSIC),
    ],
)
def test_where_the_server_runs(
    *,
    there: list[Environment],
    wanted: str | None,
    default: str | None,
    app: App,
    server: Environment,
    working: Environment | None,
) -> None:
    assert choice.choose(report(*there), wanted, default, app) == (server, working)


@pytest.mark.parametrize(
    ("there", "wanted", "app", "error", "hint"),
    [
        ([WORK], None, "lab", errors.JupyterMissing, "install"),
        ([WORK], "work", "lab", errors.JupyterMissing, "install"),
        ([], None, "lab", errors.JupyterMissing, "install"),
        ([CLASSIC], None, "lab", errors.JupyterMissing, "--app notebook"),
        ([BASE, WORK], "wrok", "lab", errors.EnvironmentMissing, "work"),
        ([WORK], "nothing-like-it", "lab", errors.EnvironmentMissing, "work"),
    ],
)
def test_when_nothing_can_be_chosen(
    there: list[Environment], wanted: str | None, app: App, error: type[errors.JupymanError], hint: str
) -> None:
    with pytest.raises(error) as failure:
        choice.choose(report(*there), wanted, None, app)
    assert hint in failure.value.hint


# --- text ---------------------------------------------------------------------------------------------------------


@given(st.text(max_size=400), st.integers(1, 300))
def test_cleaned_text_is_one_harmless_line(text: str, limit: int) -> None:
    shown = clean(text, limit)
    assert len(shown) <= limit
    assert len(shown.splitlines()) <= 1
    assert shown.isprintable() or not any(ord(char) < 32 for char in shown)
    assert clean(shown, limit) == shown


@pytest.mark.parametrize("text", ["", "pytorch", "my env", "naïve 環境", "/a/b-c_d.e+f"])
def test_ordinary_text_stays(text: str) -> None:
    assert clean(text) == text
    assert harmless(text)


KEYS = ["prefix", "kind", "root", "executable", "app", "python", "torch", "torch_line", "torch_conda", "jupyter_server"]


@given(st.lists(st.tuples(st.sampled_from(KEYS), st.text(max_size=60))))
def test_any_record_is_read_without_a_crash(lines: list[tuple[str, str]]) -> None:
    facts = Facts([("prefix", "/e"), *lines])
    found = discovery.read(facts.one, facts.all, None)
    assert found is not None
    assert found.name
    probe.read(Facts([(f"env.{name}", value) for name, value in [("prefix", "/e"), *lines]]), "h")


@given(st.text(max_size=60))
def test_any_word_finds_one_or_says_why(wanted: str) -> None:
    failure: errors.JupymanError | None = None
    try:
        assert discovery.find(HOST, wanted, "/home/a") in HOST
    except (errors.EnvironmentMissing, errors.UsageFault) as error:
        failure = error
    assert failure is None or (len(failure.message.splitlines()) == 1 and failure.hint)
