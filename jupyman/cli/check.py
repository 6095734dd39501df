"""`jupyman check`."""

from __future__ import annotations

from typing import Any

import click

from jupyman import api
from jupyman.cli import terminal
from jupyman.cli.context import Context
from jupyman.cli.options import EnvName, Host, json_option


@click.command(epilog="Example: jupyman check server1 --env pytorch --deep")
@click.argument("host", required=False, type=Host())
@click.option("--env", type=EnvName(), help="look at one environment")
@click.option(
    "--deep", is_flag=True, help="run a tiny torch program in it on the GPU; without --env in each that has torch"
)
@json_option
@click.pass_obj
def command(context: Context, host: str | None, env: str | None, deep: bool, as_json: bool) -> None:
    """Look at a host: GPUs, driver and CUDA, environments, torch, ports, disk, and problems with their fix."""
    report = context.call(api.Check(host=host, env=env, deep=deep), quiet=as_json)
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
        where = " (nvcc on PATH)" if toolkit["on_path"] else ""
        context.out(f"CUDA toolkit {toolkit['version']} in {toolkit['path']}{where}")
    if report["cudnn"]:
        context.out(f"cuDNN {report['cudnn']}")
    for environment in report["environments"]:
        if environment["cudnn"]:
            context.out(f"cuDNN {environment['cudnn']} in environment {environment['name'] or environment['prefix']}")
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
        rows.append((str(gpu["index"]), gpu["name"] or "?", memory, use, gpu["uuid"] or "?"))
        rows += [("", f"MIG {part['name']}", "", "", part["uuid"]) for part in gpu["instances"]]
    context.out("\n" + terminal.table(("GPU", "NAME", "MEMORY", "USE", "UUID"), rows))
    held = [
        (
            str(gpu["index"]),
            terminal.size(process["memory"]),
            process["user"] or "-",
            str(process["pid"]),
            _what(process),
        )
        for gpu in report["gpus"]
        for process in gpu["processes"]
    ]
    if held:
        context.out("\n" + terminal.table(("ON GPU", "MEMORY", "USER", "PID", "WHAT"), held))


def _what(process: dict[str, Any]) -> str:
    """Say what a process on a GPU is: its notebook, else its kernel, else its program."""
    if process["user"] is None:
        return f"PID {process['pid']} (another container or a user that cannot be seen)"
    session = f"session {process['session']}" if process["session"] else None
    kernel = f"kernel {process['kernel'][:8]}" if process["kernel"] else None
    if process["notebook"]:
        return f"{process['notebook']} ({', '.join(filter(None, (session, kernel)))})"
    name = _brief(process["name"] or "?")
    belongs = ", ".join(filter(None, (session, kernel)))
    return f"{name} ({belongs})" if belongs else name


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
    # A failure stands below, with its fix.
    for result in report["deep"]:
        if result["ok"] is not False:
            context.out(f"{names.get(result['env']) or result['env']}: {result['text']}")


def environments(found: list[dict[str, Any]]) -> str:
    """Lay out environments as a table."""
    rows = []
    for env in found:
        torch = env["torch"]
        build = "-" if torch is None else f"{torch['version']} ({'CUDA ' + torch['cuda'] if torch['cuda'] else 'CPU'})"
        rows.append(
            (
                env["name"] or "-",
                env["kind"] if env["state"] == "ready" else f"{env['kind']}, {env['state']}",
                env["python"] or "?",
                env["jupyter"] or "-",
                env["ipykernel"] or "-",
                build,
                env["prefix"],
            )
        )
    return terminal.table(("ENV", "KIND", "PYTHON", "JUPYTER", "IPYKERNEL", "TORCH", "PREFIX"), rows)
