"""`jupyman env`."""

from __future__ import annotations

from jupyman.cli.groups import LazyGroup

command = LazyGroup(
    "env",
    {
        "ls": ("jupyman.cli.env.ls", "list the environments"),
        "create": ("jupyman.cli.env.create", "create an environment with a kernel"),
        "logs": ("jupyman.cli.env.logs", "print the log of an installation"),
        "rm": ("jupyman.cli.env.rm", "remove an environment with its kernels"),
        "push": ("jupyman.cli.env.push", "upload package files and install them without a network"),
        "mirror": ("jupyman.cli.env.mirror", "manage mirrors of conda's channels and of PyPI"),
    },
    help="Manage environments of a host: conda, mamba, micromamba, venv, uv.",
    epilog="Example: jupyman env ls server1",
)
