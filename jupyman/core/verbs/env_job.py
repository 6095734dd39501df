"""Follow an installation on a host: show its steps, and turn its end into a result or an error."""

from __future__ import annotations

import shlex

import msgspec

from jupyman import errors
from jupyman.api.results import KernelAdded, StepResult
from jupyman.core.verbs.host_call import HostCall
from jupyman.host.kernels import specs as kernels
from jupyman.host.shell import jobs, script
from jupyman.host.shell.jobs import Ended
from jupyman.model import Environment
from jupyman.tools.install import failures

LOG_LINES = 15  # of a failed step, in the error's details


def watch(call: HostCall, name: str, results: dict[str, StepResult]) -> Ended:
    """Follow an installation to its end and show its steps.

    Args:
        call: the request under way.
        name: of the installation.
        results: the steps by their keys; their states and seconds are filled in.

    Raises:
        LinkLost, Interrupted: nobody follows it any more; it keeps running.
    """
    texts: dict[str, str] = {}

    def begin(key: str, text: str) -> None:
        texts[key] = text
        command = results[key].command if key in results else []
        if command:  # before it runs
            call.report(f"{key}-command", f"$ {shlex.join(command)}", "skip")
        call.report(key, text, "run")

    def end(key: str, state: str, seconds: float) -> None:
        text = texts.get(key, key)
        result = results.get(key) or StepResult(key=key, text=text, command=[])
        results[key] = msgspec.structs.replace(result, state=state, seconds=seconds)
        if state == "failed":
            call.report(key, f"{text}: failed", "warn", seconds=seconds)
        elif state == "skip":
            call.report(key, f"{text}: done before", "skip")
        else:
            call.report(key, text, "warn" if state == "warn" else "done", seconds=seconds)

    def last(line: str) -> None:
        if texts:
            key, text = next(reversed(texts.items()))
            call.report(key, f"{text}: {line}", "run")

    return jobs.follow(call.link, name, on_begin=begin, on_end=end, on_last=last, cancelled=call.cancelled)


def conclude(
    name: str, ended: Ended, host: str, environment: Environment | None, again: str = ""
) -> KernelAdded | None:
    """Return the kernel of an installation that succeeded, and raise for one that did not.

    Args:
        name: of the installation.
        ended: how it ended.
        host: its name.
        environment: the one that was made; None: an existing one was changed, or it is not known here.
        again: what to do after a failure; empty: run `env create` again.

    Raises:
        KernelFault, UsageFault, RemoteFailed: what went wrong.
    """
    if ended.state == "done":
        if environment is None or not ended.answer.lines:
            return None
        spec = (ended.answer.one("directory") or "").rpartition("/")[2]
        return KernelAdded(**vars(kernels.added(ended.answer, environment, spec, proof=True)))
    again = again or f"jupyman env create {name} resumes it, jupyman env rm {name} removes what is there"
    if ended.state == "interrupted":
        raise errors.RemoteFailed(f"the installation of {name} was stopped from outside at: {ended.text}", again)
    failed = script.failure(ended.answer) if ended.key == "kernel" else None
    if failed is not None:
        failed.hint = f"the environment is there; jupyman kernel add {name} --host {host}. {failed.hint}"
        raise failed
    reason = failures.reason(ended.log)
    raise errors.RemoteFailed(
        f"{ended.text or 'a step'} failed (status {ended.code}): {reason.text}",
        f"{reason.hint.replace('NAME', name)}; {again}",
        log=ended.log[-LOG_LINES:],
        kind=reason.kind,
        step=ended.key,
    )
