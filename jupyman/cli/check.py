"""`jupyman check`."""

from __future__ import annotations

from typing import Any

import click

from jupyman import api
from jupyman.cli import terminal
from jupyman.cli.context import Context
from jupyman.cli.options import EnvName, Host, json_option


@click.command(epilog="Example: jupyman check server1 --env pytorch")
@click.argument("host", required=False, type=Host())
@click.option("--env", type=EnvName(), help="look at one environment")
@json_option
@click.pass_obj
def command(context: Context, host: str | None, env: str | None, as_json: bool) -> None:
    """Look at a host: GPUs, driver and CUDA, environments, torch, ports, disk, and problems with their fix."""
    report = context.call(api.Check(host=host, env=env), quiet=as_json)
    if as_json:
        context.dump(report)
        return
    account = f"user {report['user'] or 'unknown'}, shell {report['shell'] or 'unknown'}"
    context.out(f"{report['host']}: {report['os'] or 'unknown system'}, {account}")
    disk = report["disk"]
    if disk:
        context.out(f"home: {disk['path']}, {terminal.size(disk['free'])} of {terminal.size(disk['total'])} free")
    if report["slurm"]:
        context.out(f"Slurm: {report['slurm']}")
    driver = report["driver"]
    if driver:
        context.out(f"driver {driver['version'] or 'unknown'}, CUDA up to {driver['cuda'] or 'unknown'}")
    for toolkit in report["cuda_toolkits"]:
        context.out(f"CUDA toolkit {toolkit['version']} in {toolkit['path']}")
    if report["cudnn"]:
        context.out(f"cuDNN {report['cudnn']}")
    _gpus(context, report)
    _environments(context, report)
    if report["jupyter"]:
        servers = [
            (str(s["pid"]), str(s["port"] or "-"), s["session"] or "-", s["root_dir"] or "-") for s in report["jupyter"]
        ]
        context.out("\n" + terminal.table(("JUPYTER PID", "PORT", "SESSION", "DIRECTORY"), servers))
    ports = [port for port in report["ports"] if port["ours"]]
    if ports:
        rows = [(str(p["port"]), p["address"], str(p["pid"] or "-"), _brief(p["command"] or "-")) for p in ports]
        context.out("\n" + terminal.table(("YOUR PORT", "ADDRESS", "PID", "COMMAND"), rows))
    if report["problems"]:
        context.out("\nproblems:")
        for problem in report["problems"]:
            context.out(f"  {problem['severity']}: {problem['text']}\n    fix: {problem['fix']}")


def _brief(command: str) -> str:
    """Cut a command line where it is long, but not before what an interpreter in a deep folder runs."""
    return command if len(command) <= 120 else command[:119] + "…"


def _gpus(context: Context, report: dict[str, Any]) -> None:
    if not report["gpus"]:
        return
    rows = []
    for gpu in report["gpus"]:
        memory = f"{terminal.size(gpu['memory_used'])} / {terminal.size(gpu['memory_total'])}"
        use = "?" if gpu["utilization"] is None else f"{gpu['utilization']} %"
        who = ", ".join(f"{p['user'] or '?'}:{p['pid']}" for p in gpu["processes"]) or "-"
        rows.append((str(gpu["index"]), gpu["name"] or "?", memory, use, who))
    context.out("\n" + terminal.table(("GPU", "NAME", "MEMORY", "USE", "PROCESSES"), rows))


def _environments(context: Context, report: dict[str, Any]) -> None:
    if not report["environments"]:
        return
    context.out("\n" + environments(report["environments"]))
    names = {env["prefix"]: env["name"] for env in report["environments"]}
    # What does not fit stands below among the problems, with its fix.
    fits = [verdict for verdict in report["verdicts"] if verdict["ok"] is not False]
    if fits:
        context.out()
    for verdict in fits:
        context.out(f"{names.get(verdict['env']) or verdict['env']}: {verdict['text']}")


def environments(found: list[dict[str, Any]]) -> str:
    """Lay out environments as a table."""
    rows = []
    for env in found:
        torch = env["torch"]
        build = "-" if torch is None else f"{torch['version']} ({'CUDA ' + torch['cuda'] if torch['cuda'] else 'CPU'})"
        rows.append(
            (
                env["name"] or "-",
                env["kind"],
                env["python"] or "?",
                env["jupyter"] or "-",
                env["ipykernel"] or "-",
                build,
                env["prefix"],
            )
        )
    return terminal.table(("ENV", "KIND", "PYTHON", "JUPYTER", "IPYKERNEL", "TORCH", "PREFIX"), rows)
