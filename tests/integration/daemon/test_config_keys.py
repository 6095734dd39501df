"""Keys of config.toml on a real host: a login node stays free of Jupyter, and `restart` works."""

from __future__ import annotations

from typing import Any

import pytest

from tests.bed import Cli, User, wait_until
from tests.bed.aftermath import refused
from tests.bed.ports import free_ports

SLURM = '[hosts.server1]\nlauncher = "slurm"\nslurm = { partition = "gpu", gres = "gpu:1" }\n'


def configure(cli: Cli, text: str) -> None:
    cli.home.mkdir(exist_ok=True)
    (cli.home / "config.toml").write_text(text)


def jupyters(user: User) -> list[int]:
    return [one.pid for one in user.processes() if "jupyter" in " ".join(one.cmdline())]


def session(cli: Cli) -> dict[str, Any]:
    [found] = cli("ps", "--json").json["sessions"]
    assert isinstance(found, dict)
    return found


@pytest.mark.parametrize("text", [SLURM, '[hosts.server1]\nslurm = { time = "4:00:00" }\n'])
def test_no_jupyter_starts_on_a_host_that_wants_slurm(cli: Cli, user: User, text: str) -> None:
    configure(cli, f'default_host = "server1"\n{text}')
    for words in (("up", "server1"), ("up",), ("up", "server1", "--name", "other")):
        said = refused(cli, *words, status=2, code="bad-config")
        assert "hint: not in this version" in said.stderr
        assert "[hosts.server1]" in said.stderr
    assert "hint: not in this version" in refused(cli, "up", "server1", "--slurm", status=2, code="usage").stderr
    assert cli("ps", "--json").json["sessions"] == []
    assert jupyters(user) == []


def test_everything_else_works_there_and_for_other_hosts(cli: Cli, user: User) -> None:
    """A session of before, a forward, a look, the daemon's end and return, and the end of the session."""
    there, here = free_ports(2)
    configure(cli, "")
    made = cli("up", "server1", "--app", "server", "--no-browser", "--json")
    assert made.rc == 0, made
    configure(cli, SLURM)
    assert cli("ps").rc == 0
    assert session(cli)["state"] == "running"
    assert cli("tunnel", f"{here}:{there}", "server1").rc == 0
    assert cli("check", "server1").rc == 0
    refused(cli, "up", "server1", status=2, code="bad-config")
    assert session(cli)["state"] == "running", "the refusal touches nothing"
    assert cli("daemon", "restart").rc == 0
    wait_until(lambda: session(cli)["state"] == "running", what="the session, with the next daemon")
    assert session(cli)["forwards"][0]["local"] == made.json["forwards"][0]["local"]
    assert [one["local"] for one in cli("ps", "--json").json["forwards"]] == [f"127.0.0.1:{here}"]
    # A host without a table of its own; that it is unknown to ssh is the second thing that is found out.
    assert "bad-config" not in cli("up", "nowhere.invalid", "--json").stdout
    ended = cli("kill", "server1")
    assert ended.rc == 0, ended
    assert jupyters(user) == []


def test_a_hosts_table_is_used_and_its_dead_server_is_restarted(cli: Cli, user: User) -> None:
    there, here = free_ports(2)
    user.put("work/a.txt", "")
    configure(
        cli,
        f"""
default_host = "lab"
ssh_config = "{cli.ssh_config}"
[defaults]
dir = "/nowhere"
app = "lab"
[hosts.lab]
ssh = "server1"
dir = "~/work"
app = "server"
port = {there}
local_port = {here}
restart = "always"
""",
    )
    cli = Cli(cli.home)  # without JUPYMAN_SSH_CONFIG
    made = cli("up", "--no-browser", "--json")
    assert made.rc == 0, made
    first = made.json
    assert (first["name"], first["host"]) == ("lab", "lab")
    server = first["server"]
    assert (server["app"], server["port"]) == ("server", there)
    assert server["root_dir"].endswith("/work")
    assert first["forwards"][0]["local"] == f"127.0.0.1:{here}"
    user.run("kill", "-9", str(server["pid"]))

    def back() -> bool:
        one = session(cli)
        return bool(one["state"] == "running" and one["server"]["pid"] != server["pid"])

    wait_until(back, what="the restart", timeout=40)
    assert session(cli)["url"] == first["url"]
