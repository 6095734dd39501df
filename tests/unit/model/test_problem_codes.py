"""Problem codes: declared once, used as declared, and documented."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import jupyman
from jupyman.host.servers import liveness
from jupyman.model import problem_codes
from jupyman.model.problem_codes import CODES, new_problem
from jupyman.tools.gpu import nvidia_smi

ROOT = Path(jupyman.__file__).parent
DOCS = ROOT.parent / "docs"
FILES = [path for path in sorted(ROOT.rglob("*.py")) if path.name != "problem_codes.py"]
# Functions that take a code, a text and a fix.
WRAPPERS = {"new_problem", "say"}
# Codes that stand in tables of their own.
TABLES = {
    "host/servers/liveness.py": liveness.ENDS - {"server-running"},  # it runs: no problem
    "tools/gpu/nvidia_smi.py": {failure.code for failure in nvidia_smi._FAILURES},
}


def name_of(call: ast.Call) -> str:
    function = call.func
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")


def literal(node: ast.expr | None) -> str | None:
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else None


def uses(path: Path) -> Iterator[tuple[str, str | None]]:
    """Yield each code that a file uses as a literal, with the severity that it names."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.Call):
            continue
        named = {keyword.arg: keyword.value for keyword in node.keywords}
        if name_of(node) == "Problem":
            code = literal(named.get("code"))
            severity = literal(named.get("severity"))
        elif name_of(node) in WRAPPERS and len(node.args) >= 3:
            code = literal(node.args[0])
            severity = literal(named.get("severity") or (node.args[3] if len(node.args) > 3 else None))
        else:
            continue
        if code is not None:
            yield code, severity


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_each_code_in_the_source_is_declared(path: Path) -> None:
    for code, severity in uses(path):
        assert code in CODES
        assert severity is None or severity in {CODES[code].severity, *CODES[code].also}, code


@pytest.mark.parametrize("file", TABLES)
def test_codes_of_tables_are_declared(file: str) -> None:
    assert (ROOT / file).is_file()
    assert TABLES[file] <= set(CODES)


def test_each_declared_code_is_used() -> None:
    """In the source, as a whole string."""
    strings = {
        node.value
        for path in FILES
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    assert set(CODES) - strings == set()


def test_each_code_is_declared_once() -> None:
    assert len(CODES) == len(problem_codes._TABLE)


def test_a_problem_has_the_declared_severity() -> None:
    assert new_problem("gpu-mig", "text", "fix").severity == "info"
    assert new_problem("gpu-mig", "text", "fix", "warning").severity == "warning"
    with pytest.raises(ValueError, match="gpu-mig"):
        new_problem("gpu-mig", "text", "fix", "error")
    with pytest.raises(KeyError):
        new_problem("nonsense", "text", "fix")


def test_the_page_is_what_the_table_says() -> None:
    assert (DOCS / "problems.md").read_text(encoding="utf-8").strip() == problem_codes.page()
