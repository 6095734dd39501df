"""How the host modules ask the user: a function that they are given, None when nobody can be asked."""

from __future__ import annotations

from typing import Literal, Protocol


class Confirm(Protocol):
    """Asks a yes-or-no question on the user's terminal and waits for the answer."""

    def __call__(self, question: str, *, default: Literal["y", "n"] = "n") -> bool:
        """Return whether the answer is yes; `default` is the answer to an empty line.

        Raises:
            Interrupted: the user left.
        """
