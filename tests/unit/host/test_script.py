"""The script protocol: what stands between the markers, and nothing else."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jupyman import errors, remote
from jupyman.host.shell import script
from tests.fake_shell import FakeShell

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


# --- the libraries ------------------------------------------------------------------------------------------------

FOLDER = Path(remote.__file__).parent
SCRIPTS = sorted(path.relative_to(FOLDER).with_suffix("").as_posix() for path in FOLDER.rglob("*.sh"))
DEFINED = re.compile(r"^ *([a-z_][a-z0-9_]*)\(\) ", re.MULTILINE)
# The parts of `check` are scripts of their own, which it runs one beside the other.
PARTS = {"report/check": ["report/probe", "servers/find", "report/ports", "kernels/orphans"]}


def defined(name: str) -> set[str]:
    """Return the functions that a script or library defines."""
    return set(DEFINED.findall(remote.script(name)))


def without_comments(name: str) -> str:
    return re.sub(r"(^|\s)#.*$", "", remote.script(name), flags=re.MULTILINE)


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_names_the_libraries_that_it_uses(name: str) -> None:
    libraries = [one for one in SCRIPTS if one.startswith("lib/") and one not in {name, "lib/common"}]
    own = defined(name) | defined("lib/common")
    text = "\n".join(map(without_comments, [name, *PARTS.get(name, [])]))
    words = set(re.findall(r"(?<![$\w{])[a-z_][a-z0-9_]*(?![\w=])", text))
    used = {one for one in libraries if words & (defined(one) - own)}
    assert set(remote.libraries(name)) >= used
    assert set(remote.libraries(name)) <= set(libraries)


def test_libraries_come_after_those_that_they_use() -> None:
    assert remote.libraries("jobs/list") == ["lib/server", "lib/environment"]
    text = script.compose("jobs/list", {}, MARK)
    places = [text.index(remote.script(one)) for one in ("lib/common", "lib/server", "lib/environment", "jobs/list")]
    assert places == sorted(places)


def test_the_error_of_a_script_keeps_its_answer_to_itself() -> None:
    shell = FakeShell({"servers/find": "record.token secret\nerror port-in-use 8888 is taken"})
    with pytest.raises(errors.PortInUse, match="8888 is taken") as caught:
        script.run(shell, "servers/find", {}, timeout=1)
    assert caught.value.details == {}
    answer = script.answer_of(caught.value)
    assert answer is not None
    assert answer.one("record.token") == "secret"
    assert script.answer_of(errors.LinkLost("gone")) is None
