"""The test bed: a real sshd, real accounts with real login shells, a real conda layout with a Jupyter that runs.

The fixtures of tests/conftest.py hand it out; this package serves tests that need another scope or a second sshd.
"""

from tests.bed.accounts import KINDS, Held, User
from tests.bed.bed import Bed
from tests.bed.command import Cli, Ran, private_home
from tests.bed.conda import CondaRoot
from tests.bed.network import Network
from tests.bed.sshd import Sshd, keygen
from tests.bed.wait import wait_until

__all__ = [
    "KINDS",
    "Bed",
    "Cli",
    "CondaRoot",
    "Held",
    "Network",
    "Ran",
    "Sshd",
    "User",
    "keygen",
    "private_home",
    "wait_until",
]
