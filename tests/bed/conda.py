"""A conda root as users have it, made of packages that a conda installer (py-rattler) put in place.

::

    ROOT                 base: Python and the program `conda`; no Jupyter
    ROOT/envs/lab        JupyterLab and ipykernel, which really run
    ROOT/envs/pytorch    ipykernel, no Jupyter; torch/version.py of 2.5.1+cu124; an activate.d script
    ROOT/envs/tf         Python only
    ROOT/../prefix       a prefix environment, to be copied into homes

It takes seconds to make, so it is kept in a folder that is named by a hash of all that went into it, and later runs use
it again. Jupyter's packages are those of the environment that runs the tests.
"""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
import os
import sys
import tarfile
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from tests.bed import packages
from tests.bed.cache import kept
from tests.bed.interpreter import VERSION, shared_python

TORCH = "2.5.1+cu124"
CONDA = """\
#!/bin/sh
# A stand-in for conda: it answers from the layout of the folders.
root=$(dirname "$(dirname "$(readlink -f "$0")")")
list() {
    printf '{\\n  "envs": [\\n    "%s"' "$root"
    for env in "$root"/envs/*; do
        [ ! -d "$env/conda-meta" ] || printf ',\\n    "%s"' "$env"
    done
    printf '\\n  ]%s\\n}\\n' "$1"
}
case "$*" in
    --version | -V) echo "conda 24.9.2" ;;
    "env list --json" | "info --envs --json") list '' ;;
    "info --json") list ",
  \\"conda_version\\": \\"24.9.2\\",
  \\"root_prefix\\": \\"$root\\"" ;;
    *)
        echo "this stand-in does not know: conda $*" >&2
        exit 2
        ;;
esac
"""


@dataclass(frozen=True)
class CondaRoot:
    """Where the parts lie; everything can be read by all accounts."""

    root: Path
    prefix_template: Path
    python: Path

    @property
    def lab(self) -> Path:
        """The environment that runs JupyterLab."""
        return self.root / "envs" / "lab"

    @property
    def pytorch(self) -> Path:
        """The environment with ipykernel and torch, without Jupyter."""
        return self.root / "envs" / "pytorch"

    @property
    def tf(self) -> Path:
        """The environment with Python only."""
        return self.root / "envs" / "tf"


def conda_root() -> CondaRoot:
    """Return the conda root; make it where no earlier run has.

    Raises:
        RuntimeError: its folder belongs to somebody else, or no Python for all accounts can be had.
    """
    lab, kernel = packages.closure("jupyterlab", "ipykernel"), packages.closure("ipykernel")
    here = Path(__file__).parent
    parts = [sys.version, sys.executable, *sorted(f"{name} {dist.version}" for name, dist in lab.items())]
    parts += [(here / source).read_text() for source in ("conda.py", "packages.py", "interpreter.py")]
    folder, python = kept("", parts, lambda empty: str(_make(empty, lab, kernel)))
    return CondaRoot(root=folder / "conda", prefix_template=folder / "prefix", python=Path(python))


def _make(folder: Path, lab: dict[str, metadata.Distribution], kernel: dict[str, metadata.Distribution]) -> Path:
    python = shared_python(folder / "python")
    root = folder / "conda"
    asyncio.run(_install(folder, root, python))
    # Links made at run time by real conda, too: condabin is what a shell hook puts on PATH.
    (root / "condabin").mkdir()
    (root / "condabin" / "conda").symlink_to("../bin/conda")
    packages.install(lab, root / "envs" / "lab")
    packages.install(kernel, root / "envs" / "pytorch")
    site = root / "envs" / "pytorch" / "lib" / f"python{VERSION}" / "site-packages"
    for path, text in {
        "torch/__init__.py": '"""Only its version."""\n\nfrom torch.version import __version__ as __version__\n',
        "torch/version.py": f"__version__ = '{TORCH}'\ndebug = False\ncuda = '12.4'\ngit_version = ''\nhip = None\n",
        f"torch-{TORCH}.dist-info/METADATA": f"Metadata-Version: 2.1\nName: torch\nVersion: {TORCH}\n",
        f"torch-{TORCH}.dist-info/INSTALLER": "pip\n",
    }.items():
        (site / path).parent.mkdir(exist_ok=True)
        (site / path).write_text(text)
    hook = root / "envs" / "pytorch" / "etc" / "conda" / "activate.d" / "jm_test.sh"
    hook.parent.mkdir(parents=True)
    hook.write_text("export JM_ACTIVATED=pytorch\n")
    _open_to_all(folder)
    return python


async def _install(folder: Path, root: Path, python: Path) -> None:
    # Typed packages are rare among the compiled ones.
    import rattler
    from rattler.index import index_fs

    channel = folder / "channel"
    version = ".".join(str(part) for part in sys.version_info[:3])
    skeleton = {"pyvenv.cfg": f"home = {python.parent}\ninclude-system-site-packages = false\nversion = {version}\n"}
    links = {
        "bin/python": str(python),
        "bin/python3": "python",
        f"bin/python{VERSION}": "python",
    }
    write_package(channel, "python", version, "h955ad1f_0", skeleton, links)
    write_package(channel, "conda", "24.9.2", "py311h06a4308_0", {"bin/conda": CONDA}, {}, depends=("python",))
    await index_fs(channel)
    for prefix, spec in (
        (root, "conda"),
        (root / "envs" / "lab", "python"),
        (root / "envs" / "pytorch", "python"),
        (root / "envs" / "tf", "python"),
        (folder / "prefix", "python"),
    ):
        records = await rattler.solve(
            [rattler.Channel(channel.as_uri())], [rattler.MatchSpec(spec)], platforms=[rattler.Subdir("noarch")]
        )
        await rattler.install(records, prefix, cache_dir=folder / "pkgs", show_progress=False)
        # The installer leaves it empty; conda itself calls a folder an environment only where it holds something.
        (prefix / "conda-meta" / "history").write_text("==> 2026-03-03 14:05:11 <==\n# cmd: conda create\n")
        (prefix / "lib" / f"python{VERSION}" / "site-packages").mkdir(parents=True)


def write_package(
    channel: Path,
    name: str,
    version: str,
    build: str,
    files: dict[str, str],
    links: dict[str, str],
    depends: tuple[str, ...] = (),
) -> Path:
    """Write a conda package, a tar with its facts in ``info/``; returns it."""
    empty = hashlib.sha256(b"").hexdigest()
    paths: list[dict[str, Any]] = [
        {
            "_path": path,
            "path_type": "hardlink",
            "sha256": hashlib.sha256(text.encode()).hexdigest(),
            "size_in_bytes": len(text.encode()),
        }
        for path, text in files.items()
    ]
    paths += [{"_path": path, "path_type": "softlink", "sha256": empty, "size_in_bytes": 0} for path in links]
    index = {
        "name": name,
        "version": version,
        "build": build,
        "build_number": 0,
        "depends": list(depends),
        "subdir": "noarch",
        "noarch": "generic",
        "license": "Apache-2.0",
        "timestamp": 1_700_000_000_000,  # the solver refuses packages without one
    }
    (channel / "noarch").mkdir(parents=True, exist_ok=True)
    target = channel / "noarch" / f"{name}-{version}-{build}.tar.bz2"
    with tarfile.open(target, "w:bz2", compresslevel=1) as archive:
        facts = {
            "info/index.json": json.dumps(index),
            "info/paths.json": json.dumps({"paths": paths, "paths_version": 1}),
            "info/files": "".join(f"{path}\n" for path in (*files, *links)),
        }
        for path, text in {**facts, **files}.items():
            entry = tarfile.TarInfo(path)
            entry.size = len(text.encode())
            entry.mode = 0o755 if path.startswith("bin/") else 0o644
            archive.addfile(entry, io.BytesIO(text.encode()))
        for path, place in links.items():
            entry = tarfile.TarInfo(path)
            entry.type = tarfile.SYMTYPE
            entry.linkname = place
            archive.addfile(entry)
    return target


def _open_to_all(folder: Path) -> None:
    """Let every account read: the installer writes its records 0600, and our own umask may be strict."""
    for parent, _, names in os.walk(folder):
        Path(parent).chmod(0o755)
        for name in names:
            path = Path(parent, name)
            if not path.is_symlink():
                path.chmod(0o755 if path.stat().st_mode & 0o100 else 0o644)
