"""What every launcher does: tests/unit runs these tests with the fake, tests/integration with real servers."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

import msgspec
import pytest

from jupyman import errors
from jupyman.host.servers.base import Launcher, UnmanagedServer
from jupyman.model import LaunchSpec, Running
from jupyman.model.endpoint import Endpoint


@dataclass
class LauncherBed:
    """A launcher, and what a test does behind its back.

    Attributes:
        client: who stops servers, as its records name it.
        spec: a session s1 that can be launched.
        kill: end a process at once.
        by_hand: start a server without jupyman, as it is found then.
    """

    launcher: Launcher
    client: str
    spec: LaunchSpec
    by_hand: Callable[[], AbstractContextManager[UnmanagedServer]]
    kill: Callable[[int], None] = lambda pid: os.kill(pid, signal.SIGKILL)


def with_server(running: Running, **changes: object) -> Running:
    return msgspec.structs.replace(running, server=msgspec.structs.replace(running.server, **changes))


class LauncherContract:
    """Subclasses have a fixture `bed`."""

    def test_a_launched_server_is_found_proven_and_placed(self, bed: LauncherBed) -> None:
        steps: list[str] = []
        places: list[Endpoint] = []
        running = bed.launcher.launch(bed.spec, progress=steps.append, listening=places.append)
        assert steps
        assert running.name == bed.spec.name
        assert not running.server.adopted
        seen = bed.launcher.verify(running)
        assert seen.ok, seen
        assert seen.now(running) == running
        found = bed.launcher.find()
        assert [(one.state, one.running) for one in found.records] == [("alive", running)]
        assert found.servers == []
        where = bed.launcher.where(running)
        assert where is not None
        assert [one.target for one in places] == [where.target]
        assert where.node == found.node

    def test_a_session_that_has_a_server_gets_that_one(self, bed: LauncherBed) -> None:
        running = bed.launcher.launch(bed.spec)
        again = bed.launcher.launch(bed.spec)
        assert again.server.adopted
        assert (again.server.pid, again.start_ticks) == (running.server.pid, running.start_ticks)
        assert bed.launcher.adopt(bed.launcher.find().records[0]) == again

    def test_a_stopped_server_is_dead_and_its_record_names_who_did_it(self, bed: LauncherBed) -> None:
        running = bed.launcher.launch(bed.spec)
        assert bed.launcher.stop(running)
        seen = bed.launcher.verify(running)
        assert seen.dead
        assert seen.code == "server-stopped"
        assert str(seen.stopped_by).endswith(f" {bed.client}")
        [record] = bed.launcher.find().records
        assert not record.alive
        assert record.stopped_by == seen.stopped_by
        assert bed.launcher.stop(running, force=True), "stopping what is gone is no failure"

    def test_a_server_that_was_killed_is_dead_and_replaced(self, bed: LauncherBed) -> None:
        running = bed.launcher.launch(bed.spec)
        bed.kill(running.server.pid)
        seen = bed.launcher.verify(running)
        assert (seen.state, seen.stopped_by) == ("exited", None)
        assert seen.log
        after = bed.launcher.launch(bed.spec)
        assert (after.server.pid, after.server.adopted) != (running.server.pid, True)
        assert bed.launcher.verify(after).ok
        assert bed.launcher.verify(running).dead

    def test_another_process_is_neither_proven_nor_stopped(self, bed: LauncherBed) -> None:
        running = bed.launcher.launch(bed.spec)
        reused = msgspec.structs.replace(running, start_ticks=running.start_ticks + 1)
        rebooted = msgspec.structs.replace(running, boot_id="another")
        for other, state in ((reused, "exited"), (rebooted, "rebooted")):
            assert bed.launcher.verify(other).state == state
            bed.launcher.stop(other, force=True)
            assert bed.launcher.verify(running).ok
        moved = with_server(msgspec.structs.replace(running, sock=None), port=1)
        assert not bed.launcher.verify(moved).ok

    def test_a_new_token_replaces_the_old_one(self, bed: LauncherBed) -> None:
        running = bed.launcher.launch(bed.spec)
        seen, token = bed.launcher.renew(running)
        assert seen.ok
        assert token not in {None, running.token}
        assert bed.launcher.verify(running).now(running).token == token
        assert bed.launcher.find().records[0].running.token == token
        bed.launcher.stop(running)
        seen, token = bed.launcher.renew(running)
        assert seen.dead
        assert token is None

    def test_logs_are_read_and_followed(self, bed: LauncherBed) -> None:
        running = bed.launcher.launch(bed.spec)
        lines: list[str] = []
        bed.launcher.logs(running.name, running.directory, lines=1, follow=False, on_line=lines.append)
        assert len(lines) == 1
        cancelled = threading.Event()
        with pytest.raises(errors.Interrupted):
            bed.launcher.logs(
                running.name, None, lines=1, follow=True, on_line=lambda _: cancelled.set(), cancelled=cancelled
            )
        with pytest.raises(errors.UsageFault):
            bed.launcher.logs("nobody", None, lines=1, follow=False, on_line=lines.append)

    def test_a_server_started_by_hand_is_taken_over(self, bed: LauncherBed) -> None:
        with bed.by_hand() as server:
            assert [one.pid for one in bed.launcher.find().servers] == [server.pid]
            loose = bed.launcher.adopt(server, record=False)
            assert (loose.directory, loose.server.adopted) == ("", True)
            assert bed.launcher.verify(loose).ok
            assert bed.launcher.renew(loose)[1] is None, "its token is in Jupyter's own files"
            running = bed.launcher.adopt(server, name="taken")
            assert bed.launcher.verify(running).ok
            found = bed.launcher.find()
            assert found.servers == []
            assert [(one.name, one.running.token) for one in found.records] == [("taken", server.token)]
            for change in ({"secure": True}, {"token": None}, {"port": None, "sock": None}):
                with pytest.raises(errors.UsageFault):
                    bed.launcher.adopt(type(server)(**{**vars(server), **change}), name="other")
            assert bed.launcher.stop(running)
            assert bed.launcher.verify(running).dead

    def test_a_cancelled_launch_leaves_nothing(self, bed: LauncherBed) -> None:
        cancelled = threading.Event()

        def cancel(step: str) -> None:
            cancelled.set()

        with pytest.raises(errors.Interrupted):
            bed.launcher.launch(bed.spec, progress=cancel, cancelled=cancelled)
        found = bed.launcher.find()
        assert not [one for one in found.records if one.alive]
        assert not found.servers

    def test_what_cannot_be_launched_is_refused(self, bed: LauncherBed) -> None:
        with pytest.raises(errors.UsageFault):
            bed.launcher.launch(msgspec.structs.replace(bed.spec, name="../x"))
        with pytest.raises(errors.PortInUse):
            bed.launcher.launch(msgspec.structs.replace(bed.spec, ports=[], sock=False))
