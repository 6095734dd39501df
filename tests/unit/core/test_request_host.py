"""Which host, and which session, a request means; and the questions of a verb."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from jupyman import api, errors
from jupyman.core.manager import Manager
from jupyman.core.verbs import request_host
from jupyman.core.verbs.host_call import HostCall, VerbCall
from jupyman.model import SessionSpec, TunnelSpec
from tests.unit.core import known, offline
from tests.unit.core.offline import Quiet


class Person(Quiet):
    """A client at a terminal, who gives one answer to everything."""

    def __init__(self, answer: str) -> None:
        super().__init__(api.ClientContext(interactive=True))
        self.answer = answer
        self.prompts: list[api.Prompt] = []

    def ask(self, prompt: api.Prompt, timeout: float = 300.0) -> str:
        self.prompts.append(prompt)
        return self.answer


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    with offline.managing(offline.folders(tmp_path)) as make:
        yield make()


def call(manager: Manager, operation: Quiet | None = None) -> VerbCall:
    """Return a call of a client that reads no SSH config."""
    client = api.ClientContext(ssh_config="none")
    return VerbCall(operation or Quiet(client), manager.hosts, manager.sessions)


def sessions(manager: Manager, **hosts: str) -> None:
    """Make sessions, each on its host."""
    for name, host in hosts.items():
        manager.sessions.enter(SessionSpec(name=name, host=host))


def meant(manager: Manager, request: api.AnyRequest) -> str:
    return request_host.of_request(request, call(manager))[1]


def configure(manager: Manager, text: str) -> None:
    manager.hosts._file.write_text(text)


def test_a_host_that_is_named_is_taken(manager: Manager) -> None:
    assert meant(manager, api.Check(host="lab1")) == "lab1"


def test_the_default_host_comes_before_the_only_one(manager: Manager) -> None:
    sessions(manager, mine="lab1")
    assert meant(manager, api.Check()) == "lab1"
    configure(manager, 'default_host = "lab2"\n')
    assert meant(manager, api.Check()) == "lab2"


def test_a_host_with_a_running_session_comes_before_others(manager: Manager) -> None:
    sessions(manager, mine="lab1")
    known.put(manager.sessions, SessionSpec(name="idle", host="lab2"))
    with pytest.raises(errors.UsageFault, match="lab1, lab2"):
        meant(manager, api.Check())
    known.put(manager.sessions, SessionSpec(name="other", host="lab2"), "running")
    assert meant(manager, api.Check()) == "lab2"


def test_a_forward_is_closed_where_it_is(manager: Manager) -> None:
    for host, port in (("lab1", 6006), ("lab2", 7007)):
        spec = TunnelSpec(host=host, local_port=port, address="127.0.0.1", port=port)
        manager.sessions.keep_forward(spec, None)
    assert meant(manager, api.Tunnel(specs=["7007"], close=True)) == "lab2"
    with pytest.raises(errors.UsageFault, match="which host"):
        meant(manager, api.Tunnel(specs=["7007"]))


def test_one_word_after_kernel_check_is_a_kernel_or_a_host(manager: Manager) -> None:
    configure(manager, "[hosts.lab1]\n")
    request, host = request_host.of_request(api.KernelCheck(name="lab1"), call(manager))
    assert (request, host) == (api.KernelCheck(name="lab1", host="lab1"), "lab1")
    request, host = request_host.of_request(api.KernelCheck(name="torch"), call(manager))
    assert (request, host) == (api.KernelCheck(name="torch"), "lab1")


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        (api.Up(host="lab1"), ("lab1", "mine")),  # the only session there
        (api.Up(host="mine"), ("lab1", "mine")),  # by the session's name
        (api.Up(name="mine"), ("lab1", "mine")),
        (api.Up(host="lab1", name="second"), ("lab1", "second")),
        (api.Up(host="alice@10.0.0.7:2222"), ("alice@10.0.0.7:2222", "10.0.0.7")),
        (api.Up(host="lab3"), ("lab3", "lab3")),
    ],
)
def test_up_means_a_session(manager: Manager, request_: api.Up, expected: tuple[str, str]) -> None:
    sessions(manager, mine="lab1", one="lab2", two="lab2")
    assert request_host.of_up(request_, call(manager)) == expected


@pytest.mark.parametrize(
    ("request_", "text"),
    [
        (api.Up(host="lab2"), "has several sessions: one, two"),
        (api.Up(host="lab3", name="mine"), "is on lab1, not on lab3"),
        (api.Up(host="10"), "gives no name"),
        (api.Up(host="lab1", name="-x"), "-x"),
    ],
)
def test_up_that_means_no_session(manager: Manager, request_: api.Up, text: str) -> None:
    sessions(manager, mine="lab1", one="lab2", two="lab2")
    with pytest.raises(errors.UsageFault, match=text):
        request_host.of_up(request_, call(manager))


@pytest.mark.parametrize(("answer", "agreed"), [("y", True), ("YES", True), ("n", False), ("", False), ("yo", False)])
def test_only_a_yes_is_a_yes(manager: Manager, answer: str, agreed: bool) -> None:
    person = Person(answer)
    assert call(manager, person).confirm("Really?") is agreed
    assert [(prompt.kind, prompt.text, prompt.default) for prompt in person.prompts] == [("confirm", "Really?", "n")]


def test_without_a_terminal_nobody_is_asked(manager: Manager) -> None:
    with pytest.raises(errors.UsageFault, match="stdin is no terminal") as caught:
        call(manager).confirm("Really?")
    assert "-y" in caught.value.hint
    with pytest.raises(errors.NotOurs):
        call(manager).confirm("Really?", unattended=errors.NotOurs("no"))


def test_a_call_for_one_host_logs_in_when_it_must_and_once(tmp_path: Path) -> None:
    logins = []

    def login(destination: str, *_: object) -> None:
        logins.append(destination)
        raise errors.HostUnreachable("no host in this test")

    with offline.managing(offline.folders(tmp_path), login) as make:
        on_host = call(make()).on("lab1")
        assert isinstance(on_host, HostCall)
        assert logins == []
        with pytest.raises(errors.HostUnreachable):
            on_host.connect()
        assert logins == ["lab1"]
