"""The hosts of this computer's user: their configuration, and the supervisor of each.

`_lock` guards the dictionaries and the configuration that was read; it is never held during a network wait.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable
from pathlib import Path

import msgspec

from jupyman import config as configuration
from jupyman import errors
from jupyman.api import ClientContext
from jupyman.core.links.supervisor import Supervisor
from jupyman.core.links.wakeups import WakeupWatcher
from jupyman.host import servers
from jupyman.host.servers.base import LauncherFactory
from jupyman.model import LinkStatus
from jupyman.ssh.link import Link
from jupyman.ssh.login.auth import Keyring


class Hosts:
    """Reads config.toml (again whenever it changes) and owns one supervisor per host.

    A changed `ssh` or `ssh_config` takes effect at the next login, also in the background (`refresh`); a link that is
    up is kept. A changed `engine` takes effect in the next daemon, because the listeners belong to the engine. `later`
    lists such changes for the user.

    Args:
        config_file: the user's config.toml; it may be absent.
        on_up: called whenever a host's link came up; must not wait.
        on_down: called whenever it went away; must not wait.
        on_change: called whenever a link's status may have changed; must not wait.
    """

    def __init__(
        self,
        config_file: Path,
        on_up: Callable[[Supervisor], None],
        on_down: Callable[[Supervisor], None],
        on_change: Callable[[Supervisor], None] | None = None,
    ) -> None:
        self._file = config_file
        self._on_up = on_up
        self._on_down = on_down
        self._on_change = on_change
        self._keyring = Keyring()
        self._lock = threading.Lock()
        self._supervisors: dict[str, Supervisor] = {}
        # All by host: how the last request would log in, the engine in use, and the destination of a link that was
        # made before `ssh` was changed.
        self._clients: dict[str, ClientContext] = {}
        self._engines: dict[str, str] = {}
        self._old: dict[str, tuple[Link, str]] = {}
        self._refreshed: configuration.Config | None = None
        self._stamp: tuple[int, int] | None = None
        self._config: configuration.Config | None = None
        self.awake = WakeupWatcher(lambda: self.all().values())

    @property
    def config(self) -> configuration.Config:
        """The configuration as it is on disk now.

        Raises:
            ConfigFault: the file cannot be read.
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

    @property
    def ssh_config(self) -> str | None:
        """The `ssh_config` of config.toml; a relative path starts in config.toml's folder."""
        named = self.config.ssh_config
        if named is None or named == "none":  # as in `ssh -F none`
            return named
        return str(self._file.parent / os.path.expanduser(named))  # noqa: PTH111 - Path's own raises for ~nobody

    def entry(self, host: str) -> configuration.HostEntry:
        """Return the `[hosts.NAME]` table of a host; an empty one if there is none."""
        return self.config.hosts.get(host, configuration.HostEntry())

    def share(self, host: str) -> bool:
        """Whether a host's sessions accept connections of other users of this computer, by config.toml."""
        entry, defaults = self.entry(host), self.config.defaults
        return bool(defaults.share if entry.share is None else entry.share)

    def debugger(self, host: str) -> bool | None:
        """Whether JupyterLab's debugger is wanted on a host; None: only if nobody else has an account there."""
        entry, defaults = self.entry(host), self.config.defaults
        return defaults.debugger if entry.debugger is None else entry.debugger

    def resolve(self, host: str | None, busy: Iterable[str], known: Iterable[str]) -> str:
        """Return the host that is named, else the default host, else the only busy one, else the only known one.

        Args:
            host: what the user said; None: nothing.
            busy: hosts with a running session.
            known: hosts of all sessions and forwards.

        Raises:
            UsageFault: nothing was said, and there is not exactly one candidate.
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
        """Return the host's supervisor; it is made on first use.

        Args:
            host: its name.
            client: how to log in; the newest wins, because the environment of a long-running daemon is old.
        """
        engine = self.entry(host).engine
        destination, complete = self._destination(host, client)
        with self._lock:
            found = self._supervisors.get(host)
            if found is None:
                found = Supervisor(
                    host,
                    destination,
                    self._keyring,
                    self._on_up,
                    self._on_down,
                    complete,
                    engine,
                    on_change=self._on_change,
                )
                self._supervisors[host] = found
                self._engines[host] = engine
            self._clients[host] = client
        self._redirect(found, destination)
        found.client = complete
        return found

    def refresh(self) -> None:
        """Have the next logins use config.toml if it has changed; hosts that wait for one try at once.

        A file that cannot be read changes nothing: it may be being edited.
        """
        try:
            config = self.config
        except errors.JupymanError:
            return
        if config is self._refreshed:
            return
        self._refreshed = config
        for host, supervisor in self.all().items():
            destination, client = self._destination(host, self._clients[host])
            if (destination, client.ssh_config) == (supervisor.destination, supervisor.client.ssh_config):
                continue
            self._redirect(supervisor, destination)
            if supervisor.status.state == "reconnecting":
                supervisor.nudge(client)
            else:
                supervisor.client = client

    def later(self, host: str) -> list[str]:
        """Return the changes of config.toml that have no effect yet on a host that is in use, as text."""
        entry = self.entry(host)
        found = []
        with self._lock:
            engine, old, supervisor = self._engines.get(host), self._old.get(host), self._supervisors.get(host)
        if engine is not None and engine != entry.engine:
            found.append(f'engine = "{entry.engine}" takes effect when the daemon restarts (jupyman daemon restart)')
        if supervisor is not None and old is not None and old[0] is supervisor.link and old[1] != (entry.ssh or host):
            text = f"the link was made before ssh was changed and leads to {old[1]}; the next one leads to"
            found.append(f"{text} {entry.ssh or host} (for it now: jupyman daemon restart)")
        return found

    def _destination(self, host: str, client: ClientContext) -> tuple[str, ClientContext]:
        """Return the argument of `ssh` for a host, and how to log in there."""
        if client.ssh_config is None:
            client = msgspec.structs.replace(client, ssh_config=self.ssh_config)
        return self.entry(host).ssh or host, client

    def _redirect(self, supervisor: Supervisor, destination: str) -> None:
        """Have the next login of a host go to `destination`."""
        link = supervisor.link
        with self._lock:
            known = self._old.get(supervisor.name)
            if link is None:
                self._old.pop(supervisor.name, None)
            elif destination != supervisor.destination and (known is None or known[0] is not link):
                self._old[supervisor.name] = (link, supervisor.destination)
            supervisor.destination = destination

    def known(self, host: str) -> Supervisor | None:
        """Return the host's supervisor; None if it was never used."""
        with self._lock:
            return self._supervisors.get(host)

    def status(self, host: str) -> LinkStatus:
        """Return the state of a host's link; idle when none was ever made."""
        supervisor = self.known(host)
        return supervisor.status if supervisor is not None else LinkStatus()

    def launcher(self, host: str) -> LauncherFactory:
        """Return what makes the launcher of a host's sessions from a shell there, as config.toml says."""
        return servers.choose(self.entry(host).launcher)

    def all(self) -> dict[str, Supervisor]:
        """Return every supervisor by host."""
        with self._lock:
            return dict(self._supervisors)

    def close(self) -> None:
        """End every link."""
        for supervisor in self.all().values():
            supervisor.close()
