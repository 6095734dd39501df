"""What reaches a terminal: nothing that drives it, nothing that its encoding cannot say."""

from __future__ import annotations

import json
import unicodedata

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jupyman import rules
from jupyman.api import Step
from jupyman.cli import terminal
from tests.fakes import Screen

TEXT = st.text(st.characters(codec=None, exclude_categories=()), max_size=40)
ENCODINGS = st.sampled_from(["utf-8", "ascii", "cp1252", "cp437", "latin-1"])


@given(TEXT, ENCODINGS)
def test_printable(text: str, encoding: str) -> None:
    shown = terminal.printable(text, Screen(encoding=encoding))
    shown.encode(encoding)
    assert not [c for c in shown if c not in "\n\t" and unicodedata.category(c) in {"Cc", "Cf", "Cs"}]


@given(st.dictionaries(TEXT.filter(lambda text: text.isprintable()), st.text(max_size=40), max_size=4), ENCODINGS)
def test_json_stays_the_same_value(value: dict[str, str], encoding: str) -> None:
    shown = terminal.safe_json(msgspec.json.encode(value).decode(), Screen(encoding=encoding))
    assert json.loads(shown.encode(encoding)) == value
    assert not [c for c in shown if unicodedata.category(c) in {"Cc", "Cf", "Cs"}]


def test_plain_text_is_left_alone() -> None:
    text = 'héllo wörld ✓ 日本 "x" \\ \n\t.'
    assert terminal.printable(text, Screen()) == text
    assert terminal.safe_json('"é✓"', Screen()) == '"é✓"'


@given(st.lists(st.tuples(TEXT, TEXT), max_size=5))
def test_a_row_is_a_line(rows: list[tuple[str, str]]) -> None:
    assert terminal.table(("A", "B"), rows).count("\n") == len(rows)


def test_columns_line_up_with_wide_characters() -> None:
    lines = terminal.table(("NAME", "X"), [("日本", "1"), ("abcdef", "2"), ("e\u0301", "3")]).split("\n")
    assert lines == ["NAME    X", "日本    1", "abcdef  2", "e\u0301       3"]


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (None, "?"),
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1 kiB"),
        (1024 * 1024 - 1, "1 MiB"),
        (1000 << 20, "1000 MiB"),
        (3 << 29, "1.5 GiB"),
        (80 << 30, "80 GiB"),
        (1 << 50, "1024 TiB"),
    ],
)
def test_size(count: int | None, text: str) -> None:
    assert rules.size(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-5, "0s"), (0.9, "0s"), (59, "59s"), (60, "1m 0s"), (3599, "59m 59s"), (3600, "1h 0m"), (90061, "1d 1h")],
)
def test_duration(seconds: float, text: str) -> None:
    assert terminal.duration(seconds) == text


STEPS = [
    Step(key="a", text="working", state="run"),
    Step(key="a", text="worked", state="done", seconds=1.25),
    Step(key="b", text="odd", state="warn"),
    Step(key="c", text="more", state="run"),
]


def shown(*, tty: bool, colour: bool, encoding: str = "utf-8") -> str:
    screen = Screen(tty=tty, encoding=encoding)
    progress = terminal.Progress(screen, colour=colour)
    for step in STEPS:
        progress.show(step)
    progress.clear()
    progress.clear()
    return screen.getvalue()


def test_progress_without_a_terminal_is_one_line_for_each_finished_step() -> None:
    lines = shown(tty=False, colour=False).split("\n")
    assert [line.split() for line in lines] == [["✓", "worked", "1.2", "s"], ["!", "odd"], []]


def test_progress_on_a_terminal_rewrites_its_line_and_leaves_no_rest() -> None:
    text = shown(tty=True, colour=False)
    assert text.startswith("\r\x1b[2K… working\r\x1b[2K✓ worked")
    assert text.endswith("… more\r\x1b[2K")
    assert "\x1b[32m" not in text
    assert "\x1b[32m✓\x1b[0m" in shown(tty=True, colour=True)


def test_progress_on_an_old_console() -> None:
    shown(tty=False, colour=False, encoding="cp437").encode("cp437")


def test_a_step_of_the_host_stays_on_its_line() -> None:
    screen = Screen(tty=True)
    terminal.Progress(screen, colour=False).show(Step(key="x", text="a\nb\x1b[2J\r" + "c" * 500, state="run"))
    assert "\n" not in screen.getvalue()
    assert len(screen.getvalue()) < 100
    assert screen.getvalue().count("\x1b") == 1  # ours
