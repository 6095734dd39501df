"""Installations on the host, and what `env ls` says of them."""

from __future__ import annotations

from pathlib import Path

from tests.bed import Bed, Cli, User
from tests.bed.channel import SITE
from tests.bed.packages import closure, install

STATE = Path(".local/state/jupyman")


def give_pip(bed: Bed, user: User) -> Path:
    """Put a pip into the environment in the user's home; returns its site-packages."""
    kept = bed.folder / "pip"
    if not kept.exists():
        install(closure("pip"), kept)
    for path in (kept / SITE).iterdir():
        (user.home / "work" / "env" / SITE / path.name).symlink_to(path)
    return user.home / "work" / "env" / SITE


def jobs(user: User) -> list[Path]:
    """The directories of installations on the host."""
    return sorted((user.home / STATE).glob("*/.environments/*"))


def state(cli: Cli, name: str) -> str | None:
    """What `env ls` says of an environment."""
    found = [one for one in cli("env", "ls", "server1", "--json").json["environments"] if one["name"] == name]
    return str(found[0]["state"]) if found else None
