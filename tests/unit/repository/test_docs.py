"""The commands, tests, modules and folders that the documents name exist."""

from __future__ import annotations

import ast
import fnmatch
import functools
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from jupyman import errors
from jupyman.cli.context import Context
from jupyman.cli.main import VERBS, cli

ROOT = Path(__file__).parents[3]
DOCUMENTS = ("README.md", "docs/chores.md", "examples/pytorch_basics.ipynb")
# Placeholders in commands, and a value for each.
PLACES = {"HOST": "server1", "ENV": "pytorch", "SESSION": "server1", "PORT": "8888", "NAME": "pytorch", "VERB": "up"}
ROW = re.compile(r"^\| (`.+?) \| (.+) \|$", re.MULTILINE)


def commands(document: str) -> Iterator[str]:
    """Yield every command in backquotes or after a prompt, from the word `jupyman` on."""
    text = (ROOT / document).read_text(encoding="utf-8")
    for quoted, typed in re.findall(r"`(jupyman(?: [^`]*)?)`|^\$ (jupyman .+)$", text, re.MULTILINE):
        yield (quoted or typed).replace(r"\|", "|")


COMMANDS = sorted({(document, command) for document in DOCUMENTS for command in commands(document)})


def parse(words: list[str]) -> None:
    """Parse a command line as `jupyman` does, and run nothing."""
    command: click.Command = cli
    parent: click.Context | None = None
    while True:
        parent = command.make_context(command.name or "jupyman", list(words), parent=parent, obj=Context())
        if not isinstance(command, click.Group):
            return
        name, found, words = command.resolve_command(parent, [*parent._protected_args, *parent.args])
        if found is None:
            raise click.UsageError(f"no command {name}")
        command = found


@pytest.mark.parametrize(("document", "command"), COMMANDS)
def test_a_command_of_the_documents_parses(
    document: str, command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert document
    monkeypatch.chdir(tmp_path)
    words = [PLACES.get(word, word) for word in shlex.split(command)[1:]]
    for word in words:
        if word.endswith(".whl"):  # click checks that the files exist
            Path(word).touch()
    if not words or "--help" in words:
        with pytest.raises((click.exceptions.NoArgsIsHelpError, click.exceptions.Exit)):
            parse(words)
    else:
        parse(words)


@pytest.mark.parametrize("line", ["kernel mend x", "up --nonsense", "kernel add", "env create", "nonsense"])
def test_a_command_that_is_none_would_be_seen(line: str) -> None:
    with pytest.raises((click.UsageError, errors.UsageFault)):
        parse(line.split())


def options(command: click.Command) -> set[str]:
    found = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            sub = command.get_command(context, name)
            assert sub is not None
            found |= options(sub)
    return found


@pytest.mark.parametrize(("verbs", "text"), ROW.findall((ROOT / "README.md").read_text(encoding="utf-8")))
def test_options_in_the_table_of_verbs_exist(verbs: str, text: str) -> None:
    context = click.Context(cli)
    named = {words.split()[0] for words in re.findall(r"`([^`]+)`", verbs)}
    known = [command for verb in named if (command := cli.get_command(context, verb)) is not None]
    if not named & set(VERBS):  # another table
        return
    there = set().union(*(options(command) for command in known))
    assert set(re.findall(r"(?<![\w-])--?[a-z][a-z-]*", f"{verbs} {text}")) <= there


def test_every_verb_has_its_row() -> None:
    rows = " ".join(verbs for verbs, _ in ROW.findall((ROOT / "README.md").read_text(encoding="utf-8")))
    assert set(VERBS) <= set(re.findall(r"[a-z]+", rows))


# --- the files that the documents name -----------------------------------------------------------------------------

PAGES = sorted(path.name for path in (ROOT / "docs").glob("*.md"))
# A file of tests, with or without one of its functions: `ssh/test_link.py::test_a_name`, also `::test_a_*`.
TEST = re.compile(r"((?:[\w.-]+/)*test_\w+\.py)(?:::(\w+\*?))?")
# A file, or a folder with its slash. A place on a host or in a home (`/etc/x`, `~/.ssh/config`) does not match.
PLACE = re.compile(
    r"(?<![\w/~.$*-])((?:[\w-][\w.-]*/)+|(?:[\w-][\w.-]*/)*[\w.-]+\.(?:py|sh|md|ipynb|svg|csv))(?![\w/.]\w)"
)
# Files of other people that docs/security.md names.
NOT_OURS = {"jupyman.py", "pip.py"}
# A line of the tree in docs/architecture.md: a folder and what it is for.
LEAF = re.compile(r"^((?:[a-z]+/)+) +\S", re.MULTILINE)


def page(name: str) -> str:
    return (ROOT / "docs" / name).read_text(encoding="utf-8")


def location(name: str) -> Path:
    """Return where a file of tests is: in tests/integration, unless its path says otherwise."""
    first = name.split("/", maxsplit=1)[0]
    if first == "tests":
        return ROOT / name
    return ROOT / "tests" / name if first in {"unit", "e2e"} else ROOT / "tests" / "integration" / name


def functions(path: Path) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


def missing_tests(text: str) -> list[str]:
    missing = []
    for name, function in TEST.findall(text):
        path = location(name)
        if not path.is_file():
            missing.append(name)
        elif function and not fnmatch.filter(functions(path), function):
            missing.append(f"{name}::{function}")
    return missing


@functools.cache
def file_names() -> set[str]:
    found = {path.name for folder in ("jupyman", "tests", "docs", "examples") for path in (ROOT / folder).rglob("*.*")}
    return found | {path.name for path in ROOT.iterdir()}


def missing_places(text: str) -> list[str]:
    """Return the paths of files and folders that do not exist; a name without a folder may be of any file."""
    roots = (ROOT, ROOT / "jupyman", ROOT / "tests")
    folders = {one.name for root in roots for one in root.iterdir() if one.is_dir()}
    missing = []
    for name in PLACE.findall(TEST.sub("", text)):
        first, slash, _ = name.partition("/")
        if not slash:
            known = name in file_names() | NOT_OURS
        elif name.endswith("/"):
            known = first not in folders or any((root / name).is_dir() for root in roots)
        else:
            known = any((root / name).is_file() for root in roots)
        if not known:
            missing.append(name)
    return missing


@pytest.mark.parametrize("name", PAGES)
def test_the_tests_that_a_page_names_exist(name: str) -> None:
    assert missing_tests(page(name)) == []


@pytest.mark.parametrize("name", PAGES)
def test_the_modules_and_folders_that_a_page_names_exist(name: str) -> None:
    assert missing_places(page(name)) == []


def test_a_name_that_is_wrong_would_be_seen() -> None:
    assert missing_tests("`ssh/test_link.py`, `unit/ssh/test_mux.py`, `tests/e2e/test_outage.py`") == []
    assert missing_tests("`test_link.py`") == ["test_link.py"]
    assert missing_tests("`unit/ssh/test_mux.py::test_no_such_*`") == ["unit/ssh/test_mux.py::test_no_such_*"]
    assert missing_places("`core/links/policy.py`, `tests/bed`, `/etc/passwd`, `~/.ssh/config`") == []
    assert missing_places("`policy.py`, `launch.sh`, docs/adr/0002-dependencies.md.") == []
    wrong = ["core/sessions.py", "launchers/nohup.py", "jupyman/core/attic/", "lifecycle.py", "docs/api.md"]
    assert missing_places(" ".join(f"`{name}`" for name in wrong)) == wrong


def test_the_tree_names_every_room() -> None:
    """The tree in docs/architecture.md has a line for each package, and for each folder of scripts."""
    package = ROOT / "jupyman"
    rooms = {path.parent.relative_to(package).as_posix() for path in package.rglob("*.py")}
    rooms |= {path.parent.relative_to(package).as_posix() for path in package.rglob("*.sh")}
    assert {line.rstrip("/") for line in LEAF.findall(page("architecture.md"))} == rooms - {"."}


def walks() -> dict[str, list[str]]:
    """Return the rooms of each walk in docs/architecture.md, in order."""
    text = page("architecture.md").partition("## Three walks through the rooms\n")[2].partition("\n## ")[0]
    found = {}
    for section in text.split("\n### ")[1:]:
        title, _, body = section.partition("\n")
        cells = re.findall(r"^\| (`.+?) \|", body, re.MULTILINE)
        found[title] = [name for cell in cells for name in re.findall(r"`([^`]+)`", cell)]
    return found


def test_each_walk_passes_a_room_once() -> None:
    found = walks()
    assert len(found) == 3
    for title, rooms in found.items():
        assert len(set(rooms)) == len(rooms) > 2, title
        assert all((ROOT / "jupyman" / name).exists() for name in rooms), title
