"""A daemon that is met: used, replaced, or refused."""

from __future__ import annotations

import msgspec
import pytest

from jupyman import API_VERSION, __version__, errors
from jupyman.local import build, hello
from jupyman.local.hello import Hello

OURS = hello.ours(busy=0)
OF_0_1_0 = b'{"version": "0.1.0", "pid": 1, "busy": 2}'


@pytest.mark.parametrize(
    ("changes", "stamp", "outdated", "usable"),
    [
        ({}, build.stamp(), False, True),
        ({}, "elsewhere", False, True),
        ({"build": "other"}, "elsewhere", True, True),
        ({"build": "other"}, build.stamp(), False, True),  # the stamp says enough: nothing is read
        ({"api": API_VERSION + 1}, build.stamp(), True, False),
        ({"version": "0.1.0"}, "", True, False),
        ({"version": "0.1.0", "api": 1, "build": ""}, "", True, False),
        ({"version": "0.1.99"}, "", True, False),
        ({"version": "999.0.0"}, "", False, False),
        ({"version": "1.0rc1"}, "", False, False),  # which is later is unknown
        ({"version": ""}, "", False, False),
        ({"version": "٣.0.0"}, "", False, False),  # digits, and no plain version
    ],
)
def test_what_is_replaced_and_what_is_used(
    changes: dict[str, str | int], stamp: str, outdated: bool, usable: bool
) -> None:
    theirs = msgspec.structs.replace(OURS, **changes)
    assert theirs.outdated(stamp) is outdated
    if usable:
        theirs.check()
    else:
        with pytest.raises(errors.VersionMismatch, match="daemon"):
            theirs.check()


def test_one_of_0_1_0_is_understood() -> None:
    theirs = msgspec.json.decode(OF_0_1_0, type=Hello)
    assert (theirs.api, theirs.build, theirs.busy) == (1, "", 2)
    with pytest.raises(errors.VersionMismatch) as caught:
        theirs.check()
    assert caught.value.message == f"the daemon is jupyman 0.1.0, this is {__version__}, and commands wait for it"
    assert caught.value.hint.startswith("try again when they have ended, or jupyman daemon restart")


def test_waiting_is_no_advice_when_the_daemon_is_the_newer_one() -> None:
    with pytest.raises(errors.VersionMismatch) as caught:
        msgspec.structs.replace(OURS, version="999.0.0", busy=1).check()
    assert "wait" not in caught.value.message
    assert caught.value.hint == errors.VersionMismatch.default_hint
