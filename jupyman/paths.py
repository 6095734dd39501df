"""Where jupyman keeps things on this computer."""

from __future__ import annotations

import os
import stat
import sys
from dataclasses import dataclass
from pathlib import Path


def own_uid() -> int:
    """Return the uid of this user's files; 0 on Windows, where every file has that."""
    if sys.platform == "win32":
        return 0
    return os.getuid()


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
            OSError: they cannot be created, or belong to another user.
        """
        for folder in (self.config, self.state, self.runtime):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            if sys.platform == "win32":
                continue
            # The config folder may be root's, for instance /tmp as JUPYMAN_HOME.
            trusted, closed = {own_uid()}, 0o077
            if folder == self.config:
                sticky = folder.stat().st_mode & stat.S_ISVTX
                trusted, closed = {own_uid(), 0}, 0 if sticky else 0o002
            for status in (folder.lstat(), folder.stat()):  # a link must be ours too
                if status.st_uid not in trusted:
                    raise PermissionError(f"{folder} belongs to uid {status.st_uid}, not to you")
            if status.st_mode & closed and status.st_uid == own_uid():
                folder.chmod(stat.S_IMODE(status.st_mode) & ~closed)


def find(environ: dict[str, str] | None = None) -> Paths:
    """Find the folders.

    Args:
        environ: the environment variables; ``JUPYMAN_HOME`` puts all three folders under one.

    Returns:
        The folders; nothing is created.
    """
    env = dict(os.environ) if environ is None else environ
    home = env.get("JUPYMAN_HOME")
    if home:
        base = Path(os.path.expanduser(home)).absolute()  # noqa: PTH111 - Path's own raises for ~nobody
        return Paths(config=base, state=base / "state", runtime=base / "run")
    # platformdirs takes 10 ms to import, so only without JUPYMAN_HOME.
    from platformdirs import PlatformDirs

    dirs = PlatformDirs("jupyman", appauthor=False)
    state = Path(dirs.user_state_dir)
    # Without linger /run/user/UID is deleted at logout, and the daemon's address with it: keep it with the state.
    return Paths(config=Path(dirs.user_config_dir), state=state, runtime=state / "run")
