"""Packages without a network, and installers that the user has."""

from __future__ import annotations

import functools
import shutil
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import pytest
import uv

from tests.bed import Bed, Cli, User
from tests.bed.channel import SITE, Channel
from tests.bed.packages import closure
from tests.bed.wheels import Index

TORCH = """\
__version__ = "{version}"

class version:
    cuda = {cuda}

def ones(*words, **more):
    raise RuntimeError("Found no NVIDIA driver on your system")
"""


@pytest.fixture
def index(bed: Bed) -> Index:
    """A package index with what a kernel needs, two made-up packages, and torch in two builds; one for each bed."""
    return _index(bed)


@pytest.fixture
def channel(bed: Bed) -> Channel:
    """A channel with what a kernel needs, and one more package; one for each bed."""
    return _channel(bed)


@functools.cache
def _index(bed: Bed) -> Index:
    folder = bed.folder / "index"
    folder.mkdir(mode=0o755)
    made = Index(folder / "simple")
    made.add_installed(closure("pip").values())
    # Its modules, and what they need, are those of the bed's environment with a kernel: they need not be packed.
    made.add("ipykernel", metadata.version("ipykernel"), {"bed.pth": f"{bed.conda.pytorch / SITE}\n"})
    made.add("ipywidgets", "8.1.9", {"ipywidgets/__init__.py": "__version__ = '8.1.9'\n"})
    made.add("gadget", "1.0", {"gadget.py": "x = 1\n"}, ["widgetry>=2"])
    made.add("widgetry", "2.1", {"widgetry.py": "y = 2\n"})
    (folder / "whl").mkdir(mode=0o755)
    for tag, cuda in (("cu124", "'12.4'"), ("cpu", "None")):
        version = f"2.6.0+{tag}"
        info = f"__version__ = '{version}'\ncuda = {cuda}\n"
        files = {"torch/__init__.py": TORCH.format(version=version, cuda=cuda), "torch/version.py": info}
        Index(folder / "whl" / tag).add("torch", version, files)
    return made


@functools.cache
def _channel(bed: Bed) -> Channel:
    made = Channel(bed)
    made.add("gizmo", "3.1", {"lib/gizmo.txt": "a gizmo\n"})
    made.index()
    return made


@pytest.fixture
def mine(cli: Cli, index: Index) -> Cli:
    """The command line; `--mirror lab` leads to the package index."""
    cli.home.mkdir(mode=0o700)
    torch = (index.folder.parent / "whl").as_uri()
    (cli.home / "config.toml").write_text(f'[mirrors.lab]\npip = "{index.url}"\ntorch = "{torch}"\n')
    return cli


@pytest.fixture
def with_uv(user: User) -> Path:
    """Put uv on the user's PATH."""
    target = user.programs / "uv"
    shutil.copy(uv.find_uv_bin(), target)
    target.chmod(0o755)
    return target


@pytest.fixture
def conda(user: User, channel: Channel) -> Path:
    """A conda of the user's own, in a place where it is found; returns its root."""
    root = user.home / "miniforge3"
    channel.root(root, user.uid, user.gid)
    return root


@pytest.fixture
def busy(conda: Path) -> Callable[[], None]:
    """Let that conda wait in the middle of its work; the answer lets it go on."""
    (conda / "mode").write_text("slow")
    return (conda / "go").touch
