"""Where jupyman keeps things on this computer."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Paths:
    """The three folders: the user's config, our state, and the files of the running daemon."""

    config: Path
    state: Path
    runtime: Path

    @property
    def config_file(self) -> Path:
        """The user's config.toml."""
        return self.config / "config.toml"

    @property
    def state_file(self) -> Path:
        """The wanted sessions and forwards."""
        return self.state / "state.json"

    @property
    def daemon_file(self) -> Path:
        """The file that describes the running daemon."""
        return self.runtime / "daemon.json"

    @property
    def log_file(self) -> Path:
        """The daemon's log."""
        return self.state / "daemon.log"

    def make(self) -> None:
        """Create the folders, 0700.

        Raises:
            OSError: they cannot be made, or exist and belong to another user.
        """
        for folder in (self.config, self.state, self.runtime):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for folder in (self.state, self.runtime):
            status = folder.stat()
            if hasattr(os, "getuid") and status.st_uid != os.getuid():
                raise PermissionError(f"{folder} belongs to uid {status.st_uid}, not to you")
            if os.name == "posix" and status.st_mode & 0o077:
                folder.chmod(0o700)


def find(environ: dict[str, str] | None = None) -> Paths:
    """Find the folders.

    Args:
        environ: the environment; ``JUPYMAN_HOME`` puts all three folders under one.

    Returns:
        The folders; nothing is created.
    """
    env = dict(os.environ) if environ is None else environ
    home = env.get("JUPYMAN_HOME")
    if home:
        base = Path(os.path.expanduser(home)).absolute()  # noqa: PTH111 - Path's own raises for ~nobody
        return Paths(config=base, state=base / "state", runtime=base / "run")
    # platformdirs takes 10 ms to import: only where no JUPYMAN_HOME says it.
    from platformdirs import PlatformDirs

    dirs = PlatformDirs("jupyman", appauthor=False)
    state = Path(dirs.user_state_dir)
    # /run/user/UID vanishes at logout where linger is off, and with it the daemon's address: keep it with the state.
    return Paths(config=Path(dirs.user_config_dir), state=state, runtime=state / "run")
