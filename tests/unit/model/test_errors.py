"""The error tree: one code and one status each, and documentation that says the same."""

from __future__ import annotations

from pathlib import Path

from jupyman import errors

DOCS = Path(__file__).parents[3] / "docs"
# docs/errors.md and scripts rely on these; InternalError is the base's own.
CONTRACT = {0, 1, 2, 10, 11, 12, 13, 14, 20, 21, 22, 23, 24, 25, 26, 27, 30, 31, 32, 40, 41, 130}


def test_codes_are_unique_and_statuses_are_those_of_the_contract() -> None:
    tree = [cls for cls in errors.every() if cls.__module__ == "jupyman.errors" and cls is not errors.JupymanError]
    codes = [cls.code for cls in tree]
    assert len(codes) == len(set(codes))
    assert {cls.status for cls in tree} <= CONTRACT


def test_the_page_is_what_the_tree_says() -> None:
    assert (DOCS / "errors.md").read_text(encoding="utf-8").strip() == errors.table()


def test_an_error_survives_the_way_over_the_api() -> None:
    for cls in errors.every():
        if cls is errors.JupymanError or cls.__module__ != "jupyman.errors":
            continue
        sent = cls("what", "do", port=1)
        back = errors.from_info(sent.info())
        assert (type(back).status, back.message, back.hint, back.details) == (cls.status, "what", "do", {"port": 1})
