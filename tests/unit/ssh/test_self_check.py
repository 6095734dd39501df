"""Our packetizer fits the installed paramiko; for another version paramiko's own is used, and that is logged."""

from __future__ import annotations

import logging
import socket
from pathlib import Path
from typing import Any

import paramiko.transport
import pytest
from paramiko.packet import Packetizer as Theirs

from jupyman.ssh.channels import self_check
from jupyman.ssh.wire import algorithms
from jupyman.ssh.wire.packetizer import Packetizer
from jupyman.ssh.wire.paramiko_packets import ParamikoPacketizer


@pytest.fixture(autouse=True)
def _fresh() -> Any:
    self_check.packetizer.cache_clear()
    yield
    self_check.packetizer.cache_clear()


def test_it_fits(caplog: pytest.LogCaptureFixture) -> None:
    assert self_check.packetizer() is Packetizer
    assert not caplog.records


def test_it_fits_through_small_buffers_too(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """macOS gives a pair of sockets 8 KiB."""
    make = socket.socketpair

    def small() -> tuple[socket.socket, socket.socket]:
        both = make()
        for one in both:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)  # Linux doubles it
        return both

    monkeypatch.setattr(socket, "socketpair", small)
    assert self_check.packetizer() is Packetizer
    assert not caplog.records


def test_a_method_that_is_new(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(Theirs, "set_something", lambda self: None, raising=False)
    assert self_check.packetizer() is ParamikoPacketizer
    [record] = caplog.records
    assert record.levelno == logging.WARNING
    assert "set_something is new" in record.getMessage()
    assert paramiko.__version__ in record.getMessage()
    assert self_check.packetizer() is ParamikoPacketizer  # and not logged again
    assert len(caplog.records) == 1


def test_arguments_that_are_new(monkeypatch: pytest.MonkeyPatch) -> None:
    def set_log(self: Any, log: Any, level: int = 0) -> None:
        """Another one."""

    monkeypatch.setattr(Theirs, "set_log", set_log)
    with pytest.raises(Exception, match="set_log has other arguments"):
        self_check.check()


def test_something_private_that_transport_uses(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    source = Path(str(paramiko.transport.__file__)).read_text(encoding="utf-8")
    changed = tmp_path / "transport.py"
    changed.write_text(source + "\n        self.packetizer._new_secret = 1\n")
    monkeypatch.setattr("inspect.getsourcefile", lambda _: str(changed))
    with pytest.raises(Exception, match="Transport uses _new_secret"):
        self_check.check()


def test_without_a_source_the_rest_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("inspect.getsourcefile", lambda _: None)
    self_check.check()


def test_another_format_on_the_wire(monkeypatch: pytest.MonkeyPatch) -> None:
    build: Any = vars(Theirs)["_build_packet"]
    monkeypatch.setattr(Theirs, "_build_packet", lambda self, payload: build(self, b"\x02" + payload))
    assert self_check.packetizer() is ParamikoPacketizer


def test_one_that_never_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(self_check, "LIMIT", 0.2)
    monkeypatch.setattr(Theirs, "send_message", lambda self, data: None)
    assert self_check.packetizer() is ParamikoPacketizer


# --- algorithms ---------------------------------------------------------------------------------------------------


def test_gcm_is_first_if_the_computer_is_fast_at_it(monkeypatch: pytest.MonkeyPatch) -> None:
    offered = ("aes128-ctr", "aes256-ctr", "3des-cbc", "aes128-gcm@openssh.com", "aes256-gcm@openssh.com")
    monkeypatch.setattr(algorithms, "gcm_is_fast", lambda: True)
    assert algorithms.ciphers(offered)[:3] == ("aes128-gcm@openssh.com", "aes256-gcm@openssh.com", "aes128-ctr")
    monkeypatch.setattr(algorithms, "gcm_is_fast", lambda: False)
    assert algorithms.ciphers(offered)[:3] == ("aes128-ctr", "aes256-ctr", "aes128-gcm@openssh.com")
    for fast in (True, False):
        monkeypatch.setattr(algorithms, "gcm_is_fast", lambda fast=fast: fast)
        assert sorted(algorithms.ciphers(offered)) == sorted(offered)
        assert algorithms.ciphers(offered)[-1] == "3des-cbc"


def test_the_measurement_compares_what_they_take(monkeypatch: pytest.MonkeyPatch) -> None:
    for gcm, ctr in ((1.0, 5.0), (5.0, 1.0)):
        took = iter((gcm, ctr))
        monkeypatch.setattr(algorithms, "_seconds", lambda action, took=took: (action(), next(took))[1])
        assert algorithms.gcm_is_fast.__wrapped__() is (gcm < ctr)


def test_a_mac_over_what_is_encrypted_comes_first() -> None:
    assert algorithms.macs(("hmac-sha1", "hmac-sha2-256", "hmac-sha2-256-etm@openssh.com", "new")) == (
        "hmac-sha2-256-etm@openssh.com",
        "hmac-sha2-256",
        "hmac-sha1",
        "new",
    )
