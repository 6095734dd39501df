"""The state file: written completely, read back, migrated, and never lost without a message."""

from __future__ import annotations

import json
import random
import resource
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from jupyman import errors
from jupyman.core.sessions import store as module
from jupyman.core.sessions.store import VERSION, Store
from jupyman.model import SessionSpec, TunnelSpec

RECORDED = Path(__file__).parents[2] / "data" / "state"


def filled(path: Path) -> Store:
    store = Store(path)
    store.state.sessions["a"] = SessionSpec(name="a", host="server1", local_port=8888)
    store.state.tunnels.append(TunnelSpec(host="server1", local_port=6006, address="127.0.0.1", port=6006))
    store.save()
    return store


def test_round_trip_and_mode(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    filled(path)
    again = Store(path)
    again.load()
    assert again.state.sessions["a"].local_port == 8888
    assert again.state.tunnels[0].port == 6006
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize("content", [b"", b"{", b'{"version": 1, "sessions": 3}', b'{"version": 0}', b"\xff\xfe"])
def test_broken_file_is_set_aside_and_the_last_good_copy_taken(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "state.json"
    store = filled(path)
    store.state.sessions["b"] = SessionSpec(name="b", host="server2")
    store.save()
    path.write_bytes(content)
    again = Store(path)
    again.load()
    assert set(again.state.sessions) == {"a"}
    assert again.recovered is not None
    assert [p for p in tmp_path.iterdir() if "broken" in p.name]


WRITER = """\
import sys
from pathlib import Path
from jupyman.core.sessions.store import Store
from jupyman.model import SessionSpec
store = Store(Path(sys.argv[1]))
store.load()
assert store.recovered is None, store.recovered
assert len(store.state.sessions) in {0, 100, 200}, "half of something"
print(len(store.state.sessions), flush=True)
for number in range(1_000_000):
    names = [f"s{i}" for i in range(100 + number % 2 * 100)]
    store.state.sessions = {name: SessionSpec(name=name, host="server1" * 50) for name in names}
    store.save()
    print("saved", flush=True)
"""


def test_a_kill_at_any_moment_leaves_the_old_file_or_the_new_one(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    chance = random.Random(7)
    for _ in range(12):
        with subprocess.Popen([sys.executable, "-c", WRITER, path], stdout=subprocess.PIPE, text=True) as writer:
            assert writer.stdout is not None
            assert writer.stdout.readline().strip() in {"0", "100", "200"}
            for _ in range(chance.randrange(1, 40)):
                assert writer.stdout.readline() == "saved\n"
            writer.kill()  # in the middle of the next one
    last = Store(path)
    last.load()
    assert (last.recovered, len(last.state.sessions) in {100, 200}) == (None, True)
    assert {one.name for one in tmp_path.iterdir()} <= {"state.json", "state.json.bak", "state.json.new"}


def test_a_disk_without_room_keeps_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    store = filled(path)
    before = path.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200, hard))  # as a quota: what is longer cannot be written
    try:
        store.state.sessions = {f"s{i}": SessionSpec(name=f"s{i}", host="server1") for i in range(100)}
        with pytest.raises(OSError, match="too large"):
            store.save()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_bytes() == before
    assert not path.with_name("state.json.new").exists()
    store.save()
    again = Store(path)
    again.load()
    assert len(again.state.sessions) == 100


@pytest.mark.parametrize("suffix", ["", ".bak"])
def test_newer_version_is_left_untouched(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"state.json{suffix}"
    path.write_text(json.dumps({"version": VERSION + 1, "sessions": {}}))
    before = path.read_bytes()
    with pytest.raises(errors.VersionMismatch, match=rf"newer jupyman \(format {VERSION + 1}"):
        Store(tmp_path / "state.json").load()
    assert [(one, one.read_bytes()) for one in tmp_path.iterdir()] == [(path, before)]


@pytest.mark.parametrize(
    ("recorded", "said"),
    [
        (
            "0.1.0-early",
            {"server1": ["app", "dir", "env", "gpu", "port"], "train": ["app", "dir", "env", "gpu", "port", "restart"]},
        ),
        ("0.1.0", {"server1": [], "train": ["dir", "env", "gpu", "restart"], "old": ["app", "port"]}),
    ],
)
def test_a_file_of_0_1_0_is_migrated_and_kept(tmp_path: Path, recorded: str, said: dict[str, list[str]]) -> None:
    path = tmp_path / "state.json"
    before = (RECORDED / f"{recorded}.json").read_bytes()
    path.write_bytes(before)
    store = Store(path)
    store.load()
    assert (store.recovered, store.state.version) == (None, VERSION)
    assert {name: store.state.sessions[name].said for name in said} == said
    assert path.read_bytes() == before, "nothing is rewritten before something changes"
    store.save()
    now, then = json.loads(path.read_bytes()), json.loads(before)
    assert now["version"] == VERSION
    for name, spec in then["sessions"].items():
        spec.pop("said", None)
        assert {key: now["sessions"][name][key] for key in spec} == spec
    assert [{key: new[key] for key in old} for new, old in zip(now["tunnels"], then["tunnels"], strict=True)] == then[
        "tunnels"
    ]
    assert now["environments"] == then["environments"]
    kept = tmp_path / "state.json.v1"
    assert (kept.read_bytes(), stat.S_IMODE(kept.stat().st_mode)) == (before, 0o600)


def test_each_older_format_has_a_step_and_a_recorded_file() -> None:
    assert set(module._STEPS) == set(range(1, VERSION))
    recorded = {json.loads(file.read_bytes())["version"] for file in RECORDED.glob("*.json")}
    assert recorded >= set(range(1, VERSION))


def test_a_full_disk_does_not_stop_a_migration(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    path.write_bytes((RECORDED / "0.1.0.json").read_bytes())
    path.with_name("state.json.v1.new").mkdir()  # the copy cannot be written
    store = Store(path)
    store.load()
    assert set(store.state.sessions) == {"server1", "train", "old"}


def test_absent_file_is_an_empty_state(tmp_path: Path) -> None:
    store = Store(tmp_path / "state.json")
    store.load()
    assert store.state.sessions == {}
