"""One piece of work for several clients: all see it, the last that leaves cancels it."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from jupyman import errors
from jupyman.api import AnyEvent, ClientContext, Operation, Prompt, Step
from jupyman.core.runtime.shared_operation import SharedOperation


class Client:
    """A client that records its events and can leave."""

    def __init__(self, *, interactive: bool = False, answer: str = "") -> None:
        self.client = ClientContext(interactive=interactive)
        self.cancelled = threading.Event()
        self.events: list[AnyEvent] = []
        self.asked: list[str] = []
        self._answer = answer
        self._callbacks: list[Callable[[], None]] = []
        self._lock = threading.Lock()

    def emit(self, event: AnyEvent) -> None:
        self.events.append(event)

    def ask(self, prompt: Prompt, timeout: float = 300.0) -> str:
        self.asked.append(prompt.text)
        return self._answer

    def on_cancel(self, callback: Callable[[], None]) -> None:
        with self._lock:
            self._callbacks.append(callback)
            late = self.cancelled.is_set()
        if late:
            callback()

    def leave(self) -> None:
        with self._lock:
            self.cancelled.set()
        for callback in self._callbacks:
            callback()


def joined(shared: SharedOperation, client: Client) -> tuple[threading.Thread, list[object]]:
    outcome: list[object] = []

    def run() -> None:
        try:
            outcome.append(shared.join(client))
        except errors.JupymanError as error:
            outcome.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    return thread, outcome


def test_two_clients_share_one_run_and_see_every_event() -> None:
    begun, go = threading.Event(), threading.Event()
    runs: list[int] = []

    def work(operation: Operation) -> str:
        runs.append(1)
        operation.emit(Step(key="a", text="first", state="done"))
        begun.set()
        assert go.wait(10)
        operation.emit(Step(key="b", text="second", state="done"))
        return "result"

    first, second = Client(), Client()
    shared = SharedOperation(work, first.client)
    one, outcome_one = joined(shared, first)
    assert begun.wait(10)
    two, outcome_two = joined(shared, second)
    while not second.events:  # the replay of what happened before it came
        two.join(0.01)
    go.set()
    one.join(10)
    two.join(10)
    assert runs == [1]
    assert outcome_one == outcome_two == ["result"]
    assert [event.key for event in second.events if isinstance(event, Step)] == ["a", "b"]


def test_one_of_two_leaves_and_the_work_goes_on() -> None:
    begun, go = threading.Event(), threading.Event()

    def work(operation: Operation) -> bool:
        begun.set()
        assert go.wait(10)
        return operation.cancelled.is_set()

    first, second = Client(), Client()
    shared = SharedOperation(work, first.client)
    one, outcome_one = joined(shared, first)
    assert begun.wait(10)
    two, outcome_two = joined(shared, second)
    while len(shared._waiters) < 2:
        two.join(0.01)
    first.leave()
    one.join(10)
    assert isinstance(outcome_one[0], errors.Interrupted)
    go.set()
    two.join(10)
    assert outcome_two == [False]


def test_the_last_that_leaves_cancels_and_waits_for_the_undoing() -> None:
    begun = threading.Event()
    undone: list[bool] = []

    def work(operation: Operation) -> None:
        begun.set()
        assert operation.cancelled.wait(10)
        undone.append(True)
        raise errors.Interrupted("interrupted")

    client = Client()
    shared = SharedOperation(work, client.client)
    thread, outcome = joined(shared, client)
    assert begun.wait(10)
    client.leave()
    thread.join(10)
    assert undone == [True]
    assert isinstance(outcome[0], errors.Interrupted)


def test_a_question_goes_to_the_client_with_a_terminal() -> None:
    plain, terminal = Client(), Client(interactive=True, answer="yes")
    go = threading.Event()

    def work(operation: Operation) -> str:
        assert go.wait(10)
        return operation.ask(Prompt(id="", kind="confirm", text="Sure?"))

    shared = SharedOperation(work, plain.client)
    one, outcome = joined(shared, plain)
    two, _ = joined(shared, terminal)
    while len(shared._waiters) < 2:
        two.join(0.01)
    go.set()
    one.join(10)
    two.join(10)
    assert outcome == ["yes"]
    assert (plain.asked, terminal.asked) == ([], ["Sure?"])


def test_a_question_without_a_terminal_is_an_error() -> None:
    shared = SharedOperation(lambda operation: operation.ask(Prompt(id="", kind="confirm", text="?")), ClientContext())
    with pytest.raises(errors.Interrupted):
        shared.join(Client())


def test_a_work_that_could_not_be_started_has_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    shared = SharedOperation(lambda operation: None, ClientContext())

    def no_thread(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", no_thread)
    with pytest.raises(RuntimeError, match="new thread"):
        shared.join(Client())
    assert shared.ended
