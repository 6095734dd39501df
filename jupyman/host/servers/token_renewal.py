"""Give a running server another token."""

from __future__ import annotations

import secrets

from jupyman import errors, remote
from jupyman.host.servers import liveness, records
from jupyman.host.servers.base import Liveness
from jupyman.host.shell import script
from jupyman.host.shell.script import Shell
from jupyman.model import Running
from jupyman.tools.jupyter import server as jupyter

WAIT = 60  # seconds to wait for a launch of the session that is under way
PROOF = 60.0  # seconds for the server to answer with the new token and with the old one (renew.sh)


def renew(shell: Shell, running: Running, address: str) -> tuple[Liveness, str | None]:
    """Give a server another token: see `Launcher.renew`.

    Args:
        shell: the machine on which it runs.
        running: the server, which has a record.
        address: its port or the path of its socket.
    """
    facts = script.run(
        shell,
        "servers/renew",
        {
            "CHECK": remote.program("servers/server_check"),
            **records.identity(running),
            "ENDPOINT": address,
            "DIRECTORY": running.directory,
            "NAME": running.name,
            "ID": secrets.token_hex(8),
            "TIMEOUT": str(WAIT),
        },
        timeout=WAIT + script.LOOK_TIMEOUT + PROOF,
    )
    nodes = (running.server.node or "?", facts.one("node") or "?")
    seen = liveness.judge(records.state(facts.one("state")), pid=running.server.pid, log=[], nodes=nodes)
    if facts.one("renewed") != "yes":
        return seen, None
    token = jupyter.token(facts.one("token"))
    if token is None:
        raise errors.RemoteFailed("the host did not report the server's new token")
    return seen, token
