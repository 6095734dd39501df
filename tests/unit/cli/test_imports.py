"""A warm command imports little: that is what makes it answer at once."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests import fakes

HEAVY = {
    "asyncio",
    "encodings.idna",
    "fabric",
    "invoke",
    "jupyman.core",
    "jupyman.daemon",
    "jupyman.ssh",
    "jupyman.local.spawn",
    "logging",
    "paramiko",
    "platformdirs",
    "psutil",
    "sshtunnel",
    "stringprep",
    "starlette",
    "subprocess",
    "tempfile",
    "tomlkit",
    "uvicorn",
    "webbrowser",
}


# What a warm command needs: these three, with all that they import by themselves, and of ours:
BASE = "import click, msgspec, http.client"
OURS = {
    "jupyman",
    "jupyman.local",
    "jupyman.local.build",
    "jupyman.local.daemon_file",
    "jupyman.local.hello",
    "jupyman.api",
    "jupyman.api.events",
    "jupyman.api.operation",
    "jupyman.api.requests",
    "jupyman.api.results",
    "jupyman.cli",
    "jupyman.cli.context",
    "jupyman.cli.groups",
    "jupyman.cli.main",
    "jupyman.cli.options",
    "jupyman.cli.terminal",
    "jupyman.client",
    "jupyman.errors",
    "jupyman.local.peer",
    "jupyman.model",
    "jupyman.model.base",
    "jupyman.model.endpoint",
    "jupyman.model.environment",
    "jupyman.model.gpu",
    "jupyman.model.host",
    "jupyman.model.kernel",
    "jupyman.model.session",
    "jupyman.paths",
    "jupyman.rules",
}
# And of the standard library, each a millisecond at most.
SMALL = {
    "copy",
    "dataclasses",
    "datetime",
    "encodings",
    "fnmatch",
    "hashlib",
    "hmac",
    "pathlib",
    "runpy",
    "unicodedata",
}


def names(stderr: str) -> set[str]:
    """Read what ``-X importtime`` prints: `import time: self | cumulative | name`."""
    return {line.rsplit("|", 1)[1].strip() for line in stderr.splitlines() if line.startswith("import time:")}


def imported(stderr: str) -> set[str]:
    found = names(stderr)
    return {name for name in found if name in HEAVY or any(name.startswith(f"{heavy}.") for heavy in HEAVY)}


@pytest.mark.parametrize("words", [("ps", "--json"), ("ps",), ("url", "server1"), ("tunnel", "6006")])
def test_a_warm_command_is_lean(tmp_path: Path, words: tuple[str, ...]) -> None:
    with fakes.serving(tmp_path) as daemon:
        (tmp_path / "config.toml").write_text('default_host = "server1"\n')
        done = subprocess.run(
            [sys.executable, "-X", "importtime", "-m", "jupyman", *words],
            env={**os.environ, "JUPYMAN_HOME": str(tmp_path)},
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
    assert done.returncode == 0, done.stderr
    assert len(daemon.backend.requests) == 1
    assert "jupyman.client" in done.stderr  # the list is one
    assert imported(done.stderr) == set()


@pytest.mark.parametrize("words", [("ps", "--json"), ("ps",), ("url", "server1"), ("url", "server1", "--json")])
def test_ps_and_url_import_nothing_that_they_do_not_need(tmp_path: Path, words: tuple[str, ...]) -> None:
    python = [sys.executable, "-X", "importtime"]
    base = subprocess.run([*python, "-c", BASE], capture_output=True, text=True, check=True, timeout=60)
    with fakes.serving(tmp_path):
        environ = {**os.environ, "JUPYMAN_HOME": str(tmp_path)}
        command = [*python, "-m", "jupyman", *words]
        done = subprocess.run(command, env=environ, capture_output=True, text=True, check=True, timeout=60)
    more = names(done.stderr) - names(base.stderr)
    assert more >= OURS  # the list is one
    # What stands in the platform's own modules (ntpath for pathlib, _winapi that is not there) is theirs.
    others = {name for name in more - OURS if not name.startswith(("_", "nt", "org", "importlib", "encodings"))}
    assert others <= SMALL


def test_only_the_verb_is_imported(tmp_path: Path) -> None:
    code = "import sys, jupyman.cli.main as m; m.main(['env', 'ls', '--help']); print(*sys.modules)"
    environ = {**os.environ, "JUPYMAN_HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], env=environ, capture_output=True, text=True, check=True)
    verbs = {name for name in done.stdout.split() if name.startswith("jupyman.cli.")}
    shared = {"context", "env", "groups", "main", "options", "tables", "terminal"}
    assert verbs == {f"jupyman.cli.{name}" for name in (*shared, "env.ls")}
