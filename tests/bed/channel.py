"""A conda channel, and a `conda` that installs from it: conda's commands with py-rattler as the engine.

conda itself is on no package index. The environments afterwards are as a conda installer leaves them.
"""

from __future__ import annotations

import asyncio
import importlib.util
import os
import shutil
import sys
from importlib import metadata
from pathlib import Path

from tests.bed.bed import Bed
from tests.bed.conda import write_package
from tests.bed.interpreter import VERSION

PROGRAM = Path(__file__).with_name("rattler_conda.py")
SITE = f"lib/python{VERSION}/site-packages"


class Channel:
    """A channel in a folder that all accounts can read.

    Args:
        bed: has the Python and the packages for kernels.
    """

    def __init__(self, bed: Bed) -> None:
        self.bed = bed
        self.folder = bed.folder / "channel"
        self.folder.mkdir(mode=0o755)
        python = bed.conda.python
        version = ".".join(map(str, sys.version_info[:3]))
        write_package(
            self.folder,
            "python",
            version,
            "h955ad1f_0",
            {"pyvenv.cfg": f"home = {python.parent}\ninclude-system-site-packages = false\nversion = {version}\n"},
            {"bin/python": str(python), "bin/python3": "python", f"bin/python{VERSION}": "python"},
        )
        # The modules are those of the bed's environment with a kernel, so they need not be packed.
        there = bed.conda.pytorch / SITE
        self.add("ipykernel", metadata.version("ipykernel"), {f"{SITE}/bed.pth": f"{there}\n"})
        self.add("ipywidgets", "8.1.9", {f"{SITE}/ipywidgets/__init__.py": "__version__ = '8.1.9'\n"})
        self.add("pip", metadata.version("pip"), {}, installed="pip")
        self.index()

    @property
    def url(self) -> str:
        """The value of ``-c``."""
        return self.folder.as_uri()

    def add(
        self,
        name: str,
        version: str,
        files: dict[str, str],
        depends: tuple[str, ...] = ("python",),
        installed: str | None = None,
    ) -> Path:
        """Add a package; `installed` names a distribution of this environment whose files it has.

        Returns:
            Its file.
        """
        files = dict(files)
        info = f"{SITE}/{name}-{version}.dist-info"
        if installed is None:
            files[f"{info}/METADATA"] = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        else:
            dist = metadata.distribution(installed)
            for file in dist.files or ():
                source = Path(str(dist.locate_file(file)))
                if file.parts[0] != ".." and file.suffix in {".py", ".pem", ".txt", ""} and source.is_file():
                    files[f"{SITE}/{file.as_posix()}"] = source.read_text()
        return write_package(self.folder, name, version, "py_0", files, {}, depends=depends)

    def index(self) -> None:
        """Write repodata.json, once all packages are there."""
        from rattler.index import index_fs

        asyncio.run(index_fs(self.folder))
        for parent, _, names in os.walk(self.folder):
            Path(parent).chmod(0o755)
            for name in names:
                Path(parent, name).chmod(0o644)

    def root(self, folder: Path, uid: int, gid: int, *, names: tuple[str, ...] = ("conda",)) -> Path:
        """Make an installation of conda that belongs to an account.

        Args:
            folder: is made.
            uid: of the account.
            gid: of its group.
            names: of the program.

        Returns:
            The program.
        """
        engine = self.bed.folder / "rattler"
        if not engine.exists():
            found = importlib.util.find_spec("rattler")
            assert found is not None
            assert found.origin is not None
            shutil.copytree(Path(found.origin).parent, engine / "rattler", ignore=shutil.ignore_patterns("__pycache__"))
            for parent, _, files in os.walk(engine):
                Path(parent).chmod(0o755)
                for name in files:
                    Path(parent, name).chmod(0o755)
        for name in ("bin", "envs", "conda-meta", "condabin"):
            (folder / name).mkdir(parents=True)
        (folder / "conda-meta" / "history").touch()
        (folder / "channel").write_text(f"{self.url}\n")
        text = PROGRAM.read_text()
        for name in names:
            program = folder / "bin" / name
            program.write_text(f"#!{self.bed.conda.python}\n{text.replace('@ENGINE@', str(engine))}")
            program.chmod(0o755)
        for parent, folders, files in os.walk(folder):
            for name in (".", *folders, *files):
                os.chown(Path(parent, name), uid, gid, follow_symlinks=False)
        return folder / "bin" / names[0]
