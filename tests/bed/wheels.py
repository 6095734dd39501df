"""A package index (PEP 503) with wheels of installed distributions and of made-up packages, without a network."""

from __future__ import annotations

import base64
import hashlib
import zipfile
from collections.abc import Iterable, Mapping
from importlib import metadata
from pathlib import Path

from packaging.utils import canonicalize_name

NOT_PACKED = frozenset({"RECORD", "INSTALLER", "REQUESTED", "direct_url.json"})


class Index:
    """A folder of the form ``simple/NAME/FILE.whl``, each with its page.

    Args:
        folder: is made; all accounts can read it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(mode=0o755)

    @property
    def url(self) -> str:
        """The value of ``--index-url``."""
        return self.folder.as_uri()

    def add_installed(self, dists: Iterable[metadata.Distribution]) -> None:
        """Add distributions of the environment that runs the tests, with the code that is installed."""
        for dist in dists:
            tags = [line[5:].split("-") for line in (dist.read_text("WHEEL") or "").splitlines() if line[:5] == "Tag: "]
            # Several tags are compressed into one in the file's name: py2.py3-none-any.
            tag = "-".join(".".join(dict.fromkeys(part)) for part in zip(*tags, strict=True))
            files = {}
            for file in dist.files or ():
                source = Path(str(dist.locate_file(file)))
                inside = file.parts[0] != ".."
                if inside and file.suffix != ".pyc" and file.name not in NOT_PACKED and source.is_file():
                    files[file.as_posix()] = source.read_bytes()
            info = next(name.partition("/")[0] for name in files if name.endswith(".dist-info/METADATA"))
            self._write(info.removesuffix(".dist-info"), tag, files)

    def add(self, name: str, version: str, files: Mapping[str, str], requires: Iterable[str] = ()) -> Path:
        """Add a made-up package.

        Args:
            name: its name, with underscores.
            version: its version.
            files: text by path in site-packages.
            requires: its requirements.

        Returns:
            The wheel.
        """
        info = f"{name}-{version}.dist-info"
        head = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        head += "".join(f"Requires-Dist: {one}\n" for one in requires)
        wheel = "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        texts = {**files, f"{info}/METADATA": head, f"{info}/WHEEL": wheel}
        return self._write(f"{name}-{version}", "py3-none-any", {path: text.encode() for path, text in texts.items()})

    def _write(self, stem: str, tag: str, files: Mapping[str, bytes]) -> Path:
        home = self.folder / canonicalize_name(stem.rpartition("-")[0])
        home.mkdir(mode=0o755, exist_ok=True)
        target = home / f"{stem}-{tag}.whl"
        rows = []
        with zipfile.ZipFile(target, "w") as archive:
            for path, content in files.items():
                digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
                rows.append(f"{path},sha256={digest},{len(content)}")
                archive.writestr(path, content)
            record = f"{stem}.dist-info/RECORD"
            archive.writestr(record, "\n".join([*rows, f"{record},,", ""]))
        names = sorted(path.name for path in home.glob("*.whl"))
        links = "".join(f'<a href="{name.replace("+", "%2B")}">{name}</a><br>\n' for name in names)
        (home / "index.html").write_text(f"<!DOCTYPE html><html><body>\n{links}</body></html>\n")
        return target
