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
    "fabric",
    "invoke",
    "jupyman.core",
    "jupyman.daemon",
    "jupyman.ssh",
    "jupyman.spawn",
    "logging",
    "paramiko",
    "platformdirs",
    "psutil",
    "rich",
    "sshtunnel",
    "starlette",
    "subprocess",
    "tempfile",
    "tomlkit",
    "uvicorn",
    "webbrowser",
}


def imported(stderr: str) -> set[str]:
    """Read what ``-X importtime`` prints: `import time: self | cumulative | name`."""
    names = {line.rsplit("|", 1)[1].strip() for line in stderr.splitlines() if line.startswith("import time:")}
    return {name for name in names if name in HEAVY or any(name.startswith(f"{heavy}.") for heavy in HEAVY)}


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


def test_only_the_verb_is_imported(tmp_path: Path) -> None:
    code = "import sys, jupyman.cli.main as m; m.main(['env', 'ls', '--help']); print(*sys.modules)"
    environ = {**os.environ, "JUPYMAN_HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], env=environ, capture_output=True, text=True, check=True)
    verbs = {name for name in done.stdout.split() if name.startswith("jupyman.cli.")}
    assert "jupyman.cli.env" in verbs
    assert not {"jupyman.cli.up", "jupyman.cli.ps", "jupyman.cli.daemon", "jupyman.cli.demo"} & verbs
