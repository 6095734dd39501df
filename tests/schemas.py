"""Compares ``--json`` output with docs/schema/results.json."""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jsonschema

SCHEMAS = Path(__file__).parents[1] / "docs" / "schema"


@functools.cache
def _results() -> Any:
    """Return the schemas, with a key that they do not describe forbidden."""
    schemas = json.loads((SCHEMAS / "results.json").read_text(encoding="utf-8"))
    for definition in schemas["$defs"].values():
        definition["additionalProperties"] = False
    return schemas


def check_output(command: str, output: Any) -> None:
    """Check what a command printed.

    Args:
        command: the words of the command without arguments: "up", "kernel ls".
        output: the decoded JSON.

    Raises:
        jsonschema.ValidationError: the schema describes something else.
    """
    schemas = _results()
    failed = isinstance(output, dict) and set(output) == {"error"}
    kind = schemas["commands"]["any that fails" if failed else command]
    jsonschema.Draft202012Validator({**kind, "$defs": schemas["$defs"]}).validate(output)


def check_words(words: Sequence[str], output: Any) -> None:
    """Check what a command line printed; nothing if it is not known as one with JSON."""
    known = [name for name in _results()["commands"] if name.split() == [*words][: name.count(" ") + 1]]
    if known and "--json" in words:
        check_output(max(known, key=len), output)
