"""One request under way: its events, the answers to its questions, and its cancellation if the client leaves."""

from __future__ import annotations

import asyncio
import logging
import secrets
import threading
from collections.abc import Callable
from pathlib import Path

import msgspec

from jupyman import errors
from jupyman.api import Answer, AnyEvent, AnyRequest, Backend, ClientContext, Done, Failed, Prompt
from jupyman.model import ErrorInfo

log = logging.getLogger(__name__)

# A client that has stopped reading (Ctrl-Z on `logs -f`) must not fill our memory: after so many events it counts as
# gone.
BACKLOG = 10_000


class Questions:
    """The questions of all operations that wait for an answer."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: dict[str, Waiting] = {}

    def put(self, waiting: Waiting) -> None:
        """Add a question."""
        with self._lock:
            self._open[waiting.id] = waiting

    def drop(self, number: str) -> None:
        """Remove a question."""
        with self._lock:
            self._open.pop(number, None)

    def answer(self, answer: Answer) -> bool:
        """Pass an answer on; False if no operation waits for it."""
        with self._lock:
            waiting = self._open.pop(answer.id, None)
        if waiting is None:
            return False
        waiting.value = answer.value
        waiting.done.set()
        return True


class Waiting:
    """A question and, later, its answer."""

    def __init__(self) -> None:
        self.id = secrets.token_hex(16)
        self.value: str | None = None
        self.done = threading.Event()


class StreamOperation:
    """Runs a request in a thread and hands its events to the event loop; an `api.Operation`.

    Args:
        client: of the caller.
        questions: where prompts wait.
        loop: the server's.
    """

    def __init__(self, client: ClientContext, questions: Questions, loop: asyncio.AbstractEventLoop) -> None:
        self.client = client
        self.cancelled = threading.Event()
        self.ended = False  # its result was sent: the client leaves then, which cancels nothing
        self.events: asyncio.Queue[bytes | None] = asyncio.Queue()  # lines; None: that was all
        self._questions = questions
        self._loop = loop
        self._callbacks: list[Callable[[], None]] = []
        self._lock = threading.Lock()

    def start(self, backend: Backend, request: AnyRequest, log_file: Path, over: Callable[[], None]) -> None:
        """Run the request in a thread of its own; the last event is `Done` or `Failed`.

        Args:
            backend: does it.
            request: what is to be done.
            log_file: named if there is a bug.
            over: called in the event loop when the work has ended, before its last event, also if the client has left.
        """

        def work() -> None:
            try:
                last = _line(Done(result=msgspec.Raw(msgspec.json.encode(backend.handle(request, self)))))
            except errors.JupymanError as error:
                log.info("%s: %s: %s", type(request).__name__, error.code, error.message)
                last = _line(Failed(error=_sendable(error)))
            except BaseException:
                log.exception("%s failed", type(request).__name__)
                fault = errors.InternalError("jupyman has a bug", f"the traceback is in {log_file}")
                last = _line(Failed(error=fault.info()))
            self.ended = True
            self._call(over)
            self._put(last)
            self._put(None)

        threading.Thread(target=work, name=f"request {type(request).__name__}", daemon=True).start()

    def emit(self, event: AnyEvent) -> None:
        """Send an event to the client; does nothing if it is gone."""
        if self.events.qsize() > BACKLOG:
            if not self.cancelled.is_set():
                log.warning("a client does not read: its request is cancelled")
                self.cancel()
            return
        try:
            line = _line(event)
        except (UnicodeEncodeError, TypeError):
            log.exception("%s cannot be sent", type(event).__name__)
            return
        self._put(line)

    def _put(self, line: bytes | None) -> None:
        self._call(lambda: self.events.put_nowait(line))

    def _call(self, callback: Callable[[], None]) -> None:
        try:
            self._loop.call_soon_threadsafe(callback)
        except RuntimeError:  # the server has ended
            self.cancelled.set()

    def ask(self, prompt: Prompt, timeout: float = 300.0) -> str:
        """Ask the client's terminal: see `api.Operation.ask`."""
        if not self.client.interactive:
            raise errors.Interrupted("a question must be answered, and there is no terminal")
        waiting = Waiting()
        self._questions.put(waiting)
        self.on_cancel(waiting.done.set)
        self.emit(msgspec.structs.replace(prompt, id=waiting.id))
        answered = waiting.done.wait(timeout)
        self._questions.drop(waiting.id)
        if not answered:
            raise errors.Interrupted(f"no answer in {timeout:.0f} s")
        if waiting.value is None:
            raise errors.Interrupted("interrupted")
        return waiting.value

    def on_cancel(self, callback: Callable[[], None]) -> None:
        """Call `callback` once when the client leaves; at once if it has left."""
        with self._lock:
            if not self.cancelled.is_set():
                self._callbacks.append(callback)
                return
        callback()

    def cancel(self) -> None:
        """Cancel the request: the client has left."""
        with self._lock:
            if self.cancelled.is_set():
                return
            self.cancelled.set()
            callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            callback()


def _line(event: AnyEvent) -> bytes:
    return msgspec.json.encode(event) + b"\n"


def _sendable(error: errors.JupymanError) -> ErrorInfo:
    """Return an error's facts as plain JSON; what JSON cannot express is left out."""
    info = error.info()
    try:
        plain = msgspec.structs.replace(info, details=msgspec.to_builtins(info.details))
        msgspec.json.encode(plain)
    except (TypeError, UnicodeEncodeError, msgspec.MsgspecError):
        texts = (text.encode("utf-8", "replace").decode() for text in (info.message, info.hint))
        return ErrorInfo(code=info.code, message=next(texts), hint=next(texts))
    return plain
