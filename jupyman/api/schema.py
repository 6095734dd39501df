"""Writes the JSON Schemas of the API and of all ``--json`` outputs: ``python -m jupyman.api.schema docs/schema``."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import cast, get_args

import msgspec

from jupyman import api
from jupyman.api import results
from jupyman.api.requests import result_of
from jupyman.model.event import AnyFeedEvent

# Command -> what it prints with --json. A command that fails prints an `ErrorReport` instead.
REQUESTS: Mapping[str, type[api.AnyRequest]] = {
    "up": api.Up,
    "down": api.Down,
    "kill": api.Kill,
    "ps": api.PsRequest,
    "tunnel": api.Tunnel,
    "open": api.OpenCode,
    "url": api.Url,
    "check": api.Check,
    "kernel add": api.KernelAdd,
    "kernel ls": api.KernelLs,
    "kernel check": api.KernelCheck,
    "kernel rm": api.KernelRm,
    "env ls": api.EnvLs,
    "env create": api.EnvCreate,
    "env rm": api.EnvRm,
    "env push": api.EnvPush,
    "env mirror ls": api.EnvMirrorLs,
    "env mirror use": api.EnvMirror,
    "env mirror reset": api.EnvMirror,
    "host ls": api.HostLs,
    "host trust": api.HostTrust,
    "daemon start": api.DaemonStatus,
    "daemon status": api.DaemonStatus,
    "daemon restart": api.DaemonStatus,
    "daemon stop": api.DaemonStop,
}
COMMANDS: Mapping[str, type[msgspec.Struct]] = {
    "host add": results.HostAdded,
    "host rm": results.HostRemoved,
    **{command: result_of(cast("type[api.Request[msgspec.Struct]]", kind)) for command, kind in REQUESTS.items()},
}
_DIALECT = "https://json-schema.org/draft/2020-12/schema"


def requests() -> bytes:
    """Return the schemas of what a client sends."""
    return _document("what a client sends", bodies={"POST /v1/run": api.Call, "POST /v1/answer": api.Answer})


def events() -> bytes:
    """Return the schema of a line that the daemon sends; results.json describes the `result` of `Done`."""
    return _document("what the daemon sends", lines={"POST /v1/run": api.AnyEvent, "GET /v1/events": AnyFeedEvent})


def outputs() -> bytes:
    """Return the schemas of results, by the tag of the request, and of what commands print with ``--json``."""
    kinds = {str(cls.__struct_config__.tag): result_of(cls) for cls in get_args(api.AnyRequest)}
    return _document("results", requests=kinds, commands={**COMMANDS, "any that fails": results.ErrorReport})


FILES = {"requests": requests, "events": events, "results": outputs}


def _document(title: str, **groups: Mapping[str, object]) -> bytes:
    """Return definitions of all structs, and groups of references to them."""
    kinds = [kind for group in groups.values() for kind in group.values()]
    schemas, definitions = msgspec.json.schema_components(kinds, ref_template="#/$defs/{name}")
    rest = iter(schemas)
    content = {
        "$schema": _DIALECT,
        "title": f"jupyman: {title}",
        **{name: {key: next(rest) for key in group} for name, group in groups.items()},
        "$defs": dict(sorted(definitions.items())),
    }
    return msgspec.json.format(msgspec.json.encode(content), indent=2) + b"\n"


def main(arguments: Iterable[str]) -> None:
    """Write the schemas into a folder."""
    folder = Path(next(iter(arguments)))
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in FILES.items():
        (folder / f"{name}.json").write_bytes(content())


if __name__ == "__main__":
    main(sys.argv[1:])
