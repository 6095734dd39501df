"""Every key of config.toml does something: the list of keys is that of the structs, so a new one needs a test here."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import msgspec
import pytest

from jupyman import api, config, errors
from jupyman.core.manager import Manager
from jupyman.core.sessions.registry import SessionRuntime
from jupyman.core.sessions.state import Absent
from jupyman.core.sessions.store import State
from jupyman.core.verbs import up_queue
from jupyman.core.verbs.host_call import VerbCall
from jupyman.model import ServerState, SessionSpec
from jupyman.ssh.forward.sshtunnel_engine import TunnelForwarder
from jupyman.tools.install import mirrors
from jupyman.tools.install import plan as recipe
from tests.bed.wait import wait_until
from tests.unit.core import known, offline
from tests.unit.core.offline import CLIENT, Quiet
from tests.unit.tools.test_install_plan import OWN, means, wish


@dataclass
class Desk:
    """A manager, and the config.toml that it reads."""

    manager: Manager
    file: Path
    logins: list[tuple[str, str | None]]  # destination and ssh_config of each

    def write(self, text: str) -> None:
        """Replace the file; its size differs each time, because two writes may fall into one tick of its clock."""
        self.file.write_text(f"{text}\n#{'.' * len(self.file.read_bytes() if self.file.exists() else b'')}\n")

    def wish(self, text: str | None = None, *, interactive: bool = False, **said: Any) -> SessionSpec:
        if text is not None:
            self.write(text)
        operation = Quiet(api.ClientContext(interactive=interactive))
        call = VerbCall(operation, self.manager.hosts, self.manager.sessions)
        return up_queue.wanted(api.Up(**{"host": "h", **said}), call)

    def keep(self, spec: SessionSpec, state: ServerState = "running") -> SessionRuntime:
        """Let a session with that spec exist."""
        return known.put(self.manager.sessions, spec, state)

    def change(self, session: SessionRuntime, spec: SessionSpec) -> None:
        """Let an `up` have changed its spec."""
        known.rewish(self.manager.sessions, session, spec)


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    logins: list[tuple[str, str | None]] = []

    def login(destination: str, client: api.ClientContext, *_: Any) -> Any:
        logins.append((destination, client.ssh_config))
        raise errors.HostUnreachable("no host in this test")

    paths = offline.folders(tmp_path)
    with offline.managing(paths, login) as make:
        yield Desk(make(), paths.config_file, logins)


# --- the keys -----------------------------------------------------------------------------------------------------


def keys(shape: type[msgspec.Struct], table: str) -> list[str]:
    """Return the keys of a table; those that are tables themselves are told by their own."""
    found = []
    for one in msgspec.structs.fields(shape):
        parts = (one.type, *get_args(one.type))
        if not any(isinstance(part, type) and issubclass(part, config.Table) for part in parts):
            found.append(table + one.name)
    return found


KEYS = [
    *keys(config.Config, ""),
    *keys(config.Defaults, "defaults."),
    *keys(config.HostEntry, "hosts.NAME."),
    *keys(config.MirrorEntry, "mirrors.NAME."),
]
Show = Callable[[Desk], None]
SHOWS: dict[str, Show] = {}


def shows(*names: str) -> Callable[[Show], Show]:
    """Note what shows that these keys do something."""

    def note(show: Show) -> Show:
        SHOWS.update(dict.fromkeys(names, show))
        return show

    return note


def of_a_session(key: str, value: Any, other: Any, usual: Any) -> None:
    """Note that a key makes part of a session's wish: after the command line; the host's table before the defaults.

    Args:
        key: of both tables, the wish and the request.
        value, other: two values.
        usual: what it is when nobody says anything.
    """

    def show(desk: Desk) -> None:
        said, default = f"{key} = {json.dumps(value)}", f"{key} = {json.dumps(other)}"
        assert getattr(desk.wish(""), key) == usual
        assert getattr(desk.wish(f"[defaults]\n{said}"), key) == value
        assert getattr(desk.wish(f"[hosts.h]\n{said}"), key) == value
        assert getattr(desk.wish(f"[hosts.other]\n{said}"), key) == usual
        assert getattr(desk.wish(f"[defaults]\n{default}\n[hosts.h]\n{said}"), key) == value
        assert getattr(desk.wish(f"[defaults]\n{said}\n[hosts.h]\n{said}", **{key: other}), key) == other

    shows(f"defaults.{key}", f"hosts.NAME.{key}")(show)


of_a_session("env", "torch", "other", None)
of_a_session("dir", "~/work", "/srv", None)
of_a_session("app", "notebook", "server", "lab")
of_a_session("gpu", "free:20G", "0", None)
of_a_session("port", 9000, 9001, None)
of_a_session("on_conflict", "fail", "kill", "next")
of_a_session("restart", "always", "never", "never")


@shows("hosts.NAME.local_port")
def local_port(desk: Desk) -> None:
    assert desk.wish("").local_port is None
    assert desk.wish("[hosts.h]\nlocal_port = 9001").local_port == 9001
    assert desk.wish(local_port=9002).local_port == 9002


@shows("defaults.share", "hosts.NAME.share")
def share(desk: Desk) -> None:
    for text, shared in (
        ("", False),
        ("[defaults]\nshare = true", True),
        ("[hosts.h]\nshare = true", True),
        ("[hosts.other]\nshare = true", False),
        ("[defaults]\nshare = true\n[hosts.h]\nshare = false", False),
    ):
        desk.write(text)
        assert desk.manager.hosts.share("h") is shared  # what it opens: test_strangers.py


@shows("defaults.debugger", "hosts.NAME.debugger")
def debugger(desk: Desk) -> None:
    for text, wanted in (
        ("", None),
        ("[defaults]\ndebugger = true", True),
        ("[hosts.h]\ndebugger = false", False),
        ("[hosts.other]\ndebugger = true", None),
        ("[defaults]\ndebugger = true\n[hosts.h]\ndebugger = false", False),
    ):
        desk.write(text)
        assert desk.manager.hosts.debugger("h") is wanted  # what it does: test_debugger.py


@shows("default_host")
def default_host(desk: Desk) -> None:
    with pytest.raises(errors.UsageFault, match="no host was named"):
        desk.wish("", host=None)
    assert desk.wish('default_host = "h"\n[hosts.a]\n[hosts.b]', host=None).host == "h"


def failed_login(desk: Desk, client: api.ClientContext = CLIENT) -> tuple[str, str | None]:
    with pytest.raises(errors.HostUnreachable):
        desk.manager.handle(api.Check(host="h"), Quiet(client))
    return desk.logins[-1]


@shows("ssh_config")
def ssh_config(desk: Desk) -> None:
    assert failed_login(desk) == ("h", None)
    for written, read in (
        ("/etc/mine", "/etc/mine"),
        ("ssh/mine", str(desk.file.parent / "ssh/mine")),
        ("~/mine", str(Path.home() / "mine")),
        ("none", "none"),
    ):
        desk.write(f'ssh_config = "{written}"')
        assert failed_login(desk) == ("h", read)
    assert failed_login(desk, api.ClientContext(ssh_config="/said")) == ("h", "/said")
    (desk.file.parent / "names").write_text("Host first second\nHost *.no\n")
    desk.write('ssh_config = "names"')
    listed = desk.manager.handle(api.HostLs(), Quiet())
    assert [one.name for one in listed.hosts] == ["first", "second"]


@shows("hosts.NAME.ssh")
def ssh(desk: Desk) -> None:
    assert failed_login(desk)[0] == "h"
    desk.write('[hosts.h]\nssh = "alice@10.0.0.7:2222"')
    assert failed_login(desk)[0] == "alice@10.0.0.7:2222"


@shows("hosts.NAME.engine")
def engine(desk: Desk) -> None:
    desk.write('[hosts.h]\nengine = "sshtunnel"')
    carried = desk.manager.hosts.supervisor("h", CLIENT)
    assert isinstance(carried.forwarder, TunnelForwarder)
    assert not carried.sockets
    assert not isinstance(desk.manager.hosts.supervisor("other", CLIENT).forwarder, TunnelForwarder)


@shows("hosts.NAME.launcher", "hosts.NAME.slurm")
def slurm(desk: Desk) -> None:
    for text in ('launcher = "slurm"', 'slurm = { partition = "gpu" }', "slurm = {}", 'launcher = "slurm"\nslurm = {}'):
        desk.write(f'default_host = "h"\n[hosts.h]\n{text}')
        for request in (api.Up(host="h"), api.Up(host="h", name="n"), api.Up()):
            with pytest.raises(errors.ConfigFault, match=r"^\[hosts.h\] .*nothing was started") as refused:
                desk.manager.handle(request, Quiet())
            assert "not in this version" in refused.value.hint
            assert refused.value.status == 2
    desk.write('[hosts.h]\nssh = "me@login"\nlauncher = "slurm"')
    with pytest.raises(errors.ConfigFault, match=r"^\[hosts.h\]"):
        desk.manager.handle(api.Up(host="me@login"), Quiet())
    assert desk.logins == []
    assert desk.manager.sessions.all() == []
    desk.write('[hosts.h]\nlauncher = "nohup"\n[hosts.other]\nlauncher = "slurm"')
    with pytest.raises(errors.HostUnreachable):
        desk.manager.handle(api.Up(host="h"), Quiet())


@shows("mirrors.NAME.conda", "mirrors.NAME.pip", "mirrors.NAME.torch")
def mirror(desk: Desk) -> None:
    addresses = {"conda": "https://a.example/conda", "pip": "https://b.example/pypi", "torch": "https://c.example/whl"}
    desk.write("[mirrors.lab]\n" + "\n".join(f'{key} = "{value}"' for key, value in addresses.items()))
    found = mirrors.find("lab", desk.manager.hosts.config.mirrors)
    asked, there = wish(packages=["pip:einops"], torch="2.5.1"), means(OWN, driver="550.54.15", cap="8.0")
    for used in (None, found):
        commands = " ".join(step.shown for step in recipe.plan(asked, there, used).steps)
        assert [address in commands for address in addresses.values()] == [used is not None] * 3


# --- … and each has one -------------------------------------------------------------------------------------------


def test_the_list_of_keys_is_the_files() -> None:
    assert len(KEYS) == 28
    assert {"default_host", "defaults.env", "hosts.NAME.slurm", "mirrors.NAME.torch"} <= set(KEYS)


@pytest.mark.parametrize("key", KEYS)
def test_every_key_does_something(desk: Desk, key: str) -> None:
    assert key in SHOWS, f"{key} needs a function above that shows what it does"
    SHOWS[key](desk)


def test_every_key_is_in_the_documentation() -> None:
    text = (Path(config.__file__).parent.parent / "docs" / "configuration.md").read_text(encoding="utf-8")
    assert [key for key in KEYS if f"`{key.rpartition('.')[2]}`" not in text] == []


def test_nothing_is_shown_of_a_key_that_is_not_there() -> None:
    assert set(SHOWS) <= set(KEYS)


# --- what is stored, and what is changed while the daemon runs ----------------------------------------------------


@pytest.mark.parametrize(
    ("key", "first", "second"), [("env", "a", "b"), ("app", "lab", "server"), ("port", 9000, 9001)]
)
def test_a_changed_key_counts_for_the_next_server(desk: Desk, key: str, first: Any, second: Any) -> None:
    session = desk.keep(desk.wish(f"[hosts.h]\n{key} = {json.dumps(first)}"))
    assert getattr(desk.wish(f"[hosts.h]\n{key} = {json.dumps(second)}"), key) == first, "the one that runs has it"
    desk.manager.sessions.apply(session, Absent(problem=known.ENDED, at=0.0, restartable=False))
    assert getattr(desk.wish(), key) == second
    # What the user said once stays said, whatever config.toml says later.
    desk.change(session, desk.wish(**{key: first}))
    assert getattr(desk.wish(), key) == first


def test_restart_counts_at_the_next_up_and_what_was_said_stays(desk: Desk) -> None:
    session = desk.keep(desk.wish(""))
    seen = [session.current.spec.restart]
    for text in ('[hosts.h]\nrestart = "always"', ""):
        desk.change(session, desk.wish(text))
        seen.append(session.current.spec.restart)
    assert seen == ["never", "always", "never"]
    desk.change(session, desk.wish(restart="never"))
    assert desk.wish('[hosts.h]\nrestart = "always"').restart == "never"


def test_a_session_of_0_1_0_keeps_what_it_has(desk: Desk) -> None:
    stored = b'{"version": 1, "sessions": {"h": {"name": "h", "host": "h", "env": "a", "restart": "always"}}}'
    old = msgspec.json.decode(stored, type=State).sessions["h"]
    desk.keep(old, "exited")
    kept = desk.wish('[hosts.h]\nenv = "b"\ndir = "~/w"\nrestart = "never"')
    assert (kept.env, kept.restart, kept.dir) == ("a", "always", "~/w")


@pytest.mark.parametrize("interactive", [True, False])
def test_a_terminal_is_asked_about_a_taken_port_unless_config_toml_says(desk: Desk, interactive: bool) -> None:
    """Also where the user leaves out the host, or names the session instead."""
    assert desk.wish("", interactive=interactive).on_conflict == ("ask" if interactive else "next")
    text = '[hosts.h]\non_conflict = "fail"'
    assert desk.wish(text, host=None, interactive=interactive).on_conflict == "fail", "the only host that is known"
    desk.keep(desk.wish(name="mine"))
    assert desk.wish(host="mine", interactive=interactive).on_conflict == "fail"


def test_a_changed_address_counts_for_the_login_in_the_background(desk: Desk) -> None:
    hosts = desk.manager.hosts
    desk.write('ssh_config = "/a"')
    hosts.supervisor("h", CLIENT).want(wanted=True)
    wait_until(lambda: desk.logins == [("h", "/a")], what="the first attempt")
    desk.write('ssh_config = "/a"\n[hosts.h]\nssh = "new"')
    hosts.refresh()
    wait_until(lambda: ("new", "/a") in desk.logins, what="an attempt at the new address, now")
    desk.write('ssh_config = "/b"\n[hosts.h]\nssh = "new"')
    hosts.refresh()
    wait_until(lambda: ("new", "/b") in desk.logins, what="an attempt with the new file, now")
    desk.write("broken")
    hosts.refresh()
    desk.write('ssh_config = "/c"')
    hosts.refresh()
    wait_until(lambda: ("h", "/c") in desk.logins, what="an attempt after the file was mended")


def test_what_was_changed_under_a_link_that_is_up_is_said(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    from jupyman.core.links.supervisor import Supervisor

    hosts = desk.manager.hosts
    links: list[Any] = [object()]
    made = hosts.supervisor("h", CLIENT)
    assert hosts.later("h") == []
    monkeypatch.setattr(Supervisor, "link", property(lambda self: links[0]))
    desk.write('[hosts.h]\nssh = "new"\nengine = "sshtunnel"')
    hosts.supervisor("h", CLIENT)
    assert made.destination == "new"
    engine, address = hosts.later("h")
    assert 'engine = "sshtunnel" takes effect when the daemon restarts' in engine
    assert "leads to h; the next one leads to new" in address
    desk.write('[hosts.h]\nssh = "newer"')
    hosts.refresh()
    [address] = hosts.later("h")
    assert "leads to h; the next one leads to newer" in address
    desk.write("")
    hosts.supervisor("h", CLIENT)
    assert hosts.later("h") == [], "it is as it was"
    desk.write('[hosts.h]\nssh = "new"')
    hosts.supervisor("h", CLIENT)
    assert len(hosts.later("h")) == 1
    links[0] = object()
    assert hosts.later("h") == [], "the next link has come"
