"""An environment with a real torch, of the build that needs no GPU, for notebooks that compute something."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import pytest

from tests.bed import packages
from tests.bed.cache import kept
from tests.bed.interpreter import VERSION

# "+cpu" keeps away gigabytes of CUDA. Where pip finds such a build is the machine's affair: PIP_FIND_LINKS or
# PIP_EXTRA_INDEX_URL name the place.
TORCH = "torch==2.13.0+cpu"
BESIDE = ("tqdm==4.70.1", "ipywidgets==8.1.9")
GEOMETRIC = "torch_geometric==2.8.1"


@dataclass(frozen=True)
class TorchEnvironment:
    """Where it lies; all accounts can read it.

    Attributes:
        prefix: a venv.
        geometric: empty where torch_geometric is there, else why not.
    """

    prefix: Path
    geometric: str


def torch_environment(python: Path) -> TorchEnvironment:
    """Return the environment; installing takes a quarter of a minute, so later runs use it again.

    Args:
        python: that all accounts can run.

    Returns:
        It. The test is skipped where pip finds no torch for it.
    """
    kernel = packages.closure("ipykernel")
    here = Path(__file__).parent
    parts = [sys.version, str(python), *sorted(f"{name} {dist.version}" for name, dist in kernel.items())]
    parts += [(here / source).read_text() for source in ("torch_cpu.py", "packages.py")]
    folder, said = kept("torch-", parts, lambda empty: _make(empty / "torch", python, kernel))
    if said.startswith("no torch: "):
        (folder / "complete").unlink()
        pytest.skip(said)
    return TorchEnvironment(folder / "torch", said)


def _make(prefix: Path, python: Path, kernel: dict[str, metadata.Distribution]) -> str:
    (prefix / "bin").mkdir(parents=True)
    for name in ("python", "python3", f"python{VERSION}"):
        (prefix / "bin" / name).symlink_to(python)
    version = ".".join(str(part) for part in sys.version_info[:3])
    config = f"home = {python.parent}\ninclude-system-site-packages = false\nversion = {version}\n"
    (prefix / "pyvenv.cfg").write_text(config)
    packages.install(kernel, prefix)
    missing = _pip(prefix, TORCH, *BESIDE)
    if missing:
        return f"no torch: {missing}"
    geometric = _pip(prefix, GEOMETRIC)
    # Once as its owner, who may write what is compiled: no other account can, and each would compile it anew.
    modules = [
        "torch",
        "ipykernel.kernelapp",
        "ipywidgets",
        "tqdm.auto",
        *([] if geometric else ["torch_geometric.nn"]),
    ]
    subprocess.run([prefix / "bin" / "python", "-c", f"import {', '.join(modules)}"], check=True)
    return geometric


def _pip(prefix: Path, *wanted: str) -> str:
    """Install; returns why not."""
    words = [sys.executable, "-m", "pip", "--python", str(prefix / "bin" / "python"), "install", "-q"]
    done = subprocess.run([*words, "--no-compile", *wanted], capture_output=True, text=True, check=False)
    return "" if done.returncode == 0 else (done.stderr.strip().splitlines() or ["no reason was given"])[-1]
