"""Which user owns the listener that a forward leads to: another user's server receives this browser's cookies.

Cookies belong to hosts, not to ports: a browser sends the cookies of 127.0.0.1 to every port of 127.0.0.1, and the
forward of another user's port is one of these. See docs/security.md.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterable

from jupyman import errors
from jupyman.host.confirm import Confirm
from jupyman.host.report import ports
from jupyman.host.shell import script
from jupyman.host.shell.script import Facts, Shell
from jupyman.model import PortHolder
from jupyman.model.endpoint import LOOPBACK
from jupyman.tools.host import sockets
from jupyman.tools.host.text import clean

TIMEOUT = 10.0  # seconds; an account that may only forward has no shell, and need not be waited for
_NAMES = {"localhost", "localhost.localdomain", "ip6-localhost", "ip6-loopback"}
_EVERY = {4: ("0.0.0.0", "*", "::ffff:0.0.0.0", "::"), 6: ("::", "*")}  # noqa: S104 - compared, not bound
# The first uid of a person: UID_MIN of login.defs(5). systemd's dynamic users, up to `nobody`, are services again
# (https://systemd.io/UIDS-GIDS/).
_FIRST, _SERVICES = 1000, range(61184, 65535)


def person(uid: int) -> bool:
    """Return whether a uid belongs to a person: not to root, and not to a service."""
    return uid >= _FIRST and uid not in _SERVICES


def loopback(address: str) -> list[str]:
    """Return the loopback addresses of the host that a forward's target means; none for another machine."""
    if address.lower() in _NAMES or address.lower().endswith(".localhost"):
        return [LOOPBACK, "::1"]
    try:
        # As sshd reads it: 127.1 is an address, too.
        plain = ipaddress.ip_address(address if ":" in address else socket.inet_ntoa(socket.inet_aton(address)))
    except (OSError, ValueError):
        return []
    plain = getattr(plain, "ipv4_mapped", None) or plain
    if plain.is_unspecified:  # Linux connects to its own loopback
        return [LOOPBACK if plain.version == 4 else "::1"]
    return [str(plain)] if plain.is_loopback else []


def reached(seen: Iterable[sockets.Socket], address: str, port: int) -> list[sockets.Socket]:
    """Return the listeners that a connection to a loopback address reaches. Pure.

    Args:
        seen: listening sockets of the host.
        address: as `loopback` returns it.
        port: of the target.
    """
    here = [one for one in seen if one.port == port]
    near = [one for one in here if one.address in {address, f"::ffff:{address}"}]
    return near or [one for one in here if one.address in _EVERY[6 if ":" in address else 4]]


def strangers(facts: Facts, address: str, port: int) -> list[PortHolder] | None:
    """Return the other people who own the listeners of a target. Pure; tests use recorded facts.

    Args:
        facts: the answer of `remote/report/ports.sh`.
        address: of the target.
        port: of the target.

    Returns:
        The owners; None when an owner cannot be seen, or no listener at all.
    """
    names = dict(line.split(" ", 1) for line in facts.all("account") if " " in line)
    seen = list(ports.listening(facts))
    found = [one for place in loopback(address) for one in reached(seen, place, port)]
    others = {one.uid: one for one in found if one.uid is not None and one.uid != facts.number("uid")}
    holders = [
        PortHolder(
            port=port,
            address=one.address,
            uid=uid,
            user=clean(names[str(uid)], 60) if str(uid) in names else None,
            pid=None,
            command=None,
            ours=False,
        )
        for uid, one in others.items()
        if uid is not None and person(uid)
    ]
    return holders if holders or (found and all(one.uid is not None for one in found)) else None


def consent(shell: Shell, host: str, address: str, port: int, *, yes: bool, confirm: Confirm | None) -> str | None:
    """Find out who owns the listener, and ask the user when it is another person.

    Args:
        shell: the host.
        host: its name.
        address: of the target.
        port: of the target.
        yes: the user has agreed already.
        confirm: asks the user.

    Returns:
        A remark for the user, None when there is none.

    Raises:
        NotOurs: it is another person's, and the user does not agree.
        Interrupted: the user left.
    """
    if not loopback(address):
        return None  # another machine: its owners cannot be seen
    what = f"port {port} on {host}"
    try:
        found = strangers(script.run(shell, "report/ports", {"PORTS": str(port)}, timeout=TIMEOUT), address, port)
    except errors.Interrupted:
        raise
    except errors.JupymanError:
        found = None
    if found is None:
        return f"the owner of the program on {what} cannot be seen"
    if not found:
        return None
    whose = " and ".join(ports.describe(one) for one in found)
    if yes:
        return f"{what} is held by {whose}"
    cookies = (
        f"their server receives the cookies that your browser keeps for {LOOPBACK}, those of your Jupyter included"
    )
    if confirm is not None and confirm(f"{what} is held by {whose}; {cookies}. Forward it all the same?"):
        return f"{what} is held by {whose}"
    raise errors.NotOurs(f"{what} is held by {whose}: it was not forwarded", f"{cookies}; -y forwards it all the same")
