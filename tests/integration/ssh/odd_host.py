"""Odd messages of a host, by the moment of the login, and logins to it."""

from __future__ import annotations

import struct
from pathlib import Path

from jupyman import errors
from jupyman.ssh.config.ssh_g import HostConfig
from jupyman.ssh.link import Link
from jupyman.ssh.login.auth import Credentials, Keyring
from tests.bed.hostile import Oddity, text

BAD = b"\xff\xfe \x1b[2J\xc3("  # no UTF-8, and a terminal would obey it
DISCONNECT = b"\x01" + struct.pack(">I", 2) + text(BAD) + text(b"\xff")
LOGIN_FAULTS = {10, 11, 13}
KEXINIT = b"\x14" + bytes(16) + 10 * text(BAD) + bytes(5)
HUGE = b"\xff\xff\xff\xff"

ODD: dict[str, Oddity] = {
    "greeting: no UTF-8, and then nothing": Oddity("greeting", (b"\xff\xfe\r\n",), "wait"),
    "greeting: a version of no UTF-8": Oddity("greeting", (b"SSH-2.0-\xff\xfe\r\n",)),
    "greeting: bytes without an end": Oddity("greeting", (b"\xff" * 100_000,)),
    "kexinit: DISCONNECT": Oddity("kexinit", (DISCONNECT,)),
    "kexinit: names of no UTF-8": Oddity("kexinit", (KEXINIT,)),
    "kexinit: nothing in it": Oddity("kexinit", (b"\x14",)),
    "kexinit: lists of any length": Oddity("kexinit", (b"\x14" + bytes(16) + HUGE,)),
    "kexinit: an unknown type": Oddity("kexinit", (b"\xc8odd",)),
    "exchange: DISCONNECT": Oddity("exchange", (DISCONNECT,)),
    "exchange: a key of nothing": Oddity("exchange", (b"\x1f",)),
    "exchange: a key of no kind": Oddity("exchange", (b"\x1f" + text(text(BAD)) + text(b"x" * 32) + text(BAD),)),
    "exchange: an unknown type": Oddity("exchange", (b"\xc8odd",)),
    "newkeys: DISCONNECT": Oddity("newkeys", (DISCONNECT,)),
    "newkeys: DISCONNECT, cut": Oddity("newkeys", (b"\x01\x00",)),
    "newkeys: DISCONNECT, of any length": Oddity("newkeys", (b"\x01" + struct.pack(">I", 2) + HUGE + BAD,)),
    "newkeys: new keys once more": Oddity("newkeys", (b"\x15",)),
    "newkeys: any number of extensions": Oddity("newkeys", (b"\x07" + HUGE,)),
    "service: DISCONNECT": Oddity("service", (DISCONNECT,)),
    "service: an unknown type, then the end": Oddity("service", (b"\xc8odd",)),
    "service: another service": Oddity("service", (b"\x06" + text(BAD),)),
    "auth: DISCONNECT": Oddity("auth", (DISCONNECT,)),
    "auth: an unknown type, then the end": Oddity("auth", (b"\xc8odd",)),
    "auth: a question that nobody asked for": Oddity("auth", (b"\x3c" + text(BAD) * 3 + HUGE,)),
    "auth: a banner, cut": Oddity("auth", (b"\x35" + HUGE,)),
    "auth: a refusal, cut": Oddity("auth", (b"\x33" + HUGE,)),
    "auth: the end": Oddity("auth", ()),
    "auth: an opened channel": Oddity("auth", (b"\x5b" + bytes(16),)),
    "auth: data for no channel": Oddity("auth", (b"\x5e" + HUGE * 2,)),
}


def configuration(key: Path, port: int) -> HostConfig:
    """Return the configuration of a host whose key, and whose user's, is `key`."""
    known = key.parent / f"known-{port}"
    known.write_text(f"[127.0.0.1]:{port} " + Path(f"{key}.pub").read_text())
    return HostConfig(
        alias="server1",
        hostname="127.0.0.1",
        port=port,
        user="alice",
        identity_files=(str(key),),
        identities_only=True,
        identity_agent="",
        user_known_hosts=(str(known),),
        global_known_hosts=(),
    )


def log_in(key: Path, port: int) -> Link:
    """Log in within 3 s."""
    return Link.open(configuration(key, port), Credentials(), Keyring(), timeout=3.0)


def entered(key: Path, port: int) -> Link | None:
    """Log in; return None when that ends in a named error."""
    try:
        return log_in(key, port)
    except errors.JupymanError as error:
        fault = error
    assert fault.status in LOGIN_FAULTS
    assert fault.message.isprintable()
    return None
