"""`jupyman kernel`."""

from __future__ import annotations

from jupyman.cli.groups import LazyGroup

command = LazyGroup(
    "kernel",
    {
        "add": ("jupyman.cli.kernel.add", "register an environment as a kernel, and check that it runs"),
        "ls": ("jupyman.cli.kernel.ls", "list the kernels"),
        "check": ("jupyman.cli.kernel.check", "start kernels to check that they work"),
        "rm": ("jupyman.cli.kernel.rm", "remove a kernel; its environment stays"),
    },
    help="Manage Jupyter kernels of a host's environments.",
    epilog="Example: jupyman kernel add pytorch",
)
