# ruff: noqa: UP006, UP032, UP035, UP045 - this runs on the host, on Python 3.6 as well
"""Runs on the host, by the environment's own Python (3.6+): reads and completes a kernel.json.

``owner FILE``: print the prefix that an existing kernel runs in.
``write FILE``: add the environment's activation to the spec that ipykernel wrote; the values are JSON on fd 3.
"""

import json
import os
import sys
from typing import Any, Dict


def read(path: str) -> Dict[str, Any]:
    with open(path, encoding="utf-8") as file:
        found = json.load(file)
    return found if isinstance(found, dict) else {}


def owner(spec: Dict[str, Any]) -> str:
    ours = (spec.get("metadata") or {}).get("jupyman") or {}
    if ours.get("prefix"):
        return str(ours["prefix"])
    argv = spec.get("argv") or [""]
    if (spec.get("env") or {}).get("CONDA_PREFIX"):
        return str(spec["env"]["CONDA_PREFIX"])
    return os.path.dirname(os.path.dirname(str(argv[0])))


def write(path: str, values: Dict[str, Any]) -> None:
    spec = read(path)
    argv = list(spec["argv"])
    argv[0] = values["python"]
    spec["argv"] = [values["shell"], "-c", values["wrapper"]] + argv
    spec["env"] = dict(spec.get("env") or {}, **values["env"])
    spec["display_name"] = values["display_name"]
    metadata = dict(spec.get("metadata") or {})
    metadata["jupyman"] = {"prefix": values["prefix"], "python": values["python"]}
    spec["metadata"] = metadata
    fresh = path + ".new"
    with open(fresh, "w", encoding="utf-8") as file:
        json.dump(spec, file, indent=1, ensure_ascii=False)
        file.flush()
        os.fsync(file.fileno())
    os.replace(fresh, path)


def main() -> None:
    if sys.argv[1] == "owner":
        try:
            print(os.path.realpath(owner(read(sys.argv[2]))))
        except (OSError, ValueError, TypeError, AttributeError):
            print("?")
    else:
        with os.fdopen(3, encoding="utf-8") as file:
            values = json.load(file)
        write(sys.argv[2], values)


main()
