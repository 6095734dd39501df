"""`check`: everything about a host, in one round trip."""

from __future__ import annotations

import msgspec

from jupyman import api, remote
from jupyman.core.verbs import kill_orphans
from jupyman.core.verbs.host_call import HostCall
from jupyman.host.gpus import attribution, torch_test
from jupyman.host.gpus import report as gpu_report
from jupyman.host.report import ports, probe
from jupyman.host.servers import listing, records
from jupyman.host.servers.base import Launcher
from jupyman.host.shell import script
from jupyman.host.shell.script import Facts
from jupyman.model import DeepCheck, Environment, HostReport, Problem
from jupyman.model.problem_codes import new_problem
from jupyman.ssh.link import Link
from jupyman.tools.envs import discovery

_NO_FIX = "see what jupyman check shows about the driver and that environment"
# The parts of the script, as they are named to the user; those of the probe name themselves.
_PARTS = {"servers": "your Jupyter servers", "ports": "listening ports", "orphans": "orphaned kernels"}


def check(request: api.Check, call: HostCall) -> HostReport:
    """Report on a host; with `request.deep` compute something in its environments, too.

    Returns:
        The report; limited to one environment when one is named.

    Raises:
        EnvironmentMissing, UsageFault: the name does not match exactly one environment.
        LinkLost, RemoteFailed: as `look`.
    """
    link = call.connect()
    with call.step("probe", "looking at the host"):
        report = look(link, call.host, call.launcher)
    call.remember_environments(report)
    if request.env is not None:
        report = _limited(report, discovery.find(report.environments, request.env, report.home))
    if request.deep:
        report = _deep(report, call, every=request.env is None)
    return report


def look(link: Link, host: str, launcher: Launcher) -> HostReport:
    """Report on a host by one command. Only servers whose kernels hold a GPU are asked for their notebooks.

    Args:
        link: to the host.
        host: its name, for the report.
        launcher: proves servers before they are asked.

    Raises:
        LinkLost, RemoteFailed: as `script.run`.
    """
    arguments = {
        **probe.arguments("full"),
        "PORTS": "",
        "LIST": "",
        "DO_PROBE": remote.script("report/probe"),
        "DO_FIND": remote.script("servers/find"),
        "DO_PORTS": remote.script("report/ports"),
        "DO_ORPHANS": remote.script("kernels/orphans"),
    }
    facts = script.run(link, "report/check", arguments, timeout=probe.TIMEOUT)
    report = probe.read(facts, host)
    found = records.read(facts)
    servers = listing.rows(host, found)
    gpus = attribution.traced(link, launcher, report.gpus, gpu_report.tree(facts), found)
    orphaned = kill_orphans.problem(host, kill_orphans.read(facts, gpus))
    problems = [*report.problems, *_unfinished(facts), *(problem for server in servers for problem in server.problems)]
    return msgspec.structs.replace(
        report,
        gpus=gpus,
        jupyter=servers,
        ports=ports.read(facts),
        problems=[*problems, *([orphaned] if orphaned is not None else [])],
    )


def _unfinished(facts: Facts) -> list[Problem]:
    """Name the parts that did not finish."""
    done = set(facts.all("part"))
    fix = "a network mount may be slow or dead: try again, or ask the admin"
    return [
        new_problem("look-unfinished", f"looking for {what} took too long", fix)
        for name, what in _PARTS.items()
        if name not in done
    ]


def _limited(report: HostReport, environment: Environment) -> HostReport:
    """Leave out what is about other environments."""
    verdicts = [verdict for verdict in report.verdicts if verdict.env == environment.prefix]
    texts = tuple(verdict.text for verdict in verdicts)
    problems = [one for one in report.problems if one.code != "torch-driver" or (texts and one.text.endswith(texts))]
    return msgspec.structs.replace(report, environments=[environment], verdicts=verdicts, problems=problems)


def _deep(report: HostReport, call: HostCall, *, every: bool) -> HostReport:
    """Compute something with the torch of each environment, or only of the one that was named.

    Args:
        report: of the host.
        call: the request under way.
        every: no environment was named; those of other users are left out, because their code would run as the user.
    """
    results: list[DeepCheck] = []
    problems = list(report.problems)
    for environment in report.environments:
        if environment.torch is None and every:
            continue
        if environment.torch_foreign and every:
            text = "not tested: its owner is another user, and that user's code would run as you; --env tests it"
            results.append(DeepCheck(env=environment.prefix, ok=None, text=text))
            continue
        name = environment.name or environment.prefix
        with call.step(f"deep {environment.prefix}", f"{name}: computing with its torch") as progress:
            result = torch_test.run(call.link, environment, report.driver, report.gpus, cancelled=call.cancelled)
            progress.text = f"{name}: {result.text}"
            if result.ok is False:
                progress.warn(progress.text)
                problems.append(new_problem("torch-fails", progress.text, result.fix or _NO_FIX))
        results.append(result)
    return msgspec.structs.replace(report, deep=results, problems=problems)
