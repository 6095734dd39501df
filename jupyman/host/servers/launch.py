"""Start a server as a process of its own: the script, its variables, and what happens when it does not succeed."""

from __future__ import annotations

import logging
import math
import secrets
import threading
from collections.abc import Callable

import msgspec

from jupyman import errors, remote
from jupyman.host.servers import liveness, records
from jupyman.host.shell import script
from jupyman.host.shell.script import Shell
from jupyman.model import LaunchSpec, Running
from jupyman.model.endpoint import Endpoint
from jupyman.tools.envs import activation
from jupyman.tools.host import logind
from jupyman.tools.jupyter import server as jupyter

log = logging.getLogger(__name__)

# Seconds beyond the server's own limit, which may pass twice: the script first waits for another launch of the session.
_EXTRA = 90
_CANCEL_TIMEOUT = 60.0
_CANCEL_GRACE = 5


def launch(
    shell: Shell,
    spec: LaunchSpec,
    client: str,
    *,
    progress: Callable[[str], None] | None = None,
    listening: Callable[[Endpoint], None] | None = None,
    cancelled: threading.Event | None = None,
) -> Running:
    """Start a server and wait until it answers: see `Launcher.launch`.

    Args:
        shell: the host.
        spec: what to start.
        client: who starts it, for the record.
        progress: called with a text for each step.
        listening: called with where it listens.
        cancelled: when set, what was started is ended again.
    """
    if not jupyter.valid_name(spec.name):
        raise errors.UsageFault(f"{spec.name!r} is not a session name", "letters, digits, - . _; not only digits")
    if not spec.ports and not spec.sock:
        raise errors.PortInUse("no port to try")
    launch_id = secrets.token_hex(8)

    def on_fact(name: str, value: str) -> None:
        if name == "step" and progress is not None:
            progress(value)
        elif name == "listening" and listening is not None:
            listening(records.endpoint(value))

    limit = max(1, math.ceil(spec.timeout))
    arguments = {**_arguments(spec, client), "ID": launch_id, "TIMEOUT": str(limit)}
    try:
        facts = script.run(
            shell, "servers/launch", arguments, timeout=2 * limit + _EXTRA, on_fact=on_fact, cancelled=cancelled
        )
    except errors.JupymanError as error:
        answer = script.answer_of(error)
        if answer is None:
            # The script also notices that its channel is closed, but only this confirms that nothing is left.
            _cancel(shell, spec.name, launch_id, client)
        else:
            error.add(log=answer.all("log"))
        raise
    record = next(iter(records.read(facts).records), None)
    if record is None:
        raise errors.RemoteFailed("the host did not report what it started")
    if not record.alive:  # it answered a moment ago
        _cancel(shell, spec.name, launch_id, client)
        seen = liveness.judge(record.state, pid=record.pid, log=[])
        raise errors.ServerExited(f"the server is gone again: {seen.text}")
    running = record.running
    if facts.one("existing"):
        return records.adopted(running)
    if facts.one("scope") is not None:
        problem = logind.ends_at_logout(facts.one("user") or "")
        running = msgspec.structs.replace(running, problems=[*running.problems, problem])
    if cancelled is not None and cancelled.is_set():
        _cancel(shell, spec.name, launch_id, client)
        raise errors.Interrupted("interrupted")
    return running


def _arguments(spec: LaunchSpec, client: str) -> dict[str, str]:
    return {
        "CONFIG": remote.program("servers/jupyter_inside")
        + jupyter.configuration(remote.program("servers/jupyter_config"), spec.kernel_name),
        "KERNEL": remote.program("servers/kernel_config"),
        "CHECK": remote.program("servers/server_check"),
        "DEBUGGER": {None: "auto", True: "on", False: "off"}[spec.debugger],
        "ACTIVATE": activation.script(spec.env),
        "NAME": spec.name,
        "PYTHON": activation.python(spec.env),
        "PREFIX": spec.env.prefix,
        "ENV": spec.env.name or spec.env.prefix,
        "APP": spec.app,
        "DIR": spec.dir or "",
        "SOCK": "1" if spec.sock else "0",
        "SCOPE": "1" if spec.scope else "0",
        "PORTS": " ".join(str(port) for port in spec.ports),
        "CUDA_SET": "0" if spec.cuda_visible_devices is None else "1",
        "CUDA": spec.cuda_visible_devices or "",
        "RECORD": records.lines(
            {
                "env_name": spec.env.name,
                "kernel_env": spec.kernel_env.prefix if spec.kernel_env is not None else "",
                "kernel_name": spec.kernel_name or "",
                "gpus": "" if spec.gpus is None else ",".join(str(index) for index in spec.gpus) or "none",
                "client": client,
            }
        ),
    }


def _cancel(shell: Shell, name: str, launch_id: str, client: str) -> None:
    """End the launch of that id, whether it is still under way or done; another launch of the session is left alone."""
    arguments = {
        "CANCEL": "1",
        "NAME": name,
        "ID": launch_id,
        "GRACE": str(_CANCEL_GRACE),
        "FORCE": "1",
        "BY": client,
        "PID": "",
        "TICKS": "",
        "BOOT": "",
        "DIRECTORY": "",
    }
    try:
        script.run(shell, "servers/stop", arguments, timeout=_CANCEL_TIMEOUT)
    except errors.JupymanError as error:
        log.warning("the cancelled launch of session %s could not be cleaned up: %s", name, error.message)
