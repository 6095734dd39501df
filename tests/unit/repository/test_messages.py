"""The texts that users see stand in one file, where the next reader sees them all."""

from __future__ import annotations

from tests import messages


def test_the_messages_are_those_of_the_file() -> None:
    """Read what changed in the file: it is what users will see."""
    kept = messages.FILE.read_text(encoding="utf-8")
    assert messages.gather() == kept, "run: python -m tests.messages, and read the difference"


def test_all_kinds_of_texts_are_gathered() -> None:
    text = messages.gather()
    for part in (
        "jupyman env mirror use\n  Write a mirror",  # a command's help
        "  --release: also free",  # an option's
        "  HostKeyFault: jupyman host trust HOST shows",  # a hint
        "  port {port} is not between {…} and {…}\n",  # an f-string
        '  remote-failed "cannot write',  # a script's error
    ):
        assert part in text, part
