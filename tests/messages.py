"""Gathers the texts that users see into one file: ``python -m tests.messages``.

These are the help of all commands, the hints of all errors, every string of the source that reads like prose (log
messages too; docstrings not), and the errors of the scripts that run on hosts.
"""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator
from pathlib import Path

import click

import jupyman
from jupyman import errors
from jupyman.cli.main import cli

FILE = Path(__file__).parent / "data" / "messages.txt"
ROOT = Path(jupyman.__file__).parent

# Two words: what is neither a name nor a format.
_PROSE = re.compile(r"[A-Za-z]{2,}[,:;.)]? \(?[A-Za-z{]")
_SCRIPT_ERROR = re.compile(r"""\b(?:fail|bail) ([a-z-]+) ("(?:[^"\\]|\\.)*"(?: "(?:[^"\\]|\\.)*")?)""")


def gather() -> str:
    """Return the content of the file."""
    parts = [*_commands(cli, "jupyman"), "errors", *_hints()]
    for path in sorted(set(ROOT.rglob("*")) - {ROOT / "api" / "schema.py"}):
        texts = list(dict.fromkeys(_texts(path)))
        if texts:
            parts += ["", path.relative_to(ROOT).as_posix(), *(f"  {text}" for text in texts)]
    return "\n".join(parts) + "\n"


def _commands(command: click.Command, words: str) -> Iterator[str]:
    yield words
    yield from (f"  {line}".rstrip() for line in inspect.cleandoc(command.help or "").splitlines())
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            yield f"  {' '.join([*parameter.opts, *parameter.secondary_opts])}: {parameter.help}"
    yield from (f"  {line.strip()}" for line in (command.epilog or "").replace("\b", "").splitlines() if line.strip())
    yield ""
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            verb = command.get_command(context, name)
            assert verb is not None
            yield from _commands(verb, f"{words} {name}")


def _hints() -> Iterator[str]:
    for cls in errors.every()[1:]:
        if cls.__module__ == errors.__name__:
            yield f"  {cls.__name__}: {cls.default_hint}"


def _texts(path: Path) -> Iterator[str]:
    if path.suffix == ".sh":
        for code, text in _SCRIPT_ERROR.findall(path.read_text(encoding="utf-8")):
            yield f"{code} {text}"
    elif path.suffix == ".py":
        yield from _prose(ast.parse(path.read_text(encoding="utf-8")))


def _prose(node: ast.AST) -> Iterator[str]:
    """Yield the prose below a node, in the order of the source."""
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):  # a docstring
        return
    if isinstance(node, ast.keyword) and node.arg in {"help", "epilog"}:  # part of the commands
        return
    text = _text(node)
    if text is not None and _PROSE.search(text):
        yield " ".join(text.split())
    for child in ast.iter_child_nodes(node):
        if not (isinstance(node, ast.JoinedStr) and isinstance(child, ast.Constant)):
            yield from _prose(child)


def _text(node: ast.AST) -> str | None:
    """Return a literal's text; the values in an f-string are shown by their names."""
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else None
    if not isinstance(node, ast.JoinedStr):
        return None
    return "".join(_text(part) or _placeholder(part) for part in node.values)


def _placeholder(part: ast.AST) -> str:
    value = part.value if isinstance(part, ast.FormattedValue) else None
    simple = isinstance(value, ast.Name | ast.Attribute)
    return f"{{{ast.unparse(value)}}}" if simple and value is not None else "{…}"


if __name__ == "__main__":
    FILE.write_text(gather(), encoding="utf-8")
