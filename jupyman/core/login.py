"""How a supervisor logs in to its host."""

from __future__ import annotations

import threading
from collections.abc import Callable

from jupyman.api import ClientContext
from jupyman.ssh import config as ssh_config
from jupyman.ssh.auth import Credentials, Keyring
from jupyman.ssh.link import Link

CONNECT_TIMEOUT = 10.0
# A background attempt gives TCP less: the kernel asks again after 1, 3 and 7 s, and a network that returns in between
# would be noticed late. Enough for a line over a satellite.
REACH = 1.5

Ask = Callable[[str, str], str]
LogIn = Callable[[str, ClientContext, Keyring, Ask | None, threading.Event | None], Link]


def log_in(
    destination: str, client: ClientContext, keyring: Keyring, ask: Ask | None, cancelled: threading.Event | None
) -> Link:
    """Open a link as the user's SSH configuration says.

    Args:
        destination: what `ssh` would be given.
        client: how to log in.
        keyring: of the daemon.
        ask: the user's terminal; None: nobody is there.
        cancelled: ends the attempt; None: it is one in the background, for which nobody waits.

    Raises:
        JupymanError: as `Link.open`.
    """
    configuration = ssh_config.read(destination, ssh_config=client.ssh_config)
    credentials = Credentials(ssh_auth_sock=client.ssh_auth_sock, ask=ask)
    reach = REACH if cancelled is None else None
    return Link.open(configuration, credentials, keyring, timeout=CONNECT_TIMEOUT, reach=reach, cancelled=cancelled)
