"""Who may import whom: the walls of docs/architecture.md, read from the source."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import jupyman

ROOT = Path(jupyman.__file__).parent
FILES = sorted(path for path in ROOT.rglob("*.py"))

# Open to everyone.
COMMON = {"__init__", "model", "gpu", "errors", "paths", "config"}
# room -> the rooms that it may import, besides itself and COMMON.
WALLS: dict[str, set[str]] = {
    "__init__": set(),
    "__main__": {"cli"},
    "model": set(),
    "gpu": set(),
    "errors": set(),
    "paths": set(),
    "config": set(),
    "api": set(),
    "address": set(),
    "spawn": set(),
    "loopback": set(),
    "strangers": {"loopback"},
    "client": {"api", "address", "loopback", "spawn"},
    "cli": {"client", "api", "address"},
    "daemon": {"api", "address", "core", "strangers"},
    "core": {"api", "loopback", "tools", "ssh", "remote", "strangers"},
    "tools": set(),
    "ssh": {"strangers"},
    "remote": set(),
}
# The command `jupyman daemon run` is the daemon, and `jupyman demo` the demo: lazily, and only these two.
DOORS = {("cli/daemon.py", "daemon"), ("cli/demo.py", "demo")}
# The demo is a user of everything.
FREE = {"demo"}
FORBIDDEN = {
    "cli": {"paramiko", "fabric", "invoke", "starlette", "uvicorn", "sshtunnel", "asyncio"},
    "client": {"paramiko", "fabric", "starlette", "uvicorn", "requests", "psutil", "rich"},
    "tools": {"socket", "subprocess", "threading", "time", "paramiko", "fabric", "multiprocessing", "asyncio"},
    "core": {"click", "starlette", "uvicorn"},
    "ssh": {"click", "starlette", "uvicorn"},
    "daemon": {"click", "paramiko", "fabric"},
    "model": {"socket", "subprocess", "threading"},
}
PURE = {"core/lifecycle.py", "core/backoff.py"}
PURE_FORBIDDEN = {"socket", "subprocess", "threading", "time"}
UNIX_ONLY = {"fcntl", "grp", "pty", "pwd", "resource", "termios", "tty"}


def room(path: Path) -> str:
    relative = path.relative_to(ROOT)
    return relative.parts[0].removesuffix(".py")


def imports(path: Path) -> Iterator[tuple[str, bool]]:
    """Yield every imported module as a dotted name, and whether it is imported at module level at run time."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    inside = {
        id(node)
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
        for node in ast.walk(function)
    }
    typing = {
        id(node)
        for test in ast.walk(tree)
        if isinstance(test, ast.If) and "TYPE_CHECKING" in ast.dump(test.test)
        for node in ast.walk(test)
    }
    for node in ast.walk(tree):
        outer = id(node) not in inside and id(node) not in typing
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, outer
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            assert node.module is not None
            if node.module == "jupyman":
                for alias in node.names:
                    yield f"jupyman.{alias.name}", outer
            else:
                yield node.module, outer


def test_every_room_has_its_rule() -> None:
    assert {room(path) for path in FILES} <= {*WALLS, *FREE}


def test_the_reader_of_imports_reads() -> None:
    seen = dict(imports(ROOT / "cli" / "daemon.py"))
    assert seen["jupyman.api"] is True
    assert seen["psutil"] is False
    assert seen["jupyman.daemon.main"] is False


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports(path: Path) -> None:
    own, name = room(path), path.relative_to(ROOT).as_posix()
    for module, outer in imports(path):
        top, *rest = module.split(".")
        if top == "jupyman":
            target = rest[0] if rest else "__init__"
            target = "__init__" if target == "__version__" else target
            if own in FREE or (name, target) in DOORS:
                assert own in FREE or not outer, f"{name} imports {module} at its top"
                continue
            assert target in {own, *COMMON, *WALLS[own]}, f"{name} imports {module}"
        else:
            assert top not in FORBIDDEN.get(own, set()), f"{name} imports {module}"
            if name in PURE:
                assert top not in PURE_FORBIDDEN, f"{name} imports {module}"
            if outer and own != "remote":
                assert top not in UNIX_ONLY, f"{name} imports {module} at its top: Windows has none"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_module_is_one_noun_or_verb(path: Path) -> None:
    """What belongs together stays together: a longer module says why it is longer."""
    text = path.read_text(encoding="utf-8")
    reason = "Over 400 lines because" in (ast.get_docstring(ast.parse(text)) or "")
    assert (len(text.splitlines()) > 400) == reason


def test_rich_is_drawn_with_only_where_something_is_drawn() -> None:
    users = {
        path.relative_to(ROOT).as_posix()
        for path in FILES
        for module, outer in imports(path)
        if module.split(".")[0] == "rich" and outer
    }
    assert users == set()


def test_common_modules_import_only_each_other() -> None:
    assert sys.modules["jupyman"]  # installed from this tree
    for name in COMMON - {"__init__"}:
        for module, _ in imports(ROOT / f"{name}.py"):
            if module.startswith("jupyman."):
                assert module.split(".")[1] in {*COMMON, "__version__"}
