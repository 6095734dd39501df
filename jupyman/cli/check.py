"""`jupyman check`."""

from __future__ import annotations

from collections.abc import Iterator

import click

from jupyman import api, rules
from jupyman.cli import terminal
from jupyman.cli.context import Context
from jupyman.cli.options import EnvName, Host, json_option
from jupyman.cli.tables import environments
from jupyman.model import GpuProcess, HostReport


@click.command(epilog="Example: jupyman check server1 --env pytorch --deep")
@click.argument("host", required=False, type=Host())
@click.option("--env", type=EnvName(), help="report only this environment")
@click.option("--deep", is_flag=True, help="run a small torch program on the GPU: in ENV, else wherever torch is")
@json_option
@click.pass_obj
def command(context: Context, host: str | None, env: str | None, deep: bool, as_json: bool) -> None:
    """Inspect a host: GPUs, driver and CUDA, environments, torch, ports, disk, and problems with their fixes."""
    report = context.call(api.Check(host=host, env=env, deep=deep), quiet=as_json)
    if as_json:
        context.dump(report)
        return
    context.out("\n\n".join(("\n".join(_summary(report)), *_tables(report))))
    context.out_problems(report.problems)


def _summary(report: HostReport) -> Iterator[str]:
    account = f"user {report.user or 'unknown'}, shell {report.shell or 'unknown'}"
    yield f"{report.host}: {report.os or 'unknown system'}, {account}"
    if report.disk is not None:
        disk = report.disk
        yield f"home: {disk.path}, {rules.size(disk.free)} of {rules.size(disk.total)} free"
    if report.slurm:
        yield f"Slurm: {report.slurm}"
    if report.driver is not None:
        yield f"driver {report.driver.version or 'unknown'}, CUDA up to {report.driver.cuda or 'unknown'}"
    for toolkit in report.cuda_toolkits:
        where = " (nvcc on PATH)" if toolkit.on_path else ""
        yield f"CUDA toolkit {toolkit.version} in {toolkit.path}{where}"
    if report.cudnn:
        yield f"cuDNN {report.cudnn}"
    for environment in report.environments:
        if environment.cudnn:
            yield f"cuDNN {environment.cudnn} in environment {environment.name or environment.prefix}"


def _tables(report: HostReport) -> Iterator[str]:
    yield from _gpus(report)
    yield from _environments(report)
    if report.jupyter:
        servers = [(_text(one.pid), _text(one.port), one.session or "-", one.root_dir or "-") for one in report.jupyter]
        yield terminal.table(("JUPYTER PID", "PORT", "SESSION", "DIRECTORY"), servers)
    ports = [port for port in report.ports if port.ours]
    if ports:
        rows = [(str(one.port), one.address, _text(one.pid), _brief(one.command or "-")) for one in ports]
        yield terminal.table(("YOUR PORT", "ADDRESS", "PID", "COMMAND"), rows)


def _text(number: int | None) -> str:
    return str(number) if number is not None else "-"


def _brief(command: str) -> str:
    """Shorten a long command line, but keep the script that an interpreter in a deep folder runs."""
    return command if len(command) <= 120 else command[:119] + "…"


def _gpus(report: HostReport) -> Iterator[str]:
    if not report.gpus:
        return
    rows: list[tuple[str, ...]] = []
    for gpu in report.gpus:
        memory = f"{rules.size(gpu.memory_used)} / {rules.size(gpu.memory_total)}"
        use = "?" if gpu.utilization is None else f"{gpu.utilization} %"
        rows.append((str(gpu.index), gpu.name or "?", memory, use, gpu.uuid or "?"))
        rows += [("", f"MIG {part.name}", "", "", part.uuid) for part in gpu.instances]
    yield terminal.table(("GPU", "NAME", "MEMORY", "USE", "UUID"), rows)
    held = [
        (str(gpu.index), rules.size(one.memory), one.user or "-", str(one.pid), _process(one))
        for gpu in report.gpus
        for one in gpu.processes
    ]
    if held:
        yield terminal.table(("ON GPU", "MEMORY", "USER", "PID", "WHAT"), held)


def _process(process: GpuProcess) -> str:
    """Describe a process on a GPU: its notebook, else its kernel, else its program."""
    if process.user is None:
        return f"PID {process.pid} (another container or a user that cannot be seen)"
    session = f"session {process.session}" if process.session else ""
    kernel = f"kernel {process.kernel[:8]}" if process.kernel else ""
    belongs = ", ".join(filter(None, (session, kernel)))
    name = process.notebook or _brief(process.name or "?")
    return f"{name} ({belongs})" if belongs else name


def _environments(report: HostReport) -> Iterator[str]:
    if not report.environments:
        return
    yield environments(report.environments)
    names = {env.prefix: env.name for env in report.environments}
    # What does not fit or fails is listed below among the problems, with its fix.
    results = [(one.env, one.text) for one in report.verdicts if one.ok is not False]
    results += [(one.env, one.text) for one in report.deep if one.ok is not False]
    if results:
        yield "\n".join(f"{names.get(env) or env}: {text}" for env, text in results)
