"""Environments in an account's home, as the tools that make them leave them, and what the probe reports of them."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from jupyman.model import Environment, HostReport
from tests.bed.local_account import Account


class Tree:
    """Builds environments in a home, as the tools that make them leave them."""

    def __init__(self, account: Account) -> None:
        self.account = account
        self.home = account.home

    def file(self, path: str | Path, text: str = "", *, mode: int = 0o644) -> Path:
        place = self.home / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)
        place.chmod(mode)
        return place

    def program(self, path: str | Path, text: str = "#!/bin/sh\n") -> Path:
        return self.file(path, text, mode=0o755)

    def package(self, prefix: str, name: str, version: str, python: str = "3.12") -> None:
        self.file(f"{prefix}/lib/python{python}/site-packages/{name}-{version}.dist-info/METADATA")

    def jupyter(self, prefix: str, python: str = "3.12") -> None:
        for app in ("lab", "server"):
            self.program(f"{prefix}/bin/jupyter-{app}", f"#!{self.home / prefix}/bin/python\n")
        self.package(prefix, "jupyter_server", "2.14.2", python)
        self.package(prefix, "ipykernel", "6.29.5", python)

    def conda(self, prefix: str, python: str = "3.12.4", *, jupyter: bool = False) -> None:
        self.file(f"{prefix}/conda-meta/history")
        self.file(f"{prefix}/conda-meta/python-{python}-h1_0_cpython.json", mode=0o600)
        self.program(f"{prefix}/bin/python")
        if jupyter:
            self.jupyter(prefix, python.rpartition(".")[0])

    def root(self, prefix: str) -> None:
        self.conda(prefix, jupyter=True)
        self.program(f"{prefix}/bin/conda")
        self.file(f"{prefix}/condabin/conda")

    def venv(self, prefix: str, config: str = "version = 3.11.9\n", *, jupyter: bool = False) -> None:
        self.file(f"{prefix}/pyvenv.cfg", f"home = /usr/bin\n{config}")
        (self.home / prefix / "bin").mkdir(parents=True, exist_ok=True)
        (self.home / prefix / "bin" / "python").symlink_to("/usr/bin/python3")
        if jupyter:
            self.jupyter(prefix, "3.11")

    def own(self) -> None:
        """Give all of it to the account."""
        for folder, _, names in os.walk(self.home):
            for name in ["", *names]:
                os.chown(Path(folder, name), self.account.uid, -1, follow_symlinks=False)


Look = Callable[..., HostReport]


def inside(tree: Tree, report: HostReport) -> dict[str, Environment]:
    """The environments below the home, by path from there; those of this machine are its own affair."""
    home = f"{tree.home}/"
    return {one.prefix.removeprefix(home): one for one in report.environments if one.prefix.startswith(home)}


def codes(report: HostReport) -> set[str]:
    return {problem.code for problem in report.problems}
