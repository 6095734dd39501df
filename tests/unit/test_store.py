"""The state file: written whole, read back, and never lost without a word."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest

from jupyman import errors
from jupyman.core.store import Store
from jupyman.model import SessionSpec, TunnelSpec


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


@pytest.mark.parametrize("content", [b"", b"{", b'{"version": 1, "sessions": 3}', b"\xff\xfe"])
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


def test_newer_version_is_left_untouched(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    path.write_text(json.dumps({"version": 99, "sessions": {}}))
    before = path.read_bytes()
    with pytest.raises(errors.VersionMismatch):
        Store(path).load()
    assert path.read_bytes() == before


def test_absent_file_is_an_empty_state(tmp_path: Path) -> None:
    store = Store(tmp_path / "state.json")
    store.load()
    assert store.state.sessions == {}
