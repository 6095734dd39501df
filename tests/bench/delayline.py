"""A long line of IP packets between two network namespaces, for kernels without netem.

Each namespace has a TUN device; a process holds every packet for a while and puts it into the other. TCP's handshake,
windows, congestion control and segmentation are the kernel's own (the devices carry segments of up to 64 KiB, so that a
Python process keeps up: linux/if_tun.h, TUN_F_TSO4). Nothing is lost and no rate is limited.

``python -m tests.bench.delayline NEAR FAR SECONDS``, as root, is that process; it ends with its standard input.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import selectors
import struct
import subprocess
import sys
import time
import uuid
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.bench.child import start

NEAR = ("ip", "netns", "exec")
DEVICE = "jmline"
NET = "198.18.255"  # RFC 2544's block for tests of devices; in namespaces of its own, so it conflicts with nothing
PACKET = 65536 + 64
TURN = 64  # packets that are read before those that are due go on
# linux/if_tun.h and linux/sched.h.
_TUNSETIFF, _TUNSETOFFLOAD = 0x400454CA, 0x400454D0
_TUN, _NO_PI, _VNET_HDR = 0x0001, 0x1000, 0x4000
_CSUM, _TSO4, _TSO6 = 0x01, 0x02, 0x04
_CLONE_NEWNET = 0x40000000


@dataclass(frozen=True)
class Ends:
    """The namespaces at both ends, and the address of the far one."""

    near: str
    far: str
    address: str


@contextlib.contextmanager
def line(delay: float, *, buffers: int | None = None) -> Iterator[Ends]:
    """Lay a line; needs root.

    Args:
        delay: seconds each way.
        buffers: bytes to which TCP's buffers may grow at both ends; None: as the kernel has it.

    Yields:
        Its ends.
    """
    with contextlib.ExitStack() as undo:
        # The name is that of the test bed's networks: what a killed run leaves, the next one sweeps away.
        names = [f"jm{os.getpid():x}-{uuid.uuid4().hex[:4]}" for _ in range(2)]
        for name in names:
            _do("ip", "netns", "add", name)
            undo.callback(_do, "ip", "netns", "del", name)
        words = [sys.executable, "-m", "tests.bench.delayline", *names, str(delay)]
        process = undo.enter_context(start(words))
        undo.callback(process.kill)
        assert process.stdout is not None
        if process.stdout.readline() != "READY\n":
            raise RuntimeError("the delay line does not start: is there a /dev/net/tun?")
        for number, name in enumerate(names, 1):
            inside = ("ip", "netns", "exec", name)
            _do(*inside, "ip", "link", "set", "lo", "up")
            _do(*inside, "ip", "addr", "add", f"{NET}.{number}/30", "dev", DEVICE)
            _do(*inside, "ip", "link", "set", DEVICE, "txqueuelen", "10000", "mtu", "1500", "up")
            if buffers is not None:
                for setting in ("tcp_rmem", "tcp_wmem"):
                    low, usual, _ = Path(f"/proc/sys/net/ipv4/{setting}").read_text().split()
                    _do(*inside, "sysctl", "-qw", f"net.ipv4.{setting}={low} {usual} {buffers}")
        yield Ends(names[0], names[1], f"{NET}.2")


def _do(*words: str) -> None:
    done = subprocess.run(words, check=False, capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(words)}: {done.stderr.strip()}")


# --- the process --------------------------------------------------------------------------------------------------


def main() -> None:
    """Carry packets until standard input ends."""
    near, far, delay = sys.argv[1], sys.argv[2], float(sys.argv[3])
    devices = [_device(near), _device(far)]
    print("READY", flush=True)
    held: deque[tuple[float, int, bytes]] = deque()  # all wait equally long: the oldest is due first
    with selectors.DefaultSelector() as selector:
        selector.register(sys.stdin, selectors.EVENT_READ, None)
        for number, device in enumerate(devices):
            selector.register(device, selectors.EVENT_READ, number)
        while True:
            wait = max(0.0, held[0][0] - time.monotonic()) if held else None
            for key, _ in selector.select(wait):
                if key.data is None:
                    return
                with contextlib.suppress(BlockingIOError):
                    for _ in range(TURN):
                        packet = os.read(devices[key.data], PACKET)
                        held.append((time.monotonic() + delay, devices[1 - key.data], packet))
            while held and held[0][0] <= time.monotonic():
                _, device, packet = held.popleft()
                with contextlib.suppress(OSError):  # the interface is not up yet, or no longer
                    os.write(device, packet)


def _device(namespace: str) -> int:
    """Make a TUN device in a namespace and return its descriptor."""
    libc = ctypes.CDLL(None, use_errno=True)
    place = os.open(f"/run/netns/{namespace}", os.O_RDONLY)
    if libc.setns(place, _CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "setns")
    os.close(place)
    device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(device, _TUNSETIFF, struct.pack("16sH22x", DEVICE.encode(), _TUN | _NO_PI | _VNET_HDR))
    fcntl.ioctl(device, _TUNSETOFFLOAD, _CSUM | _TSO4 | _TSO6)
    return device


if __name__ == "__main__":
    main()
