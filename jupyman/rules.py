"""PURE: the forms of names, destinations, ports, forwards and sizes. Each rule exists once, here."""

from __future__ import annotations

import re

import msgspec

from jupyman import errors

PORTS = range(1, 65536)
NAME_LENGTH = 63

_NAME = re.compile(rf"[A-Za-z0-9_][A-Za-z0-9._-]{{0,{NAME_LENGTH - 1}}}")
# jupyter_client/kernelspec.py, _kernel_name_pat; the length is ours.
_KERNEL_NAME = re.compile(r"[A-Za-z0-9._-]{1,100}")
_FORWARD = re.compile(
    r"(?P<local>[0-9]+)"
    r"(?::(?:(?P<address>\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._][A-Za-z0-9._-]*):)?(?P<remote>[0-9]+))?"
)
_UNITS = ("B", "kiB", "MiB", "GiB", "TiB")
# The characters that OpenSSH 9.6 refuses (ssh.c, valid_hostname and valid_ruser). An older ssh passes them to a shell
# through the user's own `Match exec` or `ProxyCommand` with %h, %n or %r.
_SHELL = frozenset("'`\"$;&<>|(){}")


def is_name(text: str) -> bool:
    """Return whether a text is safe as a directory name on every host and as a word on the command line."""
    return _NAME.fullmatch(text) is not None


def is_session_name(text: str) -> bool:
    """Return whether a session or host may have this name: digits alone would be a port."""
    return is_name(text) and not text.isdigit()


def is_kernel_name(text: str) -> bool:
    """Return whether a kernel spec may have this name."""
    return _KERNEL_NAME.fullmatch(text) is not None and text.strip(".") != ""


def check_name(name: str, what: str = "session") -> str:
    """Return a session's or host's name unchanged.

    Args:
        name: as the user wrote it.
        what: "session" or "host", for the message.

    Raises:
        UsageFault: it cannot be a name.
    """
    if not is_session_name(name):
        raise errors.UsageFault(
            f"{name[:80]!r} cannot be a {what} name",
            f"letters, digits, dot, underscore and dash; at most {NAME_LENGTH}; not only digits; "
            "not starting with a dash or a dot",
        )
    return name


def check_destination(text: str) -> str:
    """Return an SSH alias or address unchanged.

    Args:
        text: as the user wrote it: ``server1``, ``alice@10.0.0.7:22``.

    Raises:
        UsageFault: ssh or a shell could take it for something else, or no host can have this name.
    """
    user, _, name = text.rpartition("@")
    plain = text and len(text) <= 255 and not text.startswith("-") and all(ord(c) > 32 and ord(c) != 127 for c in text)
    if not plain or "\\" in name or not _SHELL.isdisjoint(name) or not (_SHELL - {"$"}).isdisjoint(user):
        raise not_a_host(text)
    return text


def not_a_host(text: str) -> errors.UsageFault:
    """Return the error for a text that cannot be a destination."""
    return errors.UsageFault(f"{text[:80]!r} is not a host", "write an alias of ~/.ssh/config or user@host[:port]")


def check_port(port: int, hint: str = "choose another port") -> int:
    """Return a port unchanged.

    Args:
        port: any number.
        hint: what to do if it is none.

    Raises:
        UsageFault: it is not 1..65535.
    """
    if port not in PORTS:
        raise errors.UsageFault(f"port {port} is not between {PORTS[0]} and {PORTS[-1]}", hint)
    return port


class ForwardSpec(msgspec.Struct, frozen=True):
    """A forward as the user writes it; `address` without brackets."""

    local: int
    address: str
    remote: int


def is_forward(text: str) -> bool:
    """Return whether a text has the form of a forward, whatever its ports."""
    return _FORWARD.fullmatch(text) is not None


def parse_forward(text: str) -> ForwardSpec:
    """Read ``PORT``, ``PORT:REMOTE_PORT`` or ``PORT:ADDR:REMOTE_PORT``, as `ssh -L` does.

    Raises:
        UsageFault: it is none of these, or a port is not 1..65535.
    """
    match = _FORWARD.fullmatch(text)
    if match is None:
        raise errors.UsageFault(f"{text!r} is not a forward", "write PORT, PORT:REMOTE_PORT or PORT:ADDR:REMOTE_PORT")
    local = check_port(int(match["local"]))
    remote = check_port(int(match["remote"] or local))
    return ForwardSpec(local, (match["address"] or "127.0.0.1").strip("[]"), remote)


def size(count: int | None) -> str:
    """Format a number of bytes with three significant digits; "?" if it is unknown."""
    if count is None:
        return "?"
    amount, unit = float(count), 0
    while amount >= 1023.5 and unit < len(_UNITS) - 1:
        amount, unit = amount / 1024, unit + 1
    return f"{amount:.0f} {_UNITS[unit]}" if amount >= 1000 or not unit else f"{amount:.3g} {_UNITS[unit]}"
