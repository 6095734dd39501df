"""The test bed: a real sshd, real accounts with real login shells, a real conda layout with a Jupyter that runs.

Most tests get it by the fixtures of the conftest.py files; import it for another scope or for a second sshd.
"""

from tests.bed.accounts import KINDS, Held, User, needs_root
from tests.bed.bed import Bed
from tests.bed.command import Cli, Ran, private_home
from tests.bed.conda import CondaRoot
from tests.bed.network import Network
from tests.bed.sshd import Sshd, keygen, private_sshd
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
    "needs_root",
    "private_home",
    "private_sshd",
    "wait_until",
]
