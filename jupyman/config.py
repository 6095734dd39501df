"""The user's config.toml: read strictly, edited without losing comments."""

from __future__ import annotations

import itertools
import os
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import msgspec

from jupyman import errors
from jupyman.model import App, OnConflict, Restart
from jupyman.paths import own_uid
from jupyman.rules import check_destination, check_name, check_port


class Table(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of the tables: an unknown key is an error."""


class Defaults(Table, frozen=True, kw_only=True):
    """The table ``[defaults]``."""

    env: str | None = None
    dir: str | None = None
    app: App | None = None
    gpu: str | None = None
    port: int | None = None
    on_conflict: OnConflict | None = None
    restart: Restart | None = None
    share: bool | None = None
    debugger: bool | None = None


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
    share: bool | None = None
    debugger: bool | None = None
    engine: Literal["native", "sshtunnel"] = "native"
    launcher: Literal["nohup", "slurm"] = "nohup"
    slurm: dict[str, Any] | None = None


class MirrorEntry(Table, frozen=True, kw_only=True):
    """A table ``[mirrors.NAME]``."""

    conda: str | None = None
    pip: str | None = None
    torch: str | None = None


class Config(Table, frozen=True, kw_only=True):
    """The whole file."""

    default_host: str | None = None
    ssh_config: str | None = None
    defaults: Defaults = Defaults()
    hosts: dict[str, HostEntry] = {}
    mirrors: dict[str, MirrorEntry] = {}


def load(path: Path) -> Config:
    """Read config.toml.

    Args:
        path: the file; if absent, it counts as empty.

    Returns:
        The configuration.

    Raises:
        ConfigFault: it cannot be read, is not TOML, or has an unknown key or a wrong value; it names file and line.
    """
    try:
        with path.open(encoding="utf-8-sig") as file:  # Notepad writes a byte order mark
            owner = os.fstat(file.fileno()).st_uid
            # It can name programs that run as this user (ssh_config).
            if owner not in {0, own_uid()}:
                raise errors.ConfigFault(f"{path} belongs to uid {owner}, not to you", "write one of your own")
            text = file.read()
    except FileNotFoundError:
        return Config()
    except (OSError, UnicodeDecodeError) as error:
        raise errors.ConfigFault(f"{path} cannot be read: {error}") from error
    try:
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        found = re.search(r"line (\d+)", str(error))
        line = found[1] if found else str(text.count("\n") + 1)
        raise errors.ConfigFault(f"{path} line {line} is not TOML: {error}", file=str(path), line=int(line)) from error
    try:
        _check_values(content)
        return msgspec.convert(content, Config)
    except _Wrong as error:
        line = _line(text, error.keys)
        raise errors.ConfigFault(f"{path} line {line}: {error}", file=str(path), line=line) from error


class _Wrong(Exception):
    """An invalid value: its place, and why it is invalid."""

    def __init__(self, keys: tuple[str, ...], why: str) -> None:
        super().__init__(f"{'.'.join(keys)}: {why}" if keys else why)
        self.keys = keys


def _check_values(content: dict[str, Any]) -> None:
    """Check table by table: msgspec names the field, but not the host that it belongs to."""
    _check_table({**content, "hosts": {}, "defaults": {}, "mirrors": {}}, Config, ())
    defaults, hosts, mirrors = (content.get(key, {}) for key in ("defaults", "hosts", "mirrors"))
    _check_table(defaults, Defaults, ("defaults",))
    if not isinstance(mirrors, dict):
        raise _Wrong(("mirrors",), "must be tables: [mirrors.NAME]")
    for name, table in mirrors.items():
        _check_table(table, MirrorEntry, ("mirrors", name))
        for key, value in table.items():
            if not re.fullmatch(r"(?:https?|file)://[^\s\"'@]+", value):
                why = "must be an address (https://…, file:///…) without a password or spaces"
                raise _Wrong(("mirrors", name, key), why)
    if not isinstance(hosts, dict):
        raise _Wrong(("hosts",), "must be tables: [hosts.NAME]")
    for name, table in hosts.items():
        try:
            check_name(name, "host")
        except errors.UsageFault as error:
            raise _Wrong(("hosts", name), f"{error.message}: {error.hint}") from error
        _check_table(table, HostEntry, ("hosts", name))
        _check_destination(table.get("ssh"), ("hosts", name, "ssh"))
    _check_destination(content.get("default_host"), ("default_host",))


def _check_table(table: Any, shape: type[Table], keys: tuple[str, ...]) -> None:
    if not isinstance(table, dict):
        raise _Wrong(keys, "must be a table")
    known = shape.__struct_fields__
    for key, value in table.items():
        if key not in known:
            raise _Wrong((*keys, key), f"is not known; known here: {', '.join(known)}")
        try:
            msgspec.convert({key: value}, shape)
        except msgspec.ValidationError as error:
            raise _Wrong((*keys, key), str(error).split(" - at `")[0]) from error
        if key in {"port", "local_port"}:
            try:
                check_port(value)
            except errors.UsageFault as error:
                raise _Wrong((*keys, key), error.message) from error


def _check_destination(text: str | None, keys: tuple[str, ...]) -> None:
    try:
        if text is not None:
            check_destination(text)
    except errors.UsageFault as error:
        raise _Wrong(keys, f"{error.message}; {error.hint}") from error


def _line(text: str, keys: tuple[str, ...]) -> int:
    """Find the line of a key; if it is written in an unusual way, that of its table; else the first line."""
    best, length = 1, 0
    for number, found in _places(text):
        common = sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], zip(found, keys, strict=False)))
        if common > length:
            best, length = number, common
    return best


def _places(text: str) -> Iterator[tuple[int, tuple[str, ...]]]:
    """Yield each line that names a table or a key, with its full path."""
    table: tuple[str, ...] = ()
    for number, line in enumerate(text.splitlines(), 1):
        header = re.match(r"\s*\[\[?([^\]]+)\]", line)
        assignment = re.match(r"\s*((?:[A-Za-z0-9_-]+|\"[^\"]*\"|'[^']*'|[\s.])+?)\s*=(.*)", line)
        if header is not None:
            table = _keys(header[1])
            yield number, table
        elif assignment is not None:
            key = (*table, *_keys(assignment[1]))
            yield number, key
            for inner in re.finditer(r"[{,]\s*([A-Za-z0-9_-]+)\s*=", assignment[2]):
                yield number, (*key, inner[1])


def _keys(dotted: str) -> tuple[str, ...]:
    return tuple("".join(found) for found in re.findall(r"\"([^\"]*)\"|'([^']*)'|([A-Za-z0-9_-]+)", dotted))


def add_host(path: Path, name: str, values: dict[str, str | int]) -> None:
    """Write a table ``[hosts.NAME]``; the rest of the file stays as the user wrote it.

    Args:
        path: config.toml; created 0600 if it is absent.
        name: of the host.
        values: its keys.

    Raises:
        ConfigFault: the file cannot be read or written.
        UsageFault: the host exists already, or a value is invalid.
    """
    import tomlkit

    check_name(name, "host")
    if name in load(path).hosts:
        raise errors.UsageFault(f"host {name} is already in {path}", f"edit the file, or jupyman host rm {name}")
    try:
        _check_table(values, HostEntry, ("hosts", name))
    except _Wrong as error:
        raise errors.UsageFault(str(error)) from error
    document = tomlkit.parse(_text(path))
    if "hosts" not in document:
        document["hosts"] = tomlkit.table(is_super_table=True)
    hosts: Any = document["hosts"]
    table: Any = tomlkit.table() if isinstance(hosts, tomlkit.items.Table) else tomlkit.inline_table()
    for key, value in values.items():
        table[key] = value
    hosts[name] = table
    _write(path, tomlkit.dumps(document))


def remove_host(path: Path, name: str) -> None:
    """Remove a table ``[hosts.NAME]``.

    Args:
        path: config.toml.
        name: of the host.

    Raises:
        UnknownHost: there is no such host.
        ConfigFault: the file cannot be read or written.
    """
    import tomlkit

    if name not in load(path).hosts:
        raise errors.UnknownHost(f"no host {name!r} in {path}", "hosts of ~/.ssh/config are removed there")
    document = tomlkit.parse(_text(path))
    hosts: Any = document["hosts"]
    hosts.pop(name)
    _write(path, tomlkit.dumps(document))


def _text(path: Path) -> str:
    """Read the file without converting line ends."""
    if not path.exists():
        return ""
    with path.open(encoding="utf-8-sig", newline="") as file:
        return file.read()


def _write(path: Path, text: str) -> None:
    """Replace the file atomically; its mode stays, and a symbolic link stays a link."""
    import tempfile

    try:
        tomllib.loads(text)
        target = path.resolve()
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        mode = target.stat().st_mode & 0o777 if target.exists() else 0o600
        handle, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
        fresh = Path(name)
        try:
            with os.fdopen(handle, "w", encoding="utf-8", newline="") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            fresh.chmod(mode)
            fresh.replace(target)
        except BaseException:
            fresh.unlink(missing_ok=True)
            raise
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise errors.ConfigFault(f"{path} cannot be written: {error}") from error
