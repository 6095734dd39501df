"""A user who answers questions."""

from __future__ import annotations


class Answers:
    """Answers the questions of a login in order.

    Attributes:
        asked: kind and text of the questions that came.

    Args:
        answers: one for each question; a further question fails the test.
    """

    def __init__(self, *answers: str) -> None:
        self.answers = list(answers)
        self.asked: list[tuple[str, str]] = []

    def __call__(self, kind: str, text: str) -> str:
        self.asked.append((kind, text))
        assert self.answers, f"unexpected question: {text!r}"
        return self.answers.pop(0)
