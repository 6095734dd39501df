"""The user's request for a new environment, and the installers of the host."""

from __future__ import annotations

import re
from typing import Literal

import msgspec

from jupyman import errors, rules
from jupyman.model import Driver, Gpu, Noun

Kind = Literal["conda", "mamba", "micromamba", "uv", "venv"]
# In the order of preference when the user names none: fast solvers first, then what every host has.
KINDS: tuple[Kind, ...] = ("mamba", "conda", "micromamba", "uv", "venv")
_RESERVED = frozenset({"base", "root", "system", "user"})


class EnvironmentRequest(Noun, frozen=True, kw_only=True):
    """The request; it is kept on the host, so that an interrupted installation can be continued by its name."""

    name: str
    python: str | None = None
    torch: str | None = None
    cuda: str | None = None
    packages: list[str] = msgspec.field(default_factory=list)
    pyg: bool = False
    source_name: str | None = None
    source: str | None = None
    channels: list[str] = msgspec.field(default_factory=list)
    torch_index: str | None = None
    tool: str | None = None
    dir: str | None = None
    kernel: str | None = None

    @property
    def bare(self) -> bool:
        """Whether only the name was given."""
        return self == EnvironmentRequest(name=self.name)


class Tool(Noun, frozen=True, kw_only=True):
    """An installer on the host."""

    kind: Kind
    path: str
    root: str | None = None  # of conda, mamba and micromamba: contains the environments and the package cache
    writable: bool = False  # whether the account can make an environment in ROOT/envs


class Python(Noun, frozen=True, kw_only=True):
    """A Python on the host; `venv`: it can make environments."""

    path: str
    version: str
    venv: bool

    @property
    def minor(self) -> tuple[int, int]:
        """Its version's first two numbers."""
        numbers = self.version.split(".")
        return int(numbers[0]), int(numbers[1])


class HostInstallers(Noun, frozen=True, kw_only=True):
    """The installers and Pythons of a host."""

    home: str
    jobs: str  # the folder of our installations
    tools: list[Tool] = msgspec.field(default_factory=list)
    pythons: list[Python] = msgspec.field(default_factory=list)
    driver: Driver | None = None
    gpus: list[Gpu] = msgspec.field(default_factory=list)


def check_name(name: str) -> str:
    """Return the name of a new environment unchanged.

    Raises:
        UsageFault: it is a path, an option, a reserved name, or not a name.
    """
    if not rules.is_name(name) or name in _RESERVED:
        raise errors.UsageFault(
            f"{name[:80]!r} cannot be the name of a new environment",
            "letters, digits, dot, underscore and dash, at most 63; not base, root, system or user",
        )
    return name


def check_text(text: str, what: str) -> str:
    """Return a package, a channel or an address unchanged.

    Raises:
        UsageFault: a tool could read it as an option, it is not one line, or it contains a password.
    """
    if not text or len(text) > 400 or text.startswith("-") or not text.isprintable():
        raise errors.UsageFault(f"{text[:80]!r} is not a {what}", "write one line that does not start with a dash")
    if re.search(r"://[^/@]*:[^/@]*@", text):
        raise errors.UsageFault(
            f"the {what} contains a password, which every user of the host could read",
            "put it into ~/.netrc on the host and leave it out here",
        )
    return text
