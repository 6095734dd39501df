"""`check --deep`: the environment's own Python computes with its torch, and what it says is told.

No GPU is at hand: the torch here is a stand-in that says on the host what torch was seen to say, in a real environment.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from jupyman import errors
from jupyman.host.gpus import torch_test
from jupyman.model import DeepCheck, Driver, Environment, Gpu, Torch
from tests.bed import Bed, Cli, User, private_home, wait_until
from tests.bed.interpreter import VERSION
from tests.local_shell import LocalShell

pytestmark = pytest.mark.skipif(os.getuid() != 0, reason="runs programs as another account: needs root")

# `ones(...) @ ones(...)` of 256 ones each has the sum 256 ** 3.
STAND_IN = """
import os
from torch import version
__version__ = version.__version__

class Tensor:
    def __matmul__(self, other): return self
    def sum(self): return self
    def item(self): return 256.0 ** 3

class cuda:
    def get_device_name(index): return "NVIDIA A100-SXM4-80GB " + os.environ.get("CUDA_VISIBLE_DEVICES", "?")
    def get_device_capability(index): return (8, 0)

def ones(shape, device):
    {body}
    return Tensor()
"""
# Quoted in public reports of torch (its own words; the number is the driver's CUDA, 12.4).
TOO_OLD = (
    "The NVIDIA driver on your system is too old (found version 12040). Please update your GPU driver by downloading "
    "and installing a new version from the URL: http://www.nvidia.com/Download/index.aspx"
)
NO_CODE = "CUDA error: no kernel image is available for execution on the device\\nCUDA kernel errors might be reported"
NO_ROOM = "CUDA out of memory. Tried to allocate 2.00 MiB. GPU 0 has a total capacity of 79.15 GiB"
LIBRARY = "libcudart.so.12: cannot open shared object file: No such file or directory"
# Recorded: torch 2.4.1+cu121 of PyPI on a machine without a driver.
NO_DRIVER = (
    "Found no NVIDIA driver on your system. Please check that you have an NVIDIA GPU and installed a driver from "
    "http://www.nvidia.com/Download/index.aspx"
)
DRIVER = Driver(version="550.54.15", cuda="12.4")
GPUS = [
    Gpu(
        index=index, uuid=f"GPU-{index}", name="A100", memory_total=80 << 30, memory_used=used << 30, utilization=0,
        compute_cap="8.0",
    )
    for index, used in enumerate((70, 1))
]  # fmt: skip


@pytest.fixture
def user(bed: Bed) -> Iterator[User]:
    yield bed.user()
    bed.reset()


def installed(user: User, body: str = "pass", cuda: str | None = "12.4", head: str = "") -> Environment:
    """Put the stand-in into an environment of the user."""
    folder = f"work/env/lib/python{VERSION}/site-packages/torch"
    version = "2.5.1+cu124" if cuda else "2.5.1+cpu"
    user.put(f"{folder}/version.py", f"__version__ = '{version}'\ncuda = {cuda!r}\nhip = None\n")
    user.put(f"{folder}/__init__.py", head + STAND_IN.replace("{body}", body))
    prefix = f"{user.home}/work/env"
    return Environment(
        name="env",
        prefix=prefix,
        kind="conda",
        python=None,
        jupyter=None,
        ipykernel=None,
        torch=Torch(version=version, cuda=cuda),
        executable=f"{prefix}/bin/python",
        torch_by="pip",
    )


def run(user: User, environment: Environment, gpus: list[Gpu] = GPUS, **more: Any) -> DeepCheck:
    return torch_test.run(LocalShell(user.home, user.name), environment, DRIVER if gpus else None, gpus, **more)


def test_it_computes_on_the_freest_gpu(user: User) -> None:
    found = run(user, installed(user))
    assert (found.ok, found.device, found.fix) == (True, "NVIDIA A100-SXM4-80GB GPU-1", None)
    assert found.text.startswith(
        "torch 2.5.1+cu124 computed on NVIDIA A100-SXM4-80GB GPU-1, compute capability 8.0 in "
    )
    assert found.seconds is not None
    # It is the activated environment that does it: what an activate.d script sets is there.
    user.put("work/env/etc/conda/activate.d/x.sh", "export CUDA_VISIBLE_DEVICES=mine\necho noise\n")
    assert run(user, installed(user), []).device == "NVIDIA A100-SXM4-80GB mine"


@pytest.mark.parametrize(
    ("body", "words", "fix"),
    [
        (f"raise RuntimeError({TOO_OLD!r})", "fails on the GPU: RuntimeError: The NVIDIA driver on your", "whl/cu124"),
        (f"raise RuntimeError('{NO_CODE}')", "RuntimeError: CUDA error: no kernel image is available", "whl/cu124"),
        (f"raise RuntimeError({NO_ROOM!r})", "RuntimeError: CUDA out of memory", "free memory on that GPU"),
        ("raise RuntimeError('No CUDA GPUs are available')", "No CUDA GPUs are available", "see what jupyman check"),
        ("Tensor.item = lambda self: 3.0", "computed a wrong result", "ask the admin"),
        ("os._exit(3)", "its Python ended with status 3", "try by hand"),
        ("os.abort()", "its Python ended with status 134", "try by hand"),
        ("raise SystemExit('x\\x1b[31m')", "SystemExit: x\N{REPLACEMENT CHARACTER}[31m", "whl/cu124"),
    ],
)
def test_a_failure_is_reported_with_torchs_message_and_a_fix(user: User, body: str, words: str, fix: str) -> None:
    found = run(user, installed(user, body))
    assert (found.ok, found.device) == (False, None)
    assert words in found.text
    assert len(found.text.splitlines()) == 1
    assert fix in (found.fix or "")


def test_a_torch_that_cannot_be_imported(user: User) -> None:
    found = run(user, installed(user, head=f"raise OSError({LIBRARY!r})\n"))
    assert found.text == f"torch cannot be imported: OSError: {LIBRARY}"
    assert "torch==2.5.1+cu124" in (found.fix or "")


def test_a_cpu_build_is_named(user: User) -> None:
    found = run(user, installed(user, "assert device == 'cpu'", None), [])
    assert (found.ok, found.device, found.fix) == (True, None, None)
    assert "torch 2.5.1+cpu is a CPU build: it computed on the CPU in " in found.text
    found = run(user, installed(user, "assert device == 'cpu'", None))
    assert found.ok is False
    assert "torch==2.5.1+cu124" in (found.fix or "")


def test_a_host_without_a_gpu_is_no_failure_of_torch(user: User) -> None:
    without = installed(user, f"raise RuntimeError({NO_DRIVER!r})")
    found = run(user, without, [])
    assert (found.ok, found.fix) == (None, None)
    assert found.text == "torch 2.5.1+cu124 can be imported; there is no GPU here to compute on"
    # Where nvidia-smi sees one, it is.
    found = run(user, without)
    assert found.ok is False
    assert "RuntimeError: Found no NVIDIA driver on your system." in found.text


def test_without_torch_there_is_nothing_to_try(user: User) -> None:
    bare = Environment(name="e", prefix="/e", kind="venv", python=None, jupyter=None, ipykernel=None, torch=None)
    assert run(user, bare) == DeepCheck(env="/e", ok=None, text="there is no torch in it")


def test_a_file_of_the_users_that_is_called_torch_is_not_imported(user: User) -> None:
    user.put("torch.py", "raise RuntimeError('the wrong one')\n")
    assert run(user, installed(user)).ok is True


def test_one_that_hangs_is_ended(user: User) -> None:
    hangs = installed(
        user, "open('/tmp/' + os.environ['LOGNAME'], 'w').write(str(os.getpid())); __import__('time').sleep(600)"
    )
    mark = Path("/tmp") / user.name
    try:
        began = time.monotonic()
        found = run(user, hangs, limit=2)
        assert time.monotonic() - began < 20  # it would be silent for ten minutes
        assert found.text == "torch did not finish a small computation in 2 s"
        wait_until(lambda: not psutil.pid_exists(int(mark.read_text())), what="its end")
    finally:
        mark.unlink(missing_ok=True)


def test_ctrl_c_ends_the_wait(user: User) -> None:
    cancelled = threading.Event()
    cancelled.set()
    with pytest.raises(errors.Interrupted):
        run(user, installed(user), cancelled=cancelled)


def test_another_users_environment_runs_only_if_it_is_named(bed: Bed, user: User) -> None:
    other = bed.user("other")
    ran = f"open({str(other.home / 'ran')!r}, 'a').write(os.environ['LOGNAME'])"
    (other.home / "ran").touch(0o666)
    (other.home / "ran").chmod(0o666)
    installed(other, ran)
    user.put(".conda/environments.txt", f"{other.home}/work/env\n")
    with private_home() as home:
        cli = Cli(home, bed.ssh_config)
        [result] = [
            one for one in cli("check", "server1", "--deep", "--json").json["deep"] if str(other.home) in one["env"]
        ]
        assert result["ok"] is None
        assert result["text"].startswith("not tested: its owner is another user")
        assert (other.home / "ran").read_text() == ""
        named = cli("check", "server1", "--deep", "--json", "--env", f"{other.home}/work/env").json["deep"]
        assert [one["env"] for one in named] == [f"{other.home}/work/env"]
        assert named[0]["text"].startswith("torch 2.5.1+cu124 computed on ")
        assert (other.home / "ran").read_text() == user.name


def test_the_command(bed: Bed, user: User) -> None:
    installed(user, f"raise RuntimeError({TOO_OLD!r})")
    user.set_gpu("two-a100")
    with private_home() as home:
        cli = Cli(home, bed.ssh_config)
        ran = cli("check", "server1", "--env", "env", "--deep", "--json")
        assert ran.rc == 0, ran
        report = ran.json
        [result] = report["deep"]
        assert (result["env"], result["ok"]) == (f"{user.home}/work/env", False)
        [problem] = [one for one in report["problems"] if one["code"] == "torch-fails"]
        assert problem["severity"] == "error"
        assert problem["text"] == f"env: {result['text']}"
        ran = cli("check", "server1", "--env", "tf", "--deep", "--json")
        assert [one["text"] for one in ran.json["deep"]] == ["there is no torch in it"]
        # Without --env each that has torch: the bed's own knows only its version, so it fails in its way.
        installed(user)
        ran = cli("check", "server1", "--deep")
        assert ran.rc == 0, ran
        assert "env: torch 2.5.1+cu124 computed on NVIDIA A100-SXM4-80GB GPU-c2d94e7f" in ran.stdout
        assert "error: pytorch: torch 2.5.1+cu124 fails on the GPU: AttributeError: " in ran.stdout
        assert json.loads(cli("check", "server1", "--json").stdout)["deep"] == []
