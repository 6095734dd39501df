"""PURE: what `up` makes of the command line, the stored session, and config.toml.

The options of this command come first; then those with which the session was made; then ``[hosts.NAME]`` and
``[defaults]`` as they are now. A server that may still run already has its environment, directory, app, GPUs and port:
for it the stored values stay, wherever they came from, and a changed config.toml takes effect with the next server.
"""

from __future__ import annotations

from typing import Any

from jupyman import errors
from jupyman.api import Up
from jupyman.config import Defaults, HostEntry
from jupyman.model import OnConflict, Restart, SessionSpec

# What a server is started with.
_OF_THE_SERVER = ("env", "dir", "app", "gpu", "port")


def merge(
    request: Up,
    name: str,
    host: str,
    old: SessionSpec | None,
    entry: HostEntry,
    defaults: Defaults,
    *,
    ended: bool = False,
    interactive: bool = False,
) -> SessionSpec:
    """Return what is wanted.

    Args:
        request: the options of this command; None fields were not given.
        name: of the session.
        host: its host.
        old: the stored session, None for a new one.
        entry: ``[hosts.NAME]`` of the host.
        defaults: ``[defaults]``.
        ended: the session's server is known to have ended.
        interactive: a person can be asked.
    """
    said = {key for key in (*_OF_THE_SERVER, "restart") if getattr(request, key) is not None}
    if old is not None:
        # A state file of 0.1.0 does not record what was given: then everything counts as given that is no default.
        said |= set(old.said) if old.said is not None else {*_OF_THE_SERVER, *_always(old)}

    def value(key: str) -> Any:
        kept = getattr(old, key) if old is not None and (key in said or not ended) else None
        return _first(getattr(request, key), kept, getattr(entry, key), getattr(defaults, key))

    kept_restart = old.restart if old is not None and "restart" in said else None
    restart: Restart | None = _first(request.restart, kept_restart, entry.restart, defaults.restart)
    conflict: OnConflict | None = _first(request.on_conflict, entry.on_conflict, defaults.on_conflict)
    return SessionSpec(
        name=name,
        host=host,
        env=value("env"),
        dir=value("dir"),
        app=value("app") or "lab",
        gpu=value("gpu"),
        port=value("port"),
        local_port=_first(old.local_port if old is not None else None, request.local_port, entry.local_port),
        on_conflict=conflict or ("ask" if interactive else "next"),
        restart=restart or "never",
        timeout=request.timeout,
        pid=old.pid if old is not None else None,
        node=old.node if old is not None else None,
        adopted=old is not None and old.adopted,
        said=sorted(said),
    )


def refuse_slurm(host: str, entry: HostEntry) -> None:
    """Refuse to start anything if config.toml asks for a Slurm job: it would run on the login node instead.

    Args:
        host: its name.
        entry: ``[hosts.NAME]`` of the host.

    Raises:
        ConfigFault: it does.
    """
    if entry.launcher == "slurm" or entry.slurm is not None:
        key = 'launcher = "slurm"' if entry.launcher == "slurm" else "slurm = {…}"
        raise errors.ConfigFault(
            f"[hosts.{host}] of config.toml says {key}, and jupyman starts no Slurm jobs yet: nothing was started",
            f"not in this version: start Jupyter by sbatch, and forward it by jupyman tunnel PORT --host {host}",
        )


def _always(old: SessionSpec) -> set[str]:
    return {"restart"} if old.restart == "always" else set()


def _first(*values: Any) -> Any:
    return next((value for value in values if value is not None), None)
