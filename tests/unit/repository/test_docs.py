"""The commands in the documents exist, with these words and options."""

from __future__ import annotations

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
# Examples of the words that the user replaces.
PLACES = {"HOST": "server1", "ENV": "pytorch", "SESSION": "server1", "PORT": "8888", "NAME": "pytorch", "VERB": "up"}
ROW = re.compile(r"^\| (`.+?) \| (.+) \|$", re.MULTILINE)


def commands(document: str) -> Iterator[str]:
    """Yield the commands in backquotes or behind a prompt."""
    text = (ROOT / document).read_text(encoding="utf-8")
    for quoted, typed in re.findall(r"`(jupyman(?: [^`]*)?)`|^\$ (jupyman .+)$", text, re.MULTILINE):
        yield (quoted or typed).replace(r"\|", "|")


COMMANDS = sorted({(document, command) for document in DOCUMENTS for command in commands(document)})


def parse(words: list[str]) -> None:
    """Parse a command line as `jupyman` does, without running it."""
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


def named_tests() -> Iterator[tuple[str, str, str]]:
    """Yield document, file below tests/, and function (or "") of each test that a document names."""
    for path in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]:
        for file, function in re.findall(
            r"(?<![\w/])(?:tests/)?((?:unit|integration|e2e|bed|bench)/[\w/]+\.py)(?:::(\w+))?", path.read_text("utf-8")
        ):
            yield str(path.relative_to(ROOT)), file, function


@pytest.mark.parametrize(("document", "command"), COMMANDS)
def test_a_command_of_the_documents_parses(
    document: str, command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert document
    monkeypatch.chdir(tmp_path)
    words = [PLACES.get(word, word) for word in shlex.split(command)[1:]]
    for word in words:
        if word.endswith(".whl"):  # files that it names must be there
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


@pytest.mark.parametrize(("document", "file", "function"), sorted(set(named_tests())))
def test_a_test_that_the_documents_name_exists(document: str, file: str, function: str) -> None:
    assert document
    text = (ROOT / "tests" / file).read_text(encoding="utf-8")
    assert not function or re.search(rf"def {function}", text)
