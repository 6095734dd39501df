"""How long `jupyman check` looks at a host with many environments: ``python -m tests.bench.check``.

By the number of environments: the whole command with daemon and link warm, the script alone as the host runs it, and
the part of it that finds environments. conda is never run; for comparison, one start of its Python is shown.
"""

from __future__ import annotations

import shutil
import sys
import time
from functools import partial

from jupyman import remote
from jupyman.host.report import probe
from jupyman.host.shell import script as shell
from tests.bed import Bed, Cli, User, private_home
from tests.bench.table import interleave, process, show
from tests.local_shell import LocalShell

ROUNDS = 9
COUNTS = (0, 20, 100)
# Leaves only that part of the probe.
ALONE = "main() { jm_parts; }\njm_gpus() { :; }\njm_disk() { :; }\njm_logind() { :; }\njm_toolkits() { :; }\n"


def environments(user: User, count: int) -> None:
    """Give the user that many environments beside those of the bed."""
    folder = user.home / ".conda" / "envs"
    shutil.rmtree(folder, ignore_errors=True)
    for number in range(count):
        shutil.copytree(user.home / "work" / "env", folder / f"e{number:03}", symlinks=True)


def script(user: User, name: str) -> float:
    """Run one of our scripts as the user and return the seconds it took."""
    arguments = {**probe.arguments("full"), "PORTS": "", "LIST": ""}
    scripts = ("report/probe", "servers/find", "report/ports", "kernels/orphans")
    arguments |= {f"DO_{one.partition('/')[2].upper()}": remote.script(one) for one in scripts}
    text = shell.compose("report/check" if name == "check" else "report/probe", arguments, "mark")
    if name == "environments":
        text = text.replace("\njm_begin\n", f"\n{ALONE}jm_begin\n")
    start = time.perf_counter()
    done = LocalShell(user.home, user.name).run(text, timeout=60)
    took = time.perf_counter() - start
    assert b"mark end 0" in done.stdout, done
    return took


def main() -> None:
    """Measure and print."""
    with Bed() as bed, private_home() as home:
        cli, user = Cli(home, bed.ssh_config), bed.user()
        user.set_gpu("two-a100")
        words = [sys.executable, "-m", "jupyman", "check", "server1", "--json"]
        for count in COUNTS:
            environments(user, count)
            assert cli("check", "server1").rc == 0
            cases = {
                "a Python starts": partial(process, [str(user.conda / "bin" / "python"), "-c", "pass"], cli.environ),
                "jupyman check --json": partial(process, words, cli.environ),
                "the script on the host": partial(script, user, "check"),
                "its part that finds environments": partial(script, user, "environments"),
            }
            show(
                f"{count} environments and the bed's 5, median of {ROUNDS}",
                interleave(cases, ROUNDS),
                "a Python starts",
            )


if __name__ == "__main__":
    main()
