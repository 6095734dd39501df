"""Another token for a server that runs on."""

from __future__ import annotations

import secrets

from jupyman import errors, remote
from jupyman.host.servers import liveness, nohup
from jupyman.host.servers.base import Liveness
from jupyman.host.servers.records import state
from jupyman.host.shell import script
from jupyman.host.shell.script import Shell
from jupyman.model import Running
from jupyman.tools.jupyter import server as jupyter

WAIT = 60  # seconds that it waits for a launch under way
PROOF = 60.0  # seconds for the server to answer with the new token and with the old one (renew.sh)


def renew(shell: Shell, running: Running) -> tuple[Liveness, str | None]:
    """Give a server another token, without a restart: the old one, and the cookies it gave, open nothing any more.

    Args:
        shell: the host.
        running: the server.

    Returns:
        What was seen of the server, as `verify`; and the new token, proven on the host. None: nothing was changed, as
        the server is not there any more (see the first), or cannot (the user or an older jupyman started it).

    Raises:
        RemoteFailed: disk full, no permission, or the server did not answer; it has its old token then.
        NotOurs: a file or directory on the way belongs to another user.
        LinkLost: as `script.run`; whether it was changed is for `verify` to say.
    """
    if not running.directory or running.endpoint is None:
        return liveness.judge("alive", pid=running.server.pid, log=[]), None
    try:
        facts = script.run(
            shell,
            "servers/renew",
            {
                "SERVER": remote.script("lib/server"),
                "LOCK": remote.script("lib/lock"),
                "CHECK": remote.program("servers/server_check"),
                **nohup.identity(running),
                "ENDPOINT": running.sock or str(running.server.port),
                "DIRECTORY": running.directory,
                "NAME": running.name,
                "ID": secrets.token_hex(8),
                "TIMEOUT": str(WAIT),
            },
            timeout=WAIT + nohup.LOOK_TIMEOUT + PROOF,
        )
    except errors.JupymanError as error:
        error.details.pop("facts", None)
        raise
    nodes = (running.server.node or "?", facts.one("node") or "?")
    seen = liveness.judge(state(facts.one("state")), pid=running.server.pid, log=[], nodes=nodes)
    if facts.one("renewed") != "yes":
        return seen, None
    token = jupyter.token(facts.one("token"))
    if token is None:
        raise errors.RemoteFailed("the host did not say which token the server has now")
    return seen, token
