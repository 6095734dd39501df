"""The script protocol: what stands between the markers, and nothing else."""

from __future__ import annotations

import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jupyman import errors
from jupyman.host.shell import script

MARK = "jm-0123"


def test_banners_before_and_after_do_not_matter() -> None:
    answer = (
        b"Welcome!\nno newline at the end"
        + f"\n{MARK} begin\nos Debian 12\nenv.prefix /a b\n\n{MARK} end 0\nbye".encode()
    )
    facts, status = script.parse(answer, MARK)
    assert status == 0
    assert facts.lines == [("os", "Debian 12"), ("env.prefix", "/a b")]


def test_answer_without_end_has_no_status() -> None:
    assert script.parse(f"\n{MARK} begin\nos x\n".encode(), MARK)[1] is None


def test_forged_markers_are_not_believed() -> None:
    facts, status = script.parse(b"jm-ffff begin\nos evil\njm-ffff end 0\n", MARK)
    assert facts.lines == []
    assert status is None


@given(st.binary(max_size=2000))
def test_any_bytes_are_read_without_a_crash(answer: bytes) -> None:
    script.parse(answer, MARK)
    script.parse(f"{MARK} begin\n".encode() + answer, MARK)


def test_records_are_split_by_their_first_key() -> None:
    facts = script.Facts([("env.prefix", "/a"), ("env.python", "3.11"), ("os", "x"), ("env.prefix", "/b")])
    assert [record.lines for record in facts.records("env", "prefix")] == [
        [("prefix", "/a"), ("python", "3.11")],
        [("prefix", "/b")],
    ]


@given(st.text(alphabet=st.characters(blacklist_categories=["Cs"], blacklist_characters="\0"), max_size=80))
@settings(max_examples=50, deadline=None)  # each example starts a real shell
def test_any_text_reaches_the_script_as_it_is(value: str) -> None:
    text = script.compose("lib/common", {"VALUE": value}, MARK)
    # Stop before main, which the library does not have, and print what arrived.
    text = text.replace("\njm_begin\n", '\nprintf %s "$JM_VALUE"; exit 0\n')
    done = subprocess.run(["/bin/sh", "-s"], input=text.encode(), capture_output=True, check=True)
    assert done.stdout == value.encode()


def test_nul_is_refused() -> None:
    with pytest.raises(errors.UsageFault):
        script.compose("lib/common", {"VALUE": "a\0b"}, MARK)
