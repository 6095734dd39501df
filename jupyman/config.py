"""The user's config.toml: read strictly, edited without losing a comment."""

from __future__ import annotations

import os
import re
import tomllib
from pathlib import Path
from typing import Any, Literal

import msgspec

from jupyman import errors
from jupyman.model import App, OnConflict, Restart

# A session's name becomes a directory on the host and a word on the command line.
_NAME = re.compile(r"^[A-Za-z0-9_][A-Za-z0-9._-]{0,62}$")


class Table(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of the tables: a key that is not known is an error, not a silent nothing."""


class Defaults(Table, frozen=True, kw_only=True):
    """The table ``[defaults]``."""

    env: str | None = None
    dir: str | None = None
    app: App | None = None
    gpu: str | None = None
    port: int | None = None
    on_conflict: OnConflict | None = None
    restart: Restart | None = None


class HostEntry(Table, frozen=True, kw_only=True):
    """A table ``[hosts.NAME]``."""

    ssh: str | None = None
    env: str | None = None
    dir: str | None = None
    app: App | None = None
    gpu: str | None = None
    port: int | None = None
    local_port: int | None = None
    on_conflict: OnConflict | None = None
    restart: Restart | None = None
    engine: Literal["native", "sshtunnel"] = "native"
    launcher: Literal["nohup", "slurm"] = "nohup"
    slurm: dict[str, Any] = {}


class Config(Table, frozen=True, kw_only=True):
    """The whole file."""

    default_host: str | None = None
    ssh_config: str | None = None
    defaults: Defaults = Defaults()
    hosts: dict[str, HostEntry] = {}


def load(path: Path) -> Config:
    """Read config.toml.

    Args:
        path: the file; absent, it counts as empty.

    Returns:
        The configuration.

    Raises:
        ConfigFault: it cannot be read, is no TOML, or has an unknown key or a wrong value; file and line are named.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return Config()
    except (OSError, UnicodeDecodeError) as error:
        raise errors.ConfigFault(f"{path} cannot be read: {error}") from error
    try:
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        found = re.search(r"line (\d+)", str(error))
        line = found[1] if found else str(text.count("\n") + 1)
        raise errors.ConfigFault(f"{path} line {line} is no TOML: {error}", file=str(path), line=int(line)) from error
    try:
        config = msgspec.convert(content, Config)
        for name, entry in config.hosts.items():
            _port(entry.port, f"hosts.{name}.port")
            _port(entry.local_port, f"hosts.{name}.local_port")
        _port(config.defaults.port, "defaults.port")
    except msgspec.ValidationError as error:
        line = _line(text, str(error))
        raise errors.ConfigFault(f"{path} line {line}: {error}", file=str(path), line=line) from error
    return config


def _port(port: int | None, place: str) -> None:
    if port is not None and not 1 <= port <= 65535:
        raise msgspec.ValidationError(f"Port {port} is not between 1 and 65535 - at `$.{place}`")


def _line(text: str, complaint: str) -> int:
    """Find the line that msgspec complains about: it names an unknown field, or a path like ``$.hosts[...].env``."""
    field = re.search(r"unknown field `([^`]+)`", complaint)
    place = re.search(r"at `(?:key in )?\$\.?([^`]*)`", complaint)
    keys = [key for key in re.split(r"[.\[\]]+", place[1] if place else "") if key and key != "..."]
    key = field[1] if field else (keys[-1] if keys else "")
    if key:
        for number, line in enumerate(text.splitlines(), 1):
            if re.match(rf"^\s*(\[.*\b)?{re.escape(key)}\b", line):
                return number
    return 1


def check_name(name: str, what: str = "session") -> str:
    """Return a session's or host's name unchanged.

    Args:
        name: what the user said.
        what: "session" or "host", for the message.

    Raises:
        UsageFault: it cannot be a name.
    """
    if not _NAME.match(name) or name.isdigit():
        raise errors.UsageFault(
            f"{name[:80]!r} cannot be a {what} name",
            "letters, digits, dot, underscore and dash; at most 63; not only digits; not starting with a dash or a dot",
        )
    return name


def check_port(port: int) -> int:
    """Return a port unchanged.

    Raises:
        UsageFault: it is not 1..65535.
    """
    if not 1 <= port <= 65535:
        raise errors.UsageFault(f"port {port} is not between 1 and 65535", "choose another port")
    return port


def add_host(path: Path, name: str, values: dict[str, str]) -> None:
    """Write a table ``[hosts.NAME]``; everything else in the file stays as the user wrote it.

    Args:
        path: config.toml; made 0600 where it is absent.
        name: of the host.
        values: its keys.

    Raises:
        ConfigFault: the file cannot be read or written.
        UsageFault: the host is there already.
    """
    import tomlkit

    if name in load(path).hosts:
        raise errors.UsageFault(f"host {name} is in {path} already", f"edit the file, or jupyman host rm {name}")
    document = tomlkit.parse(path.read_text(encoding="utf-8") if path.exists() else "")
    if "hosts" not in document:
        document["hosts"] = tomlkit.table(is_super_table=True)
    table = tomlkit.table()
    for key, value in values.items():
        table[key] = value
    document["hosts"][name] = table
    _write(path, tomlkit.dumps(document))


def remove_host(path: Path, name: str) -> None:
    """Remove a table ``[hosts.NAME]``.

    Raises:
        UnknownHost: there is none.
        ConfigFault: the file cannot be read or written.
    """
    import tomlkit

    if name not in load(path).hosts:
        raise errors.UnknownHost(f"no host {name!r} in {path}", "hosts of ~/.ssh/config are removed there")
    document = tomlkit.parse(path.read_text(encoding="utf-8"))
    document["hosts"].pop(name)
    _write(path, tomlkit.dumps(document))


def _write(path: Path, text: str) -> None:
    mode = path.stat().st_mode & 0o777 if path.exists() else 0o600
    fresh = path.with_name(f"{path.name}.new")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)
    except OSError as error:
        fresh.unlink(missing_ok=True)
        raise errors.ConfigFault(f"{path} cannot be written: {error.strerror}") from error
