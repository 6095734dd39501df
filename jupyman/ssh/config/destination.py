"""The destination of `ssh`: parsed, and refused if it cannot be one."""

from __future__ import annotations

import re
from dataclasses import dataclass

from jupyman import rules

_DESTINATION = re.compile(
    r"^(?:(?P<user>.+)@)?(?:\[(?P<six>[0-9A-Za-z:.%]+)\]|(?P<name>[^:@\[\]]+))(?::(?P<port>[0-9]{1,5}))?$"
)


@dataclass(frozen=True)
class Destination:
    """An alias or address, with a user and a port if they were given."""

    name: str
    user: str | None = None
    port: int | None = None

    @classmethod
    def parse(cls, text: str) -> Destination:
        """Read ``ALIAS`` or ``[USER@]HOST[:PORT]``; an IPv6 address needs brackets if a port follows.

        Raises:
            UsageFault: it is none of these, or looks like an option.
        """
        rules.check_destination(text)
        body = text.removeprefix("ssh://").removesuffix("/") if text.startswith("ssh://") else text
        if body.count(":") > 1 and "[" not in body:  # a bare IPv6 address
            user, _, name = body.rpartition("@")
            port = None
        else:
            match = _DESTINATION.match(body)
            if match is None:
                raise rules.not_a_host(text)
            user, name = match["user"] or "", match["six"] or match["name"]
            port = int(match["port"]) if match["port"] else None
        if not name or name.startswith("-") or user.startswith("-") or user.endswith("\\"):
            raise rules.not_a_host(text)
        if port is not None:
            rules.check_port(port)
        return cls(name=name, user=user or None, port=port)
