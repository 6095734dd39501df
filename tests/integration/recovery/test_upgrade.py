"""A new version of jupyman beside a daemon of the old one replaces it, and the servers go on."""

from __future__ import annotations

import shutil
from pathlib import Path

from jupyman import __version__
from tests.bed import Cli
from tests.bed.command import REPOSITORY

OLD = "0.0.1"
FUTURE = "999.0.0"


def other_version(folder: Path, version: str) -> dict[str, str]:
    """Copy the package under another version; returns the environment that finds it."""
    shutil.copytree(REPOSITORY / "jupyman", folder / "jupyman", ignore=shutil.ignore_patterns("__pycache__"))
    start = folder / "jupyman" / "__init__.py"
    start.write_text(start.read_text().replace(f'"{__version__}"', f'"{version}"'))
    return {"PYTHONPATH": str(folder)}


def test_a_new_version_replaces_the_old_daemon(cli: Cli, tmp_path: Path) -> None:
    old = other_version(tmp_path, OLD)
    made = cli("up", "server1", "--no-browser", "--json", env=old)
    assert made.rc == 0, made
    assert cli("daemon", "status", "--json", env=old).json["version"] == OLD
    [session] = cli("ps", "--json").json["sessions"]
    assert cli("daemon", "status", "--json").json["version"] == __version__
    assert session["server"]["pid"] == made.json["server"]["pid"]
    assert session["url"] == made.json["url"]
    assert session["state"] == "running"
    assert len([one for one in cli.processes() if "daemon" in one.cmdline()]) == 1


def test_a_daemon_of_0_1_0_which_can_prove_nothing_gives_way_too(cli: Cli, tmp_path: Path) -> None:
    old = other_version(tmp_path, OLD)
    for name, line in (
        ("daemon/server.py", '            Route("/v1/prove", self._prove, methods=["GET"]),\n'),
        ("daemon/server.py", ', "/v1/prove"'),
    ):
        file = tmp_path / "jupyman" / name
        assert line in file.read_text()
        file.write_text(file.read_text().replace(line, ""))
    assert cli("daemon", "start", env=old).rc == 0
    assert cli("daemon", "status", "--json").json["version"] == OLD  # asks, and replaces nothing
    old_pid = cli("daemon", "status", "--json").json["pid"]
    assert cli("ps", "--json").rc == 0
    now = cli("daemon", "status", "--json").json
    assert (now["version"], now["pid"] == old_pid) == (__version__, False)
    assert [one.pid for one in cli.processes() if "daemon" in one.cmdline()] == [now["pid"]]


def test_an_old_version_does_not_end_the_newer_daemon(cli: Cli, tmp_path: Path) -> None:
    assert cli("daemon", "start", env=other_version(tmp_path, FUTURE)).rc == 0
    refused = cli("ps", "--json")
    assert refused.rc == 41, refused
    assert refused.json["error"]["code"] == "version-mismatch"
    assert FUTURE in refused.json["error"]["message"]
    assert cli("daemon", "stop").rc == 0
