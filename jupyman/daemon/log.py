"""The daemon's log: one file, small, readable by its user alone, and without secrets."""

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
    """Blots tokens out of whatever is logged, tracebacks too.

    Nothing should carry one; this is for the day when something does.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Write the record without its secrets, and as text that a terminal can show: hosts speak in it, too."""
        text = _SECRET.sub(r"\1…", super().format(record))
        return "".join(c if c in "\n\t" or c.isprintable() else c.encode("unicode_escape").decode() for c in text)


class PrivateFile(logging.handlers.RotatingFileHandler):
    """A log file, 0600 also after it was rotated."""

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
    # Everything below warning of these is noise, and paramiko's may name keys.
    for name in ("paramiko", "asyncio", "uvicorn"):
        logging.getLogger(name).setLevel(logging.WARNING)
    # Nobody sees the stderr of a daemon.
    threading.excepthook = _thread_broke
    return handlers


def _thread_broke(event: threading.ExceptHookArgs) -> None:
    name = event.thread.name if event.thread is not None else "?"
    logging.getLogger(__name__).error("thread %s broke", name, exc_info=event.exc_value)
