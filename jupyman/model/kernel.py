"""Jupyter kernels of a host."""

from __future__ import annotations

from typing import Literal

from jupyman.model.base import Noun


class KernelSpec(Noun, frozen=True, kw_only=True):
    """Jupyter's kernel.json entry."""

    name: str
    display_name: str
    prefix: str | None
    argv: list[str]
    ok: bool | None
    problem: str | None
    directory: str | None = None
    environment: str | None = None  # name of the environment that it runs in
    seen_by: list[str] | None = None  # environments whose servers list it; None: all of them
    ipywidgets: str | None = None  # version in its environment (`kernel check` only)


class Repair(Noun, frozen=True, kw_only=True):
    """A command on the host that fixes a problem with the environment's own installer."""

    prefix: str
    packages: list[str]
    command: list[str]
    state: Literal["proposed", "declined", "done"]
