"""The rules of docs/architecture.md for imports and sizes of rooms, checked on the source."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import jupyman

ROOT = Path(jupyman.__file__).parent
FILES = sorted(path for path in ROOT.rglob("*.py"))
TESTS = Path(__file__).parents[2]

# Open to everyone.
COMMON = {"__init__", "model", "errors", "paths", "config", "rules"}
# Room -> the rooms that it may import, besides itself and COMMON. The longest name that fits a module counts.
FLOORS: dict[str, set[str]] = {
    "__init__": set(),
    "__main__": {"cli"},
    "model": set(),
    "errors": set(),
    "paths": set(),
    "rules": set(),
    "config": set(),
    "api": set(),
    "local": set(),
    "client": {"api", "local"},
    "cli": {"client", "api", "local"},
    "daemon": {"api", "core", "local"},
    "core": {"api", "host", "local", "remote", "ssh", "tools"},
    "host": {"remote", "tools"},
    "tools": set(),
    "ssh": {"local"},
    "remote": set(),
}
# The command `jupyman daemon run` is the daemon, and `jupyman demo` the demo: lazily, and only these two.
DOORS = {("cli/daemon.py", "daemon"), ("cli/demo.py", "demo")}
# The demo is a user of everything.
FREE = {"demo"}
FORBIDDEN = {
    "cli": {"paramiko", "fabric", "invoke", "starlette", "uvicorn", "sshtunnel", "asyncio"},
    "client": {"paramiko", "fabric", "starlette", "uvicorn", "requests", "psutil"},
    "tools": {"socket", "subprocess", "threading", "time", "paramiko", "fabric", "multiprocessing", "asyncio"},
    "host": {"click", "paramiko", "starlette", "uvicorn"},
    "core": {"click", "starlette", "uvicorn"},
    "ssh": {"click", "starlette", "uvicorn"},
    "daemon": {"click", "paramiko", "fabric"},
    "model": {"socket", "subprocess", "threading"},
}
PURE = {"core/links/policy.py", "core/links/backoff.py"}
PURE_FORBIDDEN = {"socket", "subprocess", "threading", "time"}
UNIX_ONLY = {"fcntl", "grp", "pty", "pwd", "resource", "termios", "tty"}
# Folders with one module for each verb, and those whose files travel to hosts.
LARGE_ROOMS = {"cli", "core/verbs"}
ROOM_SIZE = 9


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
            for alias in node.names:
                yield (f"{node.module}.{alias.name}" if node.module.startswith("jupyman") else node.module), outer


def module(name: str) -> str:
    """Return the module or package of which `name` is a part."""
    parts = name.split(".")
    while parts:
        place = ROOT.parent.joinpath(*parts)
        if place.is_dir() or place.with_suffix(".py").is_file():
            return ".".join(parts)
        parts.pop()
    raise AssertionError(name)


def package(name: str) -> str:
    """Return the package that a module lies in; a module at the top, and a package, is its own."""
    found = module(name)
    inside = ROOT.parent.joinpath(*found.split(".")).with_suffix(".py").is_file() and found.count(".") > 1
    return found.rpartition(".")[0] if inside else found


def test_every_room_has_its_rule() -> None:
    assert {room(path) for path in FILES} <= {*FLOORS, *FREE}


def test_the_reader_of_imports_reads() -> None:
    seen = dict(imports(ROOT / "cli" / "daemon.py"))
    assert seen["jupyman.api"] is True
    assert seen["psutil"] is False
    assert seen["jupyman.daemon.main.run"] is False


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_import_goes_up_a_floor(path: Path) -> None:
    own, name = room(path), path.relative_to(ROOT).as_posix()
    for imported, outer in imports(path):
        top, *rest = imported.split(".")
        if top == "jupyman":
            target = rest[0] if rest and rest[0] not in {"__version__", "API_VERSION"} else "__init__"
            if own in FREE or (name, target) in DOORS:
                assert own in FREE or not outer, f"{name} imports {imported} at its top"
                continue
            assert target in {own, *COMMON, *FLOORS[own]}, f"{name} imports {imported}"
        else:
            assert top not in FORBIDDEN.get(own, set()), f"{name} imports {imported}"
            if name in PURE:
                assert top not in PURE_FORBIDDEN, f"{name} imports {imported}"
            if outer and own != "remote":
                assert top not in UNIX_ONLY, f"{name} imports {imported} at its top: Windows has none"


def test_packages_import_each_other_in_one_direction_only() -> None:
    graph: dict[str, set[str]] = {}
    for path in FILES:
        own = package(".".join(path.relative_to(ROOT.parent).with_suffix("").parts).removesuffix(".__init__"))
        wanted = {package(name) for name, _ in imports(path) if name.startswith("jupyman")}
        graph.setdefault(own, set()).update(wanted - {own, "jupyman"})
    done: list[str] = []
    while ready := [one for one in graph if one not in done and graph[one] <= set(done)]:
        done += ready
    assert {one: sorted(graph[one] - set(done)) for one in graph if one not in done} == {}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_module_is_one_noun_or_verb(path: Path) -> None:
    """What belongs together stays together: a longer module says why it is longer."""
    text = path.read_text(encoding="utf-8")
    reason = "Over 300 lines because" in (ast.get_docstring(ast.parse(text)) or "")
    assert reason or len(text.splitlines()) <= 300


@pytest.mark.parametrize("path", sorted(TESTS.rglob("*.py")), ids=lambda path: str(path.relative_to(TESTS)))
def test_a_file_of_tests_is_about_one_thing(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    reason = "Over 400 lines because" in (ast.get_docstring(ast.parse(text)) or "")
    assert reason or len(text.splitlines()) <= 400


def test_no_test_module_is_imported_by_another_one() -> None:
    """What several of them need is in a conftest, in tests/bed or in a module beside them."""
    imported = {
        path.relative_to(TESTS).as_posix()
        for path in TESTS.rglob("*.py")
        for name, _ in imports(path)
        if re.search(r"^tests\.(\w+\.)*test_", name)
    }
    assert imported == set()


def test_rooms_are_small() -> None:
    rooms: dict[str, int] = {}
    for path in FILES:
        if path.name != "__init__.py":
            folder = path.parent.relative_to(ROOT).as_posix()
            rooms[folder] = rooms.get(folder, 0) + 1
    large = {folder: count for folder, count in rooms.items() if count > ROOM_SIZE and folder not in LARGE_ROOMS}
    assert large == {}


def test_only_the_room_of_servers_knows_a_launcher_by_name() -> None:
    users = {
        path.relative_to(ROOT).as_posix()
        for path in FILES
        for name, _ in imports(path)
        if name.startswith("jupyman.host.servers.nohup")
    }
    assert {user for user in users if not user.startswith("host/servers/")} == set()
    assert users


def test_common_modules_import_only_each_other() -> None:
    assert sys.modules["jupyman"]  # installed from this tree
    for path in FILES:
        if room(path) in COMMON - {"__init__"}:
            for name, _ in imports(path):
                if name.startswith("jupyman."):
                    assert name.split(".")[1] in {*COMMON, "__version__"}
