"""Whether our packetizer fits the installed paramiko; checked once, before the first connection."""

from __future__ import annotations

import functools
import inspect
import logging
import os
import re
import socket
import threading
from pathlib import Path
from types import ModuleType
from typing import Any

import paramiko
import paramiko.transport
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from paramiko.message import Message
from paramiko.packet import Packetizer as Theirs

from jupyman.ssh.wire.packetizer import Packetizer
from jupyman.ssh.wire.paramiko_packets import ParamikoPacketizer

log = logging.getLogger(__name__)

LIMIT = 5.0  # seconds; it takes a few milliseconds


# Bytes of the messages that are exchanged. One thread sends and then reads, so they must fit into the socket's buffer:
# 8 KiB on macOS (XNU, PIPSIZ).
SIZES = (1, 11, 12, 5000)


class _Unfit(Exception):
    """Why not."""


@functools.cache
def packetizer() -> type[Packetizer | ParamikoPacketizer]:
    """Return the packetizer to use: ours, or paramiko's own if ours does not fit."""
    try:
        check()
    except Exception as error:  # whatever a future version makes of it
        log.warning(
            "paramiko %s needs something that our packetizer does not have (%s): forwards use paramiko's own, which is "
            "slower; a newer jupyman helps, or an older paramiko",
            paramiko.__version__,
            str(error) or repr(error),
        )
        return ParamikoPacketizer
    return Packetizer


def check() -> None:
    """Compare ours with paramiko's.

    Raises:
        Exception: it does not fit; with the reason.
    """
    for name, theirs in inspect.getmembers(Theirs):
        if not name.startswith("_") and not name.isupper():
            _compare(name, theirs)
    for name in _used(paramiko.transport):
        if not hasattr(Packetizer, name):
            raise _Unfit(f"Transport uses {name}")
    _talk()


def _compare(name: str, theirs: Any) -> None:
    ours = getattr(Packetizer, name, None)
    if ours is None:
        raise _Unfit(f"{name} is new")
    if inspect.isfunction(theirs):
        wanted, given = (list(inspect.signature(one).parameters.values()) for one in (theirs, ours))
        if [(one.name, one.kind, one.default) for one in wanted] != [(o.name, o.kind, o.default) for o in given]:
            raise _Unfit(f"{name} has other arguments")


def _used(module: ModuleType) -> set[str]:
    """Return the attributes of its packetizer that the source of paramiko's Transport uses."""
    place = inspect.getsourcefile(module)
    if place is None or not Path(place).exists():  # installed without its source
        return set()
    return set(re.findall(r"self\.packetizer\.(\w+)", Path(place).read_text(encoding="utf-8")))


def _talk() -> None:
    """Let the two exchange messages, in the clear and sealed."""
    left, right = socket.socketpair()
    ours, theirs = Packetizer(left), Theirs(right)
    watchdog = threading.Timer(LIMIT, ours.close)  # the other one notices
    watchdog.daemon = True
    watchdog.start()
    try:
        for sealed in (False, True):
            if sealed:
                _seal(ours, theirs)
                _seal(theirs, ours)
            for one, other in ((ours, theirs), (theirs, ours)):
                for size in SIZES:
                    text = os.urandom(size)
                    one.send_message(Message(b"\x02" + text))
                    kind, message = other.read_message()
                    if (kind, message.asbytes()) != (2, text):
                        raise _Unfit("a message came out changed")
    finally:
        watchdog.cancel()
        ours.close()
        theirs.close()


def _seal(sender: Any, reader: Any) -> None:
    key, iv = os.urandom(16), os.urandom(12)
    sender.set_outbound_cipher(AESGCM(key), 16, None, 16, None, aead=True, iv_out=iv)
    reader.set_inbound_cipher(AESGCM(key), 16, None, 16, None, aead=True, iv_in=iv)
