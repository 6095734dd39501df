"""Messages of the host that paramiko cannot deal with: none of them ends in a raw exception.

paramiko decodes strings strictly, trusts every count, and looks unknown message types up in a table that does not have
them: each of these ends the connection with a UnicodeDecodeError, a KeyError and the like, or keeps its thread busy for
hours. Both packetizers hand out `Incoming` instead of paramiko's Message, and call a `Filter` first; what still goes
wrong inside paramiko becomes a `ProtocolFault` (`foreign`).
"""

from __future__ import annotations

import logging
import struct
from collections.abc import Callable

import paramiko
from paramiko.common import (
    MSG_CHANNEL_CLOSE,
    MSG_CHANNEL_DATA,
    MSG_CHANNEL_EOF,
    MSG_CHANNEL_EXTENDED_DATA,
    MSG_CHANNEL_FAILURE,
    MSG_CHANNEL_OPEN,
    MSG_CHANNEL_OPEN_FAILURE,
    MSG_CHANNEL_OPEN_SUCCESS,
    MSG_CHANNEL_REQUEST,
    MSG_CHANNEL_SUCCESS,
    MSG_CHANNEL_WINDOW_ADJUST,
    MSG_DEBUG,
    MSG_DISCONNECT,
    MSG_EXT_INFO,
    MSG_GLOBAL_REQUEST,
    MSG_IGNORE,
    MSG_KEXINIT,
    MSG_NEWKEYS,
    MSG_REQUEST_FAILURE,
    MSG_REQUEST_SUCCESS,
    MSG_SERVICE_ACCEPT,
    MSG_UNIMPLEMENTED,
    MSG_USERAUTH_BANNER,
    MSG_USERAUTH_FAILURE,
    MSG_USERAUTH_INFO_REQUEST,
    MSG_USERAUTH_SUCCESS,
)
from paramiko.message import Message

from jupyman.ssh.wire.packets import Damaged

log = logging.getLogger(__name__)

# Bytes that a message may lack: some servers leave out fields that nobody reads, such as the language of a text, and
# paramiko reads zeros there. Without a limit a count of 2^32 prompts or extensions would be read to its end.
LACK = 64
_FIRST_OF_METHODS = 30  # RFC 4251, section 7: from here on what an exchange of keys consists of, then login, connection

# What paramiko's Transport and Channel know as a client.
KNOWN = frozenset(
    {
        MSG_DISCONNECT,
        MSG_EXT_INFO,
        MSG_KEXINIT,
        MSG_NEWKEYS,
        MSG_GLOBAL_REQUEST,
        MSG_REQUEST_SUCCESS,
        MSG_REQUEST_FAILURE,
        MSG_CHANNEL_OPEN,
        MSG_CHANNEL_OPEN_SUCCESS,
        MSG_CHANNEL_OPEN_FAILURE,
        MSG_CHANNEL_WINDOW_ADJUST,
        MSG_CHANNEL_DATA,
        MSG_CHANNEL_EXTENDED_DATA,
        MSG_CHANNEL_EOF,
        MSG_CHANNEL_CLOSE,
        MSG_CHANNEL_REQUEST,
        MSG_CHANNEL_SUCCESS,
        MSG_CHANNEL_FAILURE,
    }
)
# What its AuthHandler knows; only during a login.
LOGIN = frozenset(
    {
        MSG_SERVICE_ACCEPT,
        MSG_USERAUTH_FAILURE,
        MSG_USERAUTH_SUCCESS,
        MSG_USERAUTH_BANNER,
        MSG_USERAUTH_INFO_REQUEST,
    }
)
# RFC 4253, section 11: nothing has to be done with them; answers to UNIMPLEMENTED could go back and forth for ever.
_SILENT = frozenset({MSG_IGNORE, MSG_UNIMPLEMENTED, MSG_DEBUG})

Filter = Callable[[int, "Incoming"], bool]
"""Called with the type of a message and the message; returns whether it is dealt with, and not for paramiko."""


class ProtocolFault(paramiko.SSHException):
    """What the host sent is not valid SSH."""


class Incoming(Message):
    """A message of the host: text that is not UTF-8 gets replacement characters, and reading stops soon after its end.

    Args:
        content: the message without its type.
        seqno: sequence number of its packet.
    """

    def __init__(self, content: bytes, seqno: int) -> None:
        super().__init__(content)
        self.seqno = seqno
        self._lack = LACK

    def get_bytes(self, n: int) -> bytes:
        """Return the next bytes, with zeros for a few that are missing.

        Raises:
            Damaged: more are missing.
        """
        found: bytes = self.packet.read(n)
        missing = n - len(found)
        if missing > 0:
            self._lack -= missing
            if self._lack < 0:
                raise Damaged("the host sent a message that is shorter than its fields")
            found += bytes(missing)
        return found

    def get_text(self) -> str:
        """Return the next string."""
        return self.get_string().decode("utf-8", "replace")


def unimplemented(message: Incoming) -> bytes:
    """Return the answer to a message whose type is unknown (RFC 4253, section 11.4)."""
    return struct.pack(">BI", MSG_UNIMPLEMENTED, message.seqno)


def needs(kind: int, *, exchanging: bool, login: bool) -> str:
    """Return what has to be done with a message, once the first key exchange is over.

    Before that, everything is for paramiko: it ends the connection when anything comes that does not belong there, as
    OpenSSH's strict key exchange demands.

    Args:
        kind: its type.
        exchanging: during a key exchange.
        login: during a login.

    Returns:
        "paramiko", "nothing", or "answer": with `unimplemented`.
    """
    if kind in _SILENT:
        return "nothing"
    if kind in KNOWN or (login and kind in LOGIN) or (exchanging and kind >= _FIRST_OF_METHODS):
        return "paramiko"
    return "answer"


def foreign(error: Exception | None) -> Exception | None:
    """Turn the reason why a connection ended into an exception that its users expect.

    Args:
        error: as paramiko keeps it: its own, the socket's, or whatever its reading of a message raised.
    """
    if error is None or isinstance(error, (paramiko.SSHException, EOFError, OSError)):
        return error
    place = error.__traceback__
    while place is not None and place.tb_next is not None:
        place = place.tb_next
    where = f"{place.tb_frame.f_code.co_filename}:{place.tb_lineno}" if place is not None else "an unknown place"
    log.info("a message of a host raised in %s: %s", where, printable(repr(error)))
    made = ProtocolFault(f"the host sent something that is not valid SSH ({printable(repr(error))})")
    made.__cause__ = error
    return made


def printable(text: str, limit: int = 200) -> str:
    """Return a host's text for a message of ours: cut, and without control characters."""
    return "".join(c for c in text[:limit] if c.isprintable())


def disconnect_reason(disconnect: Message) -> tuple[int, str]:
    """Return the code and the text of a DISCONNECT (RFC 4253, section 11.1), even if it is malformed."""
    content = disconnect.asbytes()
    code = int.from_bytes(content[:4].ljust(4, b"\0"), "big")
    size = min(int.from_bytes(content[4:8], "big"), 1024)
    text = printable(content[8 : 8 + size].decode("utf-8", "replace")).strip()
    return code, text or f"without a text (reason {code})"
