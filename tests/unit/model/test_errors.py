"""The error tree: one code and one status each, and documentation that says the same."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import jupyman
from jupyman import errors
from jupyman.model import ErrorInfo

DOCS = Path(__file__).parents[3] / "docs"
# docs/errors.md and scripts rely on these.
CONTRACT = {1, 2, 10, 11, 12, 13, 14, 20, 21, 22, 23, 24, 25, 26, 27, 30, 31, 32, 40, 41, 130}
TREE = errors.every()[1:]


def test_codes_are_unique_and_statuses_are_those_of_the_contract() -> None:
    codes = [vars(cls)["code"] for cls in TREE if "code" in vars(cls)]
    assert len(codes) == len(set(codes))
    assert {cls.status for cls in TREE} == CONTRACT


def test_the_page_is_what_the_tree_says() -> None:
    assert (DOCS / "errors.md").read_text(encoding="utf-8").strip() == errors.table()


@pytest.mark.parametrize("cls", TREE, ids=lambda cls: cls.__name__)
def test_an_error_survives_the_way_over_the_api(cls: type[errors.JupymanError]) -> None:
    """A class without a code of its own arrives as its base."""
    back = errors.from_info(cls("what", "do", port=1).info())
    assert issubclass(cls, type(back))
    assert (type(back).status, back.message, back.hint, back.details) == (cls.status, "what", "do", {"port": 1})


def test_an_unknown_code_is_a_bug() -> None:
    for code in ("internal", "of-a-later-version"):
        assert type(errors.from_info(ErrorInfo(code=code, message="m", hint="h"))) is errors.InternalError


def test_the_last_lines_of_a_log_are_text() -> None:
    assert errors.ServerExited("x", log=["a", 1]).log == ["a", "1"]
    assert errors.ServerExited("x").log == []


def test_no_code_reads_the_details_of_an_error() -> None:
    """They are for people and scripts; code looks at the class and its attributes. What only passes them on may."""
    passing = {"errors.py", "daemon/request_stream.py"}
    readers = set()
    root = Path(jupyman.__file__).parent
    for path in root.rglob("*.py"):
        nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
        parts = [node for node in nodes if isinstance(node, ast.Subscript)]
        written = {id(part.value) for part in parts if isinstance(part.ctx, ast.Store)}
        found = [node for node in nodes if isinstance(node, ast.Attribute) and node.attr == "details"]
        if any(isinstance(node.ctx, ast.Load) and id(node) not in written for node in found):
            readers.add(path.relative_to(root).as_posix())
    assert readers <= passing
