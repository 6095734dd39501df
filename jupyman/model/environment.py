"""Environments of a host."""

from __future__ import annotations

from typing import Literal

from jupyman.model.base import Noun
from jupyman.model.gpu import Torch

App = Literal["lab", "notebook", "server"]
# `incomplete`: its installation was interrupted, and nothing is run from it; `installing`: it is being installed.
EnvState = Literal["ready", "installing", "incomplete"]


class Environment(Noun, frozen=True, kw_only=True):
    """A prefix with a Python."""

    name: str
    prefix: str
    kind: Literal["conda", "mamba", "micromamba", "venv", "uv", "system"]
    python: str | None  # its version
    jupyter: str | None  # version of jupyter_server (or notebook 6); None: Jupyter cannot run from here
    ipykernel: str | None
    torch: Torch | None
    apps: list[App] = []  # the applications that can run from here
    root: str | None = None  # the conda root that it belongs to
    executable: str | None = None  # path of its python
    lodger: bool = False  # owned by another user in a shared folder: selected only when the user names it
    real: str | None = None  # the prefix with all symbolic links resolved
    state: EnvState = "ready"
    cudnn: str | None = None  # version of its conda package or wheel
    torch_by: Literal["conda", "pip"] | None = None  # what installed torch
    torch_foreign: bool = False  # it has torch, and its folder is another user's or writable by everybody
    torch_with: list[str] = []  # installed packages that need one torch release: torchvision, torchaudio
