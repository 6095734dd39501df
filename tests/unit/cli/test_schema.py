"""docs/schema says what the API and ``--json`` are: it is generated, and real output is compared with it."""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import jsonschema
import msgspec
import pytest

import jupyman
from jupyman import api, errors
from jupyman.api import schema
from jupyman.cli.main import cli
from tests import fakes
from tests.schemas import SCHEMAS, check_output, check_words

# The words that a command needs beside --json.
ARGUMENTS = {
    "up": "server1",
    "down": "server1",
    "kill": "server1 -y",
    "tunnel": "6006",
    "kernel add": "pytorch",
    "kernel rm": "pytorch -y",
    "env create": "new",
    "env rm": "new -y",
    "env push": "--env new {file}",
    "env mirror use": "m -y",
    "env mirror reset": "-y",
    "host add": "box alice@10.0.0.7 --port 9000",
    "host rm": "box",
    "host trust": "server1 -y",
}
# These would end or replace the daemon of the test; test_daemon_process.py runs them.
ELSEWHERE = {"daemon stop", "daemon restart"}


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[fakes.Served]:
    with fakes.serving(tmp_path_factory.mktemp("home")) as served:
        yield served


@pytest.mark.parametrize("name", schema.FILES)
def test_the_schemas_are_those_of_the_structs(name: str) -> None:
    kept = (SCHEMAS / f"{name}.json").read_bytes()
    assert kept == schema.FILES[name](), "run: python -m jupyman.api.schema docs/schema"


def with_json(command: click.Command, words: str = "") -> Iterator[str]:
    """Yield the words of all commands that have --json."""
    if any(parameter.name == "as_json" for parameter in command.params):
        yield words
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            verb = command.get_command(context, name)
            assert verb is not None
            yield from with_json(verb, f"{words} {name}".strip())


def test_every_command_with_json_has_its_schema() -> None:
    assert set(with_json(cli)) == set(schema.COMMANDS)


@pytest.mark.parametrize("command", sorted(set(schema.COMMANDS) - ELSEWHERE))
def test_what_is_printed_fits_its_schema(daemon: fakes.Served, tmp_path: Path, command: str) -> None:
    daemon.reset()
    if command == "host rm":
        assert daemon.run("host", "add", "box").status == 0
    package = tmp_path / "a-1-py3-none-any.whl"
    package.touch()
    words = ARGUMENTS.get(command, "").format(file=package).split()
    result = daemon.run(*command.split(), "--json", *words)
    assert result.status == 0, result
    check_output(command, result.json)


@pytest.mark.parametrize("cls", errors.every()[1:], ids=lambda cls: cls.__name__)
def test_a_printed_error_fits_its_schema(daemon: fakes.Served, cls: type[errors.JupymanError]) -> None:
    daemon.reset()
    daemon.backend.answers[api.PsRequest] = cls("what", log=["a line"], port=1)
    result = daemon.run("ps", "--json")
    assert result.status == cls.status
    check_output("ps", result.json)


@pytest.mark.parametrize(
    "change", [{"sessions": None}, {"sessions": [{"name": "x"}]}, {"more": 1}, {"unreachable": [{"host": 3}]}]
)
def test_other_output_does_not_fit(daemon: fakes.Served, change: dict[str, Any]) -> None:
    daemon.reset()
    with pytest.raises(jsonschema.ValidationError):
        check_output("ps", {**daemon.run("ps", "--json").json, **change})


def test_a_command_line_finds_its_schema() -> None:
    check_words(["env", "mirror", "ls", "--json", "server1"], {"mirrors": [], "used": [], "fastest": None})
    check_words(["logs", "server1"], None)
    for words in (["ps", "--json"], ["env", "ls", "server1", "--json"], ["host", "rm", "x", "--json"]):
        with pytest.raises(jsonschema.ValidationError):
            check_words(words, {"other": 1})


def test_requests_and_events_fit_their_schemas() -> None:
    for name, group, value in (
        ("requests", "bodies", api.Call(request=api.EnvCreate(name="x", packages=["a"]))),
        ("events", "lines", api.Step(key="a", text="b", state="warn", seconds=1.5)),
        ("events", "lines", api.Done(result=msgspec.Raw(b"{}"))),
        ("events", "lines", api.Failed(error=errors.PortInUse("x", port=1).info())),
    ):
        schemas = json.loads((SCHEMAS / f"{name}.json").read_bytes())
        whole = {**schemas[group]["POST /v1/run"], "$defs": schemas["$defs"]}
        jsonschema.Draft202012Validator(whole).validate(json.loads(msgspec.json.encode(value)))


@pytest.mark.parametrize("place", ["cli", "api", "client.py"])
def test_nothing_there_is_of_any_type(place: str) -> None:
    """What crosses the API is typed from end to end."""
    root = Path(jupyman.__file__).parent / place
    for path in [root] if root.is_file() else sorted(root.rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
        names |= {alias.name for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) for alias in node.names}
        assert not {"Any"} & names, path
