"""How a supervisor opens its link; every failure is raised as one of our errors."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from jupyman import errors
from jupyman.api import ClientContext
from jupyman.ssh.config import ssh_g as ssh_config
from jupyman.ssh.link import Link
from jupyman.ssh.login.auth import Credentials, Keyring
from jupyman.ssh.wire.compat import printable

log = logging.getLogger(__name__)

CONNECT_TIMEOUT = 10.0
# TCP gets less in a background attempt: the kernel retransmits after 1, 3 and 7 s, and a network that returns in
# between would be noticed late. It is enough for a satellite link.
REACH = 1.5

Ask = Callable[[str, str], str]
LogIn = Callable[[str, ClientContext, Keyring, Ask | None, threading.Event | None], Link]


def log_in(
    destination: str, client: ClientContext, keyring: Keyring, ask: Ask | None, cancelled: threading.Event | None
) -> Link:
    """Open a link according to the user's SSH configuration.

    Args:
        destination: what `ssh` would be given.
        client: how to log in.
        keyring: of the daemon.
        ask: the user's terminal; None: there is none.
        cancelled: ends the attempt; None: it is one in the background, for which no user waits.

    Raises:
        JupymanError: as `Link.open`.
    """
    configuration = ssh_config.read(destination, ssh_config=client.ssh_config)
    credentials = Credentials(ssh_auth_sock=client.ssh_auth_sock, ask=ask)
    reach = REACH if cancelled is None else None
    return Link.open(configuration, credentials, keyring, timeout=CONNECT_TIMEOUT, reach=reach, cancelled=cancelled)


def named(login: LogIn, name: str) -> LogIn:
    """Return a login that raises our errors only: any other exception would end the attempts for ever.

    Args:
        login: opens a link.
        name: of the host, for messages.
    """
    last = ""

    def attempt(
        destination: str, client: ClientContext, keyring: Keyring, ask: Ask | None, cancelled: threading.Event | None
    ) -> Link:
        nonlocal last
        try:
            return login(destination, client, keyring, ask, cancelled)
        except errors.JupymanError:
            raise
        except Exception as error:
            # Its cause is not known: the host, this computer, or a bug of ours.
            text = printable(f"{type(error).__name__}: {error}")
            if text != last:  # once, not for each of many attempts
                last = text
                log.warning("%s: a login failed unexpectedly", name, exc_info=error)
            raise errors.HostUnreachable(
                f"{name}: the login failed unexpectedly: {text}", "try again; jupyman daemon logs shows the traceback"
            ) from error

    return attempt
