"""The daemon's log: a small file without secrets that only its user can read."""

from __future__ import annotations

import logging
import logging.handlers
import os
import re
import threading
from io import TextIOWrapper
from pathlib import Path

SIZE = 1024 * 1024  # bytes; three old files are kept
_SECRET = re.compile(r"((?:token|code)=|\bAuthorization:\s*(?:token|bearer)\s+)[^\s&\"'<>]+", re.IGNORECASE)


class RedactingFormatter(logging.Formatter):
    """Redacts tokens in whatever is logged, tracebacks included.

    No record should contain one; this is a second line of defence.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Format the record without secrets or control characters: it may quote what hosts print."""
        text = _SECRET.sub(r"\1…", super().format(record))
        return "".join(c if c in "\n\t" or c.isprintable() else c.encode("unicode_escape").decode() for c in text)


class PrivateFile(logging.handlers.RotatingFileHandler):
    """A log file of mode 0600, also after it was rotated."""

    def _open(self) -> TextIOWrapper:
        handle = os.open(self.baseFilename, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        return os.fdopen(handle, "a", encoding=self.encoding)


def set_up(path: Path, *, foreground: bool) -> list[logging.Handler]:
    """Send every log record of this process to the file.

    Args:
        path: the file.
        foreground: to stderr as well.

    Returns:
        The handlers, so that they can be closed.
    """
    file = PrivateFile(path, maxBytes=SIZE, backupCount=3, encoding="utf-8")
    handlers: list[logging.Handler] = [file, *([logging.StreamHandler()] if foreground else [])]
    for handler in handlers:
        handler.setFormatter(RedactingFormatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    root = logging.getLogger()
    root.handlers[:] = handlers
    root.setLevel(logging.INFO)
    # Below warnings these log noise, and paramiko may name keys.
    for name in ("paramiko", "asyncio", "uvicorn"):
        logging.getLogger(name).setLevel(logging.WARNING)
    # The stderr of a daemon leads nowhere.
    threading.excepthook = _thread_broke
    return handlers


def _thread_broke(event: threading.ExceptHookArgs) -> None:
    name = event.thread.name if event.thread is not None else "?"
    logging.getLogger(__name__).error("thread %s failed", name, exc_info=event.exc_value)
