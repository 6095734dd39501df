"""Jupyter servers on a host: start, find, verify, stop; and the launchers that config.toml can name."""

from __future__ import annotations

from jupyman.host.servers.base import LauncherFactory
from jupyman.host.servers.nohup import NohupLauncher

_LAUNCHERS: dict[str, LauncherFactory] = {"nohup": NohupLauncher}


def choose(name: str) -> LauncherFactory:
    """Return what makes a launcher from a shell on a host.

    Args:
        name: as in config.toml. `up` refuses one that this version lacks; other verbs see the host's plain processes.
    """
    return _LAUNCHERS.get(name, NohupLauncher)
