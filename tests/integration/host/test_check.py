"""`jupyman check` and `jupyman env ls`: what a host has, as JSON, and its problems as text."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from jupyman.model import HostReport
from tests.bed import Bed, Cli, User, private_home
from tests.bed.accounts import SYSTEM_PATH
from tests.bed.by_hand import by_hand
from tests.bed.conda import TORCH
from tests.bed.interpreter import VERSION

KEYS = [
    "host",
    "os",
    "user",
    "shell",
    "gpus",
    "driver",
    "cuda_toolkits",
    "cudnn",
    "environments",
    "jupyter",
    "ports",
    "disk",
    "slurm",
    "verdicts",
    "problems",
]
GPU_KEYS = ["index", "uuid", "name", "memory_total", "memory_used", "utilization", "processes"]
ENVIRONMENT_KEYS = ["name", "prefix", "kind", "python", "jupyter", "ipykernel", "torch"]
NAMES = {"base", "lab", "pytorch", "tf", "env"}
MIB = 1024 * 1024
BUILD = f"torch {TORCH} (CUDA 12.4)"


@pytest.fixture(scope="module")
def cli(bed: Bed) -> Iterator[Cli]:
    """One daemon with one link for all of them: nothing here changes anything on the host."""
    with private_home() as home:
        yield Cli(home, bed.ssh_config)


@pytest.fixture
def user(bed: Bed) -> Iterator[User]:
    yield bed.user()
    bed.user().set_gpu(None)


def check(cli: Cli, *words: str) -> dict[str, Any]:
    ran = cli("check", "server1", "--json", *words)
    assert ran.rc == 0, ran
    assert ran.stderr == ""
    found: dict[str, Any] = ran.json
    return found


def promised(report: dict[str, Any]) -> None:
    """Assert that the report has every promised key, with values of the right kind."""
    assert set(KEYS) <= set(report)
    for gpu in report["gpus"]:
        assert set(GPU_KEYS) <= set(gpu)
    for environment in report["environments"]:
        assert set(ENVIRONMENT_KEYS) <= set(environment)
    msgspec.convert(report, HostReport, strict=True)
    assert unknown_as_text(report) == []


def below(user: User, report: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the environments of the bed by name; this machine may have more."""
    return {one["name"]: one for one in report["environments"] if one["prefix"].startswith(f"{user.home}/")}


def about_gpus(report: dict[str, Any]) -> list[str]:
    """Return the codes of problems with GPUs; this machine may have others."""
    codes = (problem["code"] for problem in report["problems"])
    return [code for code in codes if code.startswith(("nvidia", "gpu", "no-gpu", "torch", "driver"))]


def unknown_as_text(value: Any, path: str = "") -> list[str]:
    """Return where something is an empty text: what is not known must be null."""
    if isinstance(value, dict):
        return [found for key, one in value.items() for found in unknown_as_text(one, f"{path}.{key}")]
    if isinstance(value, list):
        return [found for index, one in enumerate(value) for found in unknown_as_text(one, f"{path}[{index}]")]
    return [path] if value in {"", "[N/A]", "N/A", "unknown", "?"} else []


# How many GPUs, which driver, whether the torch of the bed fits, and what is wrong.
CASES: dict[str | None, tuple[int, dict[str, str] | None, bool | None, list[str]]] = {
    "two-a100": (2, {"version": "550.54.15", "cuda": "12.4"}, True, []),
    "h200": (1, {"version": "580.159.04", "cuda": "13.0"}, True, []),
    "r610": (1, {"version": "610.57.04", "cuda": "13.3"}, True, []),
    "mig": (1, {"version": "535.161.08", "cuda": "12.2"}, True, ["gpu-mig"]),
    "old-driver": (1, {"version": "450.80.02", "cuda": "11.0"}, False, ["torch-driver"]),
    "mismatch": (0, None, None, ["nvidia-mismatch"]),
    "no-driver": (0, None, None, ["nvidia-not-loaded"]),
    "no-devices": (0, None, None, ["nvidia-no-devices"]),
}
if shutil.which("nvidia-smi", path=SYSTEM_PATH) is None:  # where this machine has none of its own
    CASES[None] = (0, None, None, ["no-gpu"])


@pytest.mark.parametrize(("case", "seen"), CASES.items())
def test_every_state_of_the_gpus(cli: Cli, user: User, case: str | None, seen: Any) -> None:
    gpus, driver, fits, codes = seen
    user.set_gpu(case)
    report = check(cli)
    promised(report)
    assert len(report["gpus"]) == gpus
    assert report["driver"] == driver
    [verdict] = [one for one in report["verdicts"] if one["env"] == f"{user.conda}/envs/pytorch"]
    assert verdict["ok"] is fits
    assert BUILD in verdict["text"]
    assert about_gpus(report) == codes
    assert all(problem["fix"] and problem["text"] and problem["severity"] for problem in report["problems"])
    text = cli("check", "server1")
    assert text.rc == 0, text
    for problem in report["problems"]:
        assert f"  {problem['severity']}: {problem['text']}\n    fix: {problem['fix']}\n" in text.stdout
    # What is told once is told once: the verdict beside its environment, or among the problems.
    assert text.stdout.count(BUILD) == 1
    assert text.stdout.count(f"{TORCH} (CUDA 12.4)") == 2
    assert ("\npytorch: " in text.stdout) == (fits is not False)


def test_what_the_driver_does_not_report_is_null(cli: Cli, user: User) -> None:
    user.set_gpu("mig")
    [gpu] = check(cli)["gpus"]
    assert (gpu["memory_used"], gpu["utilization"], gpu["mig"]) == (None, None, True)
    assert [one["name"] for one in gpu["instances"]] == ["3g.40gb", "1g.10gb"]
    assert gpu["memory_total"] == 81920 * MIB
    assert [(one["memory"], one["name"]) for one in gpu["processes"]] == [(None, None)]
    user.set_gpu("old-driver")
    [gpu] = check(cli)["gpus"]
    assert gpu["compute_cap"] is None
    user.set_gpu("two-a100")
    first, second = check(cli)["gpus"]
    assert [(one["pid"], one["name"]) for one in first["processes"]] == [
        (3141, "/opt/conda/envs/pytorch/bin/python"),
        (2718, "train, with a comma"),
    ]
    assert (second["utilization"], second["processes"], second["memory_used"]) == (0, [], 4 * MIB)


def test_a_driver_that_hangs_costs_seconds_not_the_report(cli: Cli, user: User) -> None:
    user.set_gpu("hang")
    start = time.monotonic()
    report = check(cli)
    # It would be silent for a minute.
    assert time.monotonic() - start < 30
    promised(report)
    assert about_gpus(report) == ["nvidia-smi-hangs"]
    assert (report["gpus"], report["driver"]) == ([], None)
    assert set(below(user, report)) == NAMES


def test_one_environment_can_be_looked_at(cli: Cli, user: User) -> None:
    user.set_gpu("two-a100")
    prefix = f"{user.conda}/envs/pytorch"
    for wanted in ("pytorch", prefix):
        report = check(cli, "--env", wanted)
        promised(report)
        assert [one["prefix"] for one in report["environments"]] == [prefix]
        assert [one["env"] for one in report["verdicts"]] == [prefix]
        assert len(report["gpus"]) == 2
    # What is wrong with another one is not said.
    file = f"work/env/lib/python{VERSION}/site-packages/torch/version.py"
    torch = user.put(file, "__version__ = '2.9.0'\ncuda = '13.0'\n").parent
    try:
        assert about_gpus(check(cli)) == ["torch-driver"]
        assert about_gpus(check(cli, "--env", "pytorch")) == []
        assert about_gpus(check(cli, "--env", "env")) == ["torch-driver"]
    finally:
        shutil.rmtree(torch)
    assert check(cli, "--env", "tf")["verdicts"] == []
    ran = cli("check", "server1", "--env", "pytroch", "--json")
    assert ran.rc == 21, ran
    assert ran.json["error"]["code"] == "env-missing"
    assert "pytorch" in ran.json["error"]["hint"]


def test_the_host_itself(cli: Cli, user: User) -> None:
    with user.hold_port() as held:
        report = check(cli)
        text = cli("check", "server1").stdout
    assert (report["host"], report["user"], report["shell"]) == ("server1", user.name, str(user.shell))
    assert report["disk"]["path"] == str(user.home)
    assert 0 < report["disk"]["free"] < report["disk"]["total"]
    [port] = [one for one in report["ports"] if one["port"] == held.port]
    assert (port["pid"], port["uid"], port["ours"], port["address"]) == (held.pid, user.uid, True, "127.0.0.1")
    assert {"YOUR", "PORT", "ADDRESS", "PID", "COMMAND"} <= set(text.split())
    assert f"{held.port}" in text
    assert report["jupyter"] == []


def test_own_servers_that_are_open_to_others_are_reported(cli: Cli, user: User) -> None:
    open_to_all = ("--ServerApp.ip=0.0.0.0", "--IdentityProvider.token=", "--PasswordIdentityProvider.hashed_password=")
    with by_hand(user, *open_to_all) as mine:
        report = check(cli)
        shown = cli("ps", "-a", "server1")
    problems = {one["code"]: one for one in report["problems"] if one["code"].startswith("server-")}
    assert {"server-exposed", "server-open"} <= set(problems)
    assert problems["server-exposed"]["text"] == (
        f"the Jupyter server with pid {mine['pid']} listens beyond loopback (port {mine['port']})"
    )
    assert shown.rc == 0, shown
    for code in ("server-exposed", "server-open"):
        assert f"server1: {problems[code]['text']} ({problems[code]['fix']})" in shown.stdout


def test_the_environments(cli: Cli, user: User) -> None:
    ran = cli("env", "ls", "server1", "--json")
    assert ran.rc == 0, ran
    found = below(user, ran.json)
    assert set(found) == NAMES
    for one in found.values():
        assert set(ENVIRONMENT_KEYS) <= set(one)
    assert {one["kind"] for one in found.values()} == {"conda"}
    assert all(one["python"].startswith(f"{VERSION}.") for one in found.values())
    assert found["pytorch"]["torch"] == {"version": TORCH, "cuda": "12.4"}
    assert [name for name, one in found.items() if one["torch"]] == ["pytorch"]
    assert [name for name, one in found.items() if one["jupyter"]] == ["lab"]
    assert found["env"]["prefix"] == f"{user.home}/work/env"
    assert ran.json["environments"] == check(cli)["environments"]
    shown = cli("env", "ls", "server1")
    assert shown.rc == 0, shown
    lines = shown.stdout.splitlines()
    assert lines[0].split() == ["ENV", "KIND", "PYTHON", "JUPYTER", "IPYKERNEL", "TORCH", "PREFIX"]
    assert [(line.split()[0], line.split()[-1]) for line in lines[1:]] == [
        (one["name"], one["prefix"]) for one in ran.json["environments"]
    ]
    # The verdicts are `check`'s.
    assert BUILD not in shown.stdout


@pytest.mark.parametrize("kind", ["banner", "tcsh", "fish"])
def test_other_shells_give_the_same_answer(cli: Cli, bed: Bed, kind: str) -> None:
    user = bed.user(kind)
    ran = cli("check", f"server-{kind}", "--json")
    assert ran.rc == 0, ran
    promised(ran.json)
    assert (ran.json["user"], ran.json["shell"]) == (user.name, str(user.shell))
    assert set(below(user, ran.json)) == NAMES


def test_without_a_host_and_with_one_that_is_none(bed: Bed, jupyman_home: Path) -> None:
    fresh = Cli(jupyman_home, bed.ssh_config)
    ran = fresh("check", "--json")
    assert ran.rc == 2, ran
    ran = fresh("check", "nowhere.invalid", "--json")
    assert ran.rc == 2, ran
    assert ran.json["error"]["code"] == "unknown-host"
