"""`check`: everything about a host, in one trip."""

from __future__ import annotations

import msgspec

from jupyman import api, remote
from jupyman.api import Operation
from jupyman.core.links.hosts import Hosts
from jupyman.core.runtime.progress import step
from jupyman.core.sessions.registry import SessionRegistry
from jupyman.core.verbs import host as inquiries
from jupyman.core.verbs import kill_orphans
from jupyman.host.gpus import attribution, torch_test
from jupyman.host.gpus import report as gpu_facts
from jupyman.host.report import ports, probe
from jupyman.host.servers import nohup, records
from jupyman.host.shell import script
from jupyman.host.shell.script import Facts
from jupyman.model import DeepCheck, Environment, HostReport, Problem
from jupyman.ssh.link import Link
from jupyman.tools.envs import discovery

_NO_FIX = "see what jupyman check says of the driver and of that environment"


def check(request: api.Check, host: str, hosts: Hosts, sessions: SessionRegistry, operation: Operation) -> HostReport:
    """Look at everything on a host, and with `request.deep` compute something in its environments.

    Args:
        request: what the user said.
        host: where.
        hosts: to reach it.
        sessions: where the names of its environments are kept, for shell completion.
        operation: whom to show the steps.

    Returns:
        The report; of one environment, where one was named.

    Raises:
        EnvironmentMissing, UsageFault: not just one environment is called so.
        LinkLost, RemoteFailed: as `look`.
    """
    link = inquiries.connect(host, hosts, operation)
    with step(operation, "probe", "looking at the host"):
        seen = look(link, host)
    inquiries.remember(host, seen, sessions)
    if request.env is not None:
        seen = _only(seen, discovery.find(seen.environments, request.env, seen.home))
    if request.deep:
        seen = _tried(link, seen, operation, every=request.env is None)
    return seen


def look(link: Link, host: str) -> HostReport:
    """Look at a host: one command for all of it. Only servers whose kernels hold a GPU are asked for their notebooks.

    Args:
        link: to the host.
        host: its name, for the report.

    Raises:
        LinkLost, RemoteFailed: as `script.run`.
    """
    arguments = {
        **probe.arguments("full"),
        "SERVER": remote.script("lib/server"),
        "PORTS": "",
        "LIST": "",
        "DO_PROBE": remote.script("report/probe"),
        "DO_FIND": remote.script("servers/find"),
        "DO_PORTS": remote.script("report/ports"),
        "DO_ORPHANS": remote.script("kernels/orphans"),
    }
    facts = script.run(link, "report/check", arguments, timeout=probe.TIMEOUT)
    seen = probe.read(facts, host)
    found = records.read(facts)
    servers = nohup.rows(host, found)
    gpus = attribution.traced(link, seen.gpus, gpu_facts.kin(facts), found)
    orphaned = kill_orphans.problem(host, kill_orphans.read(facts, gpus))
    problems = [*seen.problems, *_unfinished(facts), *(problem for server in servers for problem in server.problems)]
    return msgspec.structs.replace(
        seen,
        gpus=gpus,
        jupyter=servers,
        ports=ports.read(facts),
        problems=[*problems, *([orphaned] if orphaned is not None else [])],
    )


def _unfinished(facts: Facts) -> list[Problem]:
    """Name the parts of the look that did not come to their end; those of the probe name themselves."""
    parts = {"servers": "your Jupyter servers", "ports": "listening ports", "orphans": "kernels whose server is gone"}
    done = set(facts.all("part"))
    fix = "a network mount may be slow or dead: try again, or ask the admin"
    return [
        Problem(code="look-unfinished", severity="warning", text=f"looking for {what} took too long", fix=fix)
        for name, what in parts.items()
        if name not in done
    ]


def _only(seen: HostReport, environment: Environment) -> HostReport:
    """Leave out what is said of other environments."""
    verdicts = [verdict for verdict in seen.verdicts if verdict.env == environment.prefix]
    told = tuple(verdict.text for verdict in verdicts)
    problems = [one for one in seen.problems if one.code != "torch-driver" or (told and one.text.endswith(told))]
    return msgspec.structs.replace(seen, environments=[environment], verdicts=verdicts, problems=problems)


def _tried(link: Link, seen: HostReport, operation: Operation, *, every: bool) -> HostReport:
    """Compute something in each environment with torch, unless it is another user's; or in the one that was named."""
    results: list[DeepCheck] = []
    problems = list(seen.problems)
    for environment in seen.environments:
        if environment.torch is None and every:
            continue
        if environment.torch_foreign and every:
            text = "not tried: it is another user's, whose code would run as you; name it with --env if you trust them"
            results.append(DeepCheck(env=environment.prefix, ok=None, text=text))
            continue
        name = environment.name or environment.prefix
        with step(operation, f"deep {environment.prefix}", f"{name}: computing with its torch") as progress:
            result = torch_test.run(link, environment, seen.driver, seen.gpus, cancelled=operation.cancelled)
            progress.text = f"{name}: {result.text}"
            if result.ok is False:
                progress.warn(progress.text)
                fix = result.fix or _NO_FIX
                problems.append(Problem(code="torch-fails", severity="error", text=progress.text, fix=fix))
        results.append(result)
    return msgspec.structs.replace(seen, deep=results, problems=problems)
