"""Programs that a benchmark starts: in sessions of their own, so that Ctrl-C is for the benchmark, which ends them."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence


def start(words: Sequence[str], *, errors: bool = False) -> subprocess.Popen[str]:
    """Start a program with pipes to its standard input and output.

    Args:
        words: the command.
        errors: its standard error is a pipe as well; otherwise it is ours.
    """
    return subprocess.Popen(
        words,
        text=True,
        start_new_session=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE if errors else None,
    )
