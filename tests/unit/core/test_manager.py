"""Every request that a client can make is served."""

from __future__ import annotations

import typing
from pathlib import Path

from jupyman import api
from jupyman.core.manager import Manager
from jupyman.core.verbs import env
from jupyman.paths import Paths


def test_each_request_has_somebody_who_does_it(tmp_path: Path) -> None:
    paths = Paths(tmp_path / "config", tmp_path / "state", tmp_path / "run")
    paths.make()
    manager = Manager(paths)
    of_the_daemon_itself = {api.DaemonStatus, api.DaemonStop}
    assert set(manager._handlers) == set(typing.get_args(api.AnyRequest)) - of_the_daemon_itself
    about_environments = {kind for kind, how in manager._handlers.items() if how == manager._env}
    assert about_environments == set(env.VERBS)
