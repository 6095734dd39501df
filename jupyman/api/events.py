"""The events of an operation, sent by the daemon to its client, and the client's answer to a prompt."""

from __future__ import annotations

from typing import Literal

import msgspec

from jupyman.model import ErrorInfo


class Event(msgspec.Struct, frozen=True, kw_only=True, tag_field="event"):
    """Base of the events."""


class Step(Event, tag="step", frozen=True, kw_only=True):
    """Progress: one `key` first with state `run`, then with `done`, `warn` or `skip` and its duration."""

    key: str
    text: str
    state: Literal["run", "done", "warn", "skip"]
    seconds: float | None = None


class Prompt(Event, tag="prompt", frozen=True, kw_only=True):
    """A question for the caller's terminal. An `Answer` has the same id."""

    id: str
    kind: Literal["secret", "text", "confirm", "choice"]
    text: str
    choices: list[str] = []
    default: str | None = None


class Output(Event, tag="output", frozen=True, kw_only=True):
    """A line of data (logs)."""

    line: str


class OpenBrowser(Event, tag="open-browser", frozen=True, kw_only=True):
    """Open this URL now. It works once and has no token; a path is one of the daemon."""

    url: str


class Done(Event, tag="done", frozen=True, kw_only=True):
    """The operation succeeded. `result` is JSON of the request's result type."""

    result: msgspec.Raw


class Failed(Event, tag="failed", frozen=True, kw_only=True):
    """The operation failed."""

    error: ErrorInfo


AnyEvent = Step | Prompt | Output | OpenBrowser | Done | Failed


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """The body of ``POST /v1/answer``; `value` is None if the user gave up."""

    id: str
    value: str | None
