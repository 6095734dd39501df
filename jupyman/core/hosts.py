"""The hosts of this computer's user: which one a command means, and the supervisor of each."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from pathlib import Path

from jupyman import config as configuration
from jupyman import errors
from jupyman.api import ClientContext
from jupyman.core.awake import Awake
from jupyman.core.supervisor import Supervisor
from jupyman.ssh.auth import Keyring


class Hosts:
    """Knows config.toml (read anew when it changes) and owns one supervisor per host.

    Args:
        config_file: the user's config.toml; it may be absent.
        on_up: called in a thread of its own whenever a host's link came up.
        on_down: called at once whenever it went away; must not wait.
    """

    def __init__(
        self, config_file: Path, on_up: Callable[[Supervisor], None], on_down: Callable[[Supervisor], None]
    ) -> None:
        self._file = config_file
        self._on_up = on_up
        self._on_down = on_down
        self._keyring = Keyring()
        self._lock = threading.Lock()
        self._supervisors: dict[str, Supervisor] = {}
        self._stamp: tuple[int, int] | None = None
        self._config: configuration.Config | None = None
        self.awake = Awake(lambda: self.all().values())

    @property
    def config(self) -> configuration.Config:
        """The configuration as it is on disk now.

        Raises:
            ConfigFault: it cannot be read.
        """
        try:
            status = self._file.stat()
            stamp = (status.st_mtime_ns, status.st_size)
        except OSError:
            stamp = (0, 0)
        with self._lock:
            if self._config is None or stamp != self._stamp:
                self._config = configuration.load(self._file)
                self._stamp = stamp
            return self._config

    def entry(self, host: str) -> configuration.HostEntry:
        """Return the `[hosts.NAME]` table of a host; an empty one where there is none."""
        return self.config.hosts.get(host, configuration.HostEntry())

    def share(self, host: str) -> bool:
        """Tell whether a host's sessions take connections of other users of this computer, as config.toml says now."""
        entry, defaults = self.entry(host), self.config.defaults
        return bool(defaults.share if entry.share is None else entry.share)

    def resolve(self, host: str | None, busy: Iterable[str], known: Iterable[str]) -> str:
        """Find the host that a command means.

        Args:
            host: what the user said; None: left out.
            busy: hosts with a live session.
            known: hosts of all sessions and forwards.

        Returns:
            The host's name.

        Raises:
            UsageFault: left out, and more or less than one is possible.
        """
        if host is not None:
            return host
        config = self.config
        if config.default_host:
            return config.default_host
        for candidates in (sorted(set(busy)), sorted({*known, *config.hosts})):
            if len(candidates) == 1:
                return candidates[0]
            if candidates:
                raise errors.UsageFault(
                    f"which host? jupyman knows {', '.join(candidates)}",
                    'name one, or set default_host = "NAME" in config.toml',
                )
        raise errors.UsageFault(
            "no host was named and none is known yet", "name one as you would for ssh: jupyman up server1"
        )

    def supervisor(self, host: str, client: ClientContext) -> Supervisor:
        """Return the host's supervisor, made on first use.

        Args:
            host: its name.
            client: how to log in; the newest wins, because a daemon of weeks has an old environment.
        """
        config = self.config
        if client.ssh_config is None and config.ssh_config is not None:
            client = ClientContext(
                ssh_auth_sock=client.ssh_auth_sock, ssh_config=config.ssh_config, interactive=client.interactive
            )
        entry = self.entry(host)
        destination = entry.ssh or host
        with self._lock:
            found = self._supervisors.get(host)
            if found is None:
                found = Supervisor(host, destination, self._keyring, self._on_up, self._on_down, client, entry.engine)
                self._supervisors[host] = found
        found.client = client
        found.destination = destination
        return found

    def known(self, host: str) -> Supervisor | None:
        """Return the host's supervisor where one was made."""
        with self._lock:
            return self._supervisors.get(host)

    def all(self) -> dict[str, Supervisor]:
        """Return every supervisor by host."""
        with self._lock:
            return dict(self._supervisors)

    def close(self) -> None:
        """End every link."""
        for supervisor in self.all().values():
            supervisor.close()
