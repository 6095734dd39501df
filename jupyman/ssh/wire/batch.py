"""A batch of packets of channel data: what the local program sends is read straight into their bodies."""

from __future__ import annotations

import functools
import socket
import struct

from paramiko.common import MSG_CHANNEL_DATA

PACKETS = 20  # in one turn; more are no longer noticed
DATA = 32768  # bytes of data in one: what sshd takes (OpenSSH's CHAN_TCP_PACKET_DEFAULT)
SIZE = PACKETS * DATA
# A byte for the length of the padding; then the kind, the channel, the data's length (RFC 4254, section 5.2).
_HEAD = struct.Struct(">xBII")
_ROOM = 32  # for the padding


class PacketBatch:
    """Room for a few packets of CHANNEL_DATA."""

    def __init__(self) -> None:
        stride = _HEAD.size + DATA + _ROOM
        whole = memoryview(bytearray(PACKETS * stride))
        self._bodies = [whole[at : at + stride] for at in range(0, PACKETS * stride, stride)]
        self._rooms = [body[_HEAD.size : _HEAD.size + DATA] for body in self._bodies]
        self.packets: list[tuple[memoryview, int]] = []  # each with a byte before its payload, and the payload's size
        self.views: list[memoryview] = []  # the data in them

    def fill(self, sock: socket.socket, limit: int, packet: int) -> int:
        """Read from a socket that does not block.

        Args:
            sock: to read.
            limit: bytes at most.
            packet: bytes of data that the host takes in one packet.

        Returns:
            Bytes; 0 at the socket's end.

        Raises:
            OSError: as `socket.recv`.
        """
        size = min(packet, DATA)
        count = min(PACKETS, -(-limit // size))
        rooms = self._rooms[:count] if size == DATA else [room[:size] for room in self._rooms[:count]]
        last = limit - size * (count - 1)
        if last < size:
            rooms[-1] = rooms[-1][:last]
        if hasattr(sock, "recvmsg_into"):
            got: int = sock.recvmsg_into(rooms)[0]
        else:  # Windows
            got = sock.recv_into(rooms[0])
        left, self.views = got, []
        for room in rooms:
            if left <= 0:
                break
            self.views.append(room[:left])
            left -= size
        return got

    def address(self, channel: int) -> None:
        """Make packets of what was read, for the host's number of a channel."""
        self.packets = []
        for body, view in zip(self._bodies, self.views, strict=False):
            size = len(view)
            _HEAD.pack_into(body, 0, MSG_CHANNEL_DATA, channel, size)
            self.packets.append((body, _HEAD.size - 1 + size))


@functools.cache
def shared_batch() -> PacketBatch:
    """Return the batch of the loop's thread: whatever is read into it is sent in the same call."""
    return PacketBatch()
