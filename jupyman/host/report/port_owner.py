"""Whose the listener is that a forward leads to: another person's server would get this browser's cookies.

Cookies know hosts, not ports: what a browser keeps for 127.0.0.1 it shows to every port of 127.0.0.1, and the forward
of a neighbour's port is one. docs/security.md says what holds.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterable

from jupyman import errors
from jupyman.api import Operation, Prompt
from jupyman.host.report import ports
from jupyman.host.shell import script
from jupyman.host.shell.script import Facts, Shell
from jupyman.model import PortHolder
from jupyman.tools.host import sockets
from jupyman.tools.host.text import clean

TIMEOUT = 10.0  # seconds; an account that may only forward has no shell to ask
_NAMES = {"localhost", "localhost.localdomain", "ip6-localhost", "ip6-loopback"}
_EVERY = {4: ("0.0.0.0", "*", "::ffff:0.0.0.0", "::"), 6: ("::", "*")}  # noqa: S104 - compared, not bound
# The first uid of a person: UID_MIN of login.defs(5). systemd's dynamic users, up to `nobody`, are services again
# (https://systemd.io/UIDS-GIDS/).
_FIRST, _SERVICES = 1000, range(61184, 65535)


def person(uid: int) -> bool:
    """Tell whether a uid is a person's, and no service's or root's."""
    return uid >= _FIRST and uid not in _SERVICES


def loopback(address: str) -> list[str]:
    """Return the loopback addresses of the host that a forward's target means; none where it is another machine."""
    if address.lower() in _NAMES or address.lower().endswith(".localhost"):
        return ["127.0.0.1", "::1"]
    try:
        # As sshd reads it: 127.1 is an address as well.
        plain = ipaddress.ip_address(address if ":" in address else socket.inet_ntoa(socket.inet_aton(address)))
    except (OSError, ValueError):
        return []
    plain = getattr(plain, "ipv4_mapped", None) or plain
    if plain.is_unspecified:  # Linux takes it for its own loopback
        return ["127.0.0.1" if plain.version == 4 else "::1"]
    return [str(plain)] if plain.is_loopback else []


def reached(seen: Iterable[sockets.Socket], address: str, port: int) -> list[sockets.Socket]:
    """Choose the listeners that a connection to a loopback address reaches. Pure.

    Args:
        seen: listening sockets of the host.
        address: as `loopback` returns it.
        port: of the target.
    """
    here = [one for one in seen if one.port == port]
    near = [one for one in here if one.address in {address, f"::ffff:{address}"}]
    return near or [one for one in here if one.address in _EVERY[6 if ":" in address else 4]]


def strangers(facts: Facts, address: str, port: int) -> list[PortHolder] | None:
    """Read whose the listeners of a target are. Pure; tests feed it recorded facts.

    Args:
        facts: what `remote/report/ports.sh` said.
        address: of the target.
        port: likewise.

    Returns:
        The other people among their owners; None where one's owner, or no listener at all, can be seen.
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


def consent(shell: Shell, host: str, address: str, port: int, *, yes: bool, operation: Operation) -> str | None:
    """Look whose the listener is, and ask where it is another person's.

    Args:
        shell: the host.
        host: its name.
        address: of the target.
        port: likewise.
        yes: the user has said so already.
        operation: whom to ask.

    Returns:
        What is to be said of it, None where nothing is.

    Raises:
        NotOurs: it is another person's, and the user does not say yes.
        Interrupted: the operation was cancelled.
    """
    if not loopback(address):
        return None  # another machine: nobody can know
    what = f"port {port} on {host}"
    try:
        found = strangers(script.run(shell, "report/ports", {"PORTS": str(port)}, timeout=TIMEOUT), address, port)
    except errors.Interrupted:
        raise
    except errors.JupymanError:
        found = None
    if found is None:
        return f"whose the program on {what} is cannot be seen"
    if not found:
        return None
    whose = " and ".join(ports.describe(one) for one in found)
    if yes:
        return f"{what} is held by {whose}"
    cookies = "a server of theirs sees the cookies that your browser keeps for 127.0.0.1, your Jupyter's too"
    if operation.client.interactive:
        text = f"{what} is held by {whose}; {cookies}. Forward it all the same?"
        if operation.ask(Prompt(id="", kind="confirm", text=text, default="n")).lower() in {"y", "yes"}:
            return f"{what} is held by {whose}"
    raise errors.NotOurs(f"{what} is held by {whose}: it was not forwarded", f"{cookies}; -y forwards it all the same")
