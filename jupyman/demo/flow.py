"""`jupyman demo`: the whole flow against a throw-away SSH host on this computer."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

from jupyman import errors
from jupyman.demo.cell import execute
from jupyman.demo.host import DemoHost

CELL = "import os, sys; print(sys.version.split()[0], 'pid', os.getpid(), 'over ssh:', bool(os.environ.get('SSH_CONNECTION')))"


def run(*, once: bool, browser: bool, say: Callable[[str], None]) -> int:
    """Run the demo.

    Args:
        once: do not wait for Ctrl-C at the end; clean up and return.
        browser: open the local browser at the session.
        say: prints a line.

    Returns:
        The exit status.

    Raises:
        UsageFault: the extra `demo` is not installed.
    """
    # A short path: the kernels' UNIX sockets and the home below must fit into 107 bytes.
    directory = Path(tempfile.mkdtemp(prefix="jmdemo-"))
    environ = {**os.environ, "JUPYMAN_HOME": str(directory / "jupyman")}
    try:
        with DemoHost(directory / "host") as host:
            environ["JUPYMAN_SSH_CONFIG"] = str(host.ssh_config)
            say(f"a throw-away SSH host listens on 127.0.0.1:{host.port}, its home is {host.home}")
            try:
                return _flow(environ, once=once, browser=browser, say=say)
            finally:
                say("")
                say("cleaning up")
                _jupyman(environ, "kill", "-y", "--force", "demo", quiet=True)
                _jupyman(environ, "daemon", "stop", quiet=True)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _flow(environ: dict[str, str], *, once: bool, browser: bool, say: Callable[[str], None]) -> int:
    prefix = sys.prefix
    for words in (
        ("check", "demo"),
        ("up", "demo", "--no-browser"),
        ("kernel", "add", prefix, "demo", "--name", "demo-kernel", "--display-name", "Python of the demo"),
        ("ps",),
    ):
        say("")
        say(f"$ jupyman {' '.join(words)}")
        status = _jupyman(environ, *words)
        if status != 0:
            return status
    answer = subprocess.run(
        [sys.executable, "-m", "jupyman", "url", "demo", "--json"], env=environ, capture_output=True, text=True, check=True
    )
    url = json.loads(answer.stdout)["url"]
    say("")
    say("a cell through the tunnel:")
    say(f"  {execute(url, CELL, kernel='demo-kernel').strip()}")
    if once:
        say("")
        say("the demo went through")
        return 0
    say("")
    say(f"open {url}")
    say("Ctrl-C ends the demo and removes everything it made")
    if browser:
        _jupyman(environ, "open", "demo", quiet=True)
    try:
        threading.Event().wait()
    except KeyboardInterrupt:
        pass
    return 0


def _jupyman(environ: dict[str, str], *words: str, quiet: bool = False) -> int:
    sink = subprocess.DEVNULL if quiet else None
    try:
        return subprocess.run(
            [sys.executable, "-m", "jupyman", *words],
            env=environ,
            check=False,
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=sink,
        ).returncode
    except KeyboardInterrupt as error:
        raise errors.Interrupted("interrupted") from error
