"""A network between this computer and a host: its link can go down, and packets can be dropped.

Packets are dropped by a router between the two, in a namespace of its own. When the firewall of an end drops what that
end sends, its kernel reports it to TCP, which then retries twice a second; in a real outage the intervals grow.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import os
import re
import shutil
import subprocess
import uuid
from collections.abc import Iterator
from types import TracebackType
from typing import Self

import psutil
import pytest

# 198.18.0.0/15 is for tests of devices (RFC 2544) and on no real network; each network takes one /24 of it.
_NETS = 250
_MINE: set[int] = set()


class Network:
    """A network namespace with one host address; use as a context manager, as root.

    Attributes:
        address: of the host, reached from here.
        name: of the namespace.
    """

    def __init__(self) -> None:
        self.name = f"jm{os.getpid():x}-{uuid.uuid4().hex[:4]}"
        self.address = ""
        self._router = f"{self.name}r"
        self._route: list[str] = []
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Self:
        if os.geteuid() != 0:
            pytest.skip("only root can make a network namespace")
        for program in ("ip", "iptables"):
            if shutil.which(program) is None:
                pytest.skip(f"{program} is not installed")
        _sweep()
        with contextlib.ExitStack() as undo:
            for name in (self.name, self._router):
                _do("ip", "netns", "add", name)
                undo.callback(_do, "ip", "netns", "del", name)
                _in(name, "ip", "link", "set", "lo", "up")
            _in(self._router, "sh", "-c", "echo 1 >/proc/sys/net/ipv4/ip_forward")
            self.address = undo.enter_context(self._cable("a"))
            self._route = ["ip", "route", "add", f"{self.address}/32", "via", _near(self.address)]
            self._stack = undo.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    @property
    def prefix(self) -> list[str]:
        """What goes before a command that is to run on the host."""
        return ["ip", "netns", "exec", self.name]

    @contextlib.contextmanager
    def _cable(self, letter: str) -> Iterator[str]:
        """Connect this computer to the router, and the router to the host; yields the host's address."""
        near, far = f"{self.name}{letter}", f"{letter}-far"
        back, there = f"{letter}-back", f"{letter}-host"
        with contextlib.ExitStack() as undo, _number() as number:
            net, address = f"198.18.{number}", f"198.18.{number}.6"
            _do("ip", "link", "add", near, "type", "veth", "peer", "name", far, "netns", self._router)
            try:
                words = ("ip", "link", "add", back, "type", "veth", "peer", "name", there, "netns", self.name)
                _in(self._router, *words)
                _do("ip", "addr", "add", f"{net}.1/30", "dev", near)
                _do("ip", "link", "set", near, "up")
                for name, device, own in (
                    (self._router, far, f"{net}.2"),
                    (self._router, back, f"{net}.5"),
                    (self.name, there, address),
                ):
                    _in(name, "ip", "addr", "add", f"{own}/30", "dev", device)
                    _in(name, "ip", "link", "set", device, "up")
                _do("ip", "route", "add", f"{address}/32", "via", _near(address))
                # Without the link there is no route: otherwise packets would leave by this machine's own network.
                _do("ip", "route", "add", "unreachable", f"{address}/32", "metric", "4096")
                undo.callback(_do, "ip", "route", "del", "unreachable", f"{address}/32", "metric", "4096")
                _in(self.name, "ip", "route", "add", f"{net}.0/30", "via", f"{net}.5")
                yield address
            finally:
                # Explicitly: a namespace, and the devices in it, exist as long as one of its connections.
                _do("ip", "link", "del", near)
                _in(self._router, "ip", "link", "del", back)

    def elsewhere(self) -> contextlib.AbstractContextManager[str]:
        """Connect by a second network; yields the host's address there."""
        return self._cable("c")

    def drop(self) -> None:
        """Drop every packet, both ways, without a notice."""
        _in(self._router, "iptables", "-I", "FORWARD", "-j", "DROP")

    def heal(self) -> None:
        """Let packets pass again."""
        _in(self._router, "iptables", "-F", "FORWARD")

    def pull(self) -> None:
        """Take the link down on this side."""
        _do("ip", "link", "set", f"{self.name}a", "down")

    def plug(self) -> None:
        """Take the link up again."""
        _do("ip", "link", "set", f"{self.name}a", "up")
        _do(*self._route)  # the kernel removed it with the link

    @contextlib.contextmanager
    def dropping(self) -> Iterator[None]:
        """Drop packets inside a ``with`` block."""
        self.drop()
        try:
            yield
        finally:
            self.heal()


def _near(address: str) -> str:
    """Return the router's address on this computer's side, for a host's address."""
    return f"{address.rpartition('.')[0]}.2"


def _in(name: str, *words: str) -> None:
    _do("ip", "netns", "exec", name, *words)


def _do(*words: str) -> None:
    done = subprocess.run(words, check=False, capture_output=True, text=True)
    assert done.returncode == 0, f"{' '.join(words)}: {done.stderr}"


def _sweep() -> None:
    """Remove what killed runs left: the name has the pid of its run."""
    for kind in ("link", "netns"):
        listed = subprocess.run(["ip", "-o", kind, "show"], check=False, capture_output=True, text=True).stdout
        for name, owner in re.findall(r"\b(jm([0-9a-f]+)-[0-9a-f]{4}[acr]?)\b", listed):
            if not psutil.pid_exists(int(owner, 16)):
                subprocess.run(["ip", kind, "del", name], check=False, capture_output=True)


@functools.cache
def _locks() -> int:
    # One descriptor that is never closed: closing any descriptor of the file releases all locks of the process.
    return os.open("/tmp/jmbed-net.lock", os.O_CREAT | os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)


@contextlib.contextmanager
def _number() -> Iterator[int]:
    """Hold the number of a /24 that no other test run uses: each is a lock on one byte of a file."""
    for number in range(_NETS):
        if number in _MINE:
            continue
        try:
            fcntl.lockf(_locks(), fcntl.LOCK_EX | fcntl.LOCK_NB, 1, number)
        except OSError:
            continue
        _MINE.add(number)
        try:
            yield number
        finally:
            _MINE.discard(number)
            fcntl.lockf(_locks(), fcntl.LOCK_UN, 1, number)
        return
    pytest.skip("all test networks are in use")
