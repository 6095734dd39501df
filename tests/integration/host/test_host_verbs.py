"""`jupyman host`: trusted keys, questions, changes of config.toml, and hosts behind hosts."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.bed import Bed, Cli, Sshd, keygen
from tests.bed.aftermath import says
from tests.bed.terminal import Terminal

CONFIG = """\
# mine: do not touch
default_host = "box"   # the fast one

[defaults]
env = "pytorch"  # for all

[hosts.box]
# by the window
ssh = "server1"
"""


@pytest.fixture
def cli(bed: Bed, jupyman_home: Path) -> Cli:
    """The command line, with known hosts and an SSH configuration of its own; nothing here changes the bed's."""
    made = Cli(jupyman_home, jupyman_home.parent / "ssh_config")
    describe(made, bed.sshd)
    return made


def known(cli: Cli) -> Path:
    return cli.user_home / "known_hosts"


def describe(cli: Cli, sshd: Sshd, *options: str) -> None:
    """Write the SSH configuration: that of an sshd, but strict as ssh itself is, and with known hosts of our own."""
    assert cli.ssh_config is not None
    own = ["Host server1", f"UserKnownHostsFile {known(cli)}", "StrictHostKeyChecking ask", *options]
    cli.ssh_config.write_text("\n".join([*own, "Match all", f"Include {sshd.ssh_config}", ""]))


def fingerprint(key: Path) -> str:
    """Return what ssh-keygen itself says of a key."""
    said = subprocess.run(["ssh-keygen", "-l", "-f", f"{key}.pub"], check=True, capture_output=True, text=True)
    return said.stdout.split()[1]


def line(sshd: Sshd, key: Path, names: str | None = None) -> str:
    """Return a line of known_hosts."""
    blob = " ".join(Path(f"{key}.pub").read_text().split()[:2])
    return f"{names or f'[{sshd.address}]:{sshd.port}'} {blob}\n"


def logins(sshd: Sshd) -> int:
    """Count the attempts to log in that an sshd has seen."""
    return sum("publickey" in one for one in sshd.log.read_text().splitlines())


# --- trust --------------------------------------------------------------------------------------------------------


def test_a_key_is_written_only_after_a_yes(cli: Cli, bed: Bed) -> None:
    mark = fingerprint(bed.host_keys["ed25519"])
    before = logins(bed.sshd)
    ran = cli("host", "trust", "server1", input="y\n")
    says(ran, 12)
    assert f"the key of server1 is unknown: {mark}" in ran.stderr
    for keys in ("n\n", "\n", "\x03"):
        with Terminal(cli, "host", "trust", "server1") as terminal:
            terminal.expect(f"server1 has the key ssh-ed25519 {mark}. Do you trust it? [y/N]")
            terminal.type(keys)
            ran = terminal.end()
        assert ran.rc == 130, ran
    assert not known(cli).exists()
    says(cli("check", "server1"), 12)
    with Terminal(cli, "host", "trust", "server1") as terminal:
        terminal.expect(mark)
        terminal.type("yes\n")
        ran = terminal.end()
    assert ran.rc == 0, ran
    assert ran.stdout == f"server1: {mark} written to {known(cli)}\n"
    assert known(cli).read_text() == line(bed.sshd, bed.host_keys["ed25519"])
    assert known(cli).stat().st_mode & 0o777 == 0o600
    # To look at a key and to refuse it sends nothing, not even a name.
    assert logins(bed.sshd) == before
    assert cli("check", "server1", "--json").json["host"] == "server1"
    assert logins(bed.sshd) > before


def test_yes_is_required_without_a_terminal(cli: Cli, bed: Bed) -> None:
    known(cli).write_text("# a colleague's\nother.example.org ssh-ed25519 AAAA")
    ran = cli("host", "trust", "server1", "-y", "--json")
    assert ran.rc == 0, ran
    mark = fingerprint(bed.host_keys["ed25519"])
    assert ran.json == {"host": "server1", "fingerprint": mark, "written": str(known(cli))}
    text = known(cli).read_text()
    key = line(bed.sshd, bed.host_keys["ed25519"])
    assert text == f"# a colleague's\nother.example.org ssh-ed25519 AAAA\n{key}"
    again = cli("host", "trust", "server1", "-y")
    assert again.rc == 0, again
    assert again.stdout == f"server1: {mark} is already known\n"
    assert known(cli).read_text() == text


def test_a_changed_key_is_not_to_be_trusted(cli: Cli, bed: Bed) -> None:
    known(cli).write_text("# first\n" + line(bed.sshd, keygen(cli.user_home / "old")))
    before = known(cli).read_text()
    ran = cli("host", "trust", "server1", "-y")
    says(ran, 12)
    assert f"the key of server1 has CHANGED: {known(cli)} line 2 has another one" in ran.stderr
    assert f"ssh-keygen -f {known(cli)} -R" in ran.stderr
    with Terminal(cli, "host", "trust", "server1") as terminal:
        ran = terminal.end()
    assert ran.rc == 12, ran
    assert "[y/N]" not in ran.stderr
    told = cli("host", "trust", "server1", "-y", "--json").json["error"]
    assert (told["code"], told["details"]) == ("host-key", {"file": str(known(cli)), "line": 2})
    says(cli("check", "server1"), 12)
    assert known(cli).read_text() == before


def test_a_revoked_key_is_not_to_be_trusted(cli: Cli, bed: Bed) -> None:
    key = bed.host_keys["ed25519"]
    known(cli).write_text(line(bed.sshd, key) + "\n@revoked " + line(bed.sshd, key, "*"))
    for words in (("host", "trust", "server1", "-y"), ("check", "server1")):
        ran = cli(*words)
        says(ran, 12)
        assert f"is revoked by {known(cli)} line 3" in ran.stderr


def test_a_certificate_authority_does_not_prove_the_key(cli: Cli, bed: Bed) -> None:
    authority = "@cert-authority " + line(bed.sshd, keygen(cli.user_home / "authority"))
    known(cli).write_text(authority)
    ran = cli("check", "server1")
    says(ran, 12)
    assert "its certificate authority is known" in ran.stderr
    assert cli("host", "trust", "server1", "-y").rc == 0
    assert known(cli).read_text() == authority + line(bed.sshd, bed.host_keys["ed25519"])
    assert cli("check", "server1").rc == 0


def test_hashed_names_are_written_and_read(cli: Cli, bed: Bed) -> None:
    describe(cli, bed.sshd, "HashKnownHosts yes")
    assert cli("host", "trust", "server1", "-y").rc == 0
    text = known(cli).read_text()
    assert text.startswith("|1|")
    assert "127.0.0.1" not in text
    # ssh-keygen finds what we wrote, and we what it hashed.
    found = ["ssh-keygen", "-f", str(known(cli)), "-F", f"[{bed.sshd.address}]:{bed.sshd.port}"]
    assert subprocess.run(found, check=False, capture_output=True).returncode == 0
    assert "is already known" in cli("host", "trust", "server1").stdout
    known(cli).write_text(line(bed.sshd, bed.host_keys["rsa"]))
    subprocess.run(["ssh-keygen", "-q", "-H", "-f", str(known(cli))], check=True, capture_output=True)
    assert known(cli).read_text().startswith("|1|")
    # A host that is known by its RSA key alone is asked for that one.
    assert "is already known" in cli("host", "trust", "server1").stdout
    assert cli("check", "server1").rc == 0


def test_a_key_that_cannot_be_saved_is_reported(cli: Cli, bed: Bed) -> None:
    assert cli.ssh_config is not None
    cli.ssh_config.write_text(cli.ssh_config.read_text().replace(str(known(cli)), "/dev/null"))
    ran = cli("host", "trust", "server1", "-y")
    says(ran, 12)
    assert "UserKnownHostsFile" in ran.stderr


# --- ls, add, rm --------------------------------------------------------------------------------------------------


def test_hosts_are_added_and_removed_in_the_users_own_file(cli: Cli, bed: Bed) -> None:
    file = cli.home / "config.toml"
    cli.home.mkdir()
    file.write_text(CONFIG)
    file.chmod(0o644)
    ran = cli("host", "add", "far", "alice@10.0.0.7:2222", "--env", "tf", "--dir", "~/w", "--gpu", "any:2", "--json")
    assert ran.rc == 0, ran
    assert ran.json == {"host": "far", "ssh": "alice@10.0.0.7:2222", "env": "tf", "dir": "~/w", "gpu": "any:2"}
    text = file.read_text()
    assert text.startswith(CONFIG)
    added = '[hosts.far]\nssh = "alice@10.0.0.7:2222"\nenv = "tf"\ndir = "~/w"\ngpu = "any:2"\n'
    assert text.removeprefix(CONFIG).strip() == added.strip()
    assert file.stat().st_mode & 0o777 == 0o644
    for words in (("add", "far", "x"), ("add", "-x"), ("add", "n", "-oProxyCommand=x"), ("add", "n", "--port", "0")):
        assert cli("host", *words).rc == 2, words
    assert cli("host", "rm", "nobody").rc == 2
    assert file.read_text() == text
    rows = {one["name"]: one for one in cli("host", "ls", "--json").json["hosts"]}
    assert (rows["far"]["ssh"], rows["far"]["source"]) == ("alice@10.0.0.7:2222", "config")
    assert (rows["box"]["ssh"], rows["box"]["source"]) == ("server1", "config")
    assert (rows["server1"]["ssh"], rows["server1"]["source"]) == ("server1", "ssh_config")
    assert {one["link"]["state"] for one in rows.values()} == {"idle"}
    assert cli("host", "rm", "far").rc == 0
    assert file.read_text().strip() == CONFIG.strip()


def test_a_host_of_the_configuration_is_used_by_its_name(cli: Cli, bed: Bed) -> None:
    known(cli).write_text(line(bed.sshd, bed.host_keys["ed25519"]))
    assert cli("host", "add", "box", "server1").rc == 0
    assert (cli.home / "config.toml").stat().st_mode & 0o777 == 0o600
    # The only one that is known needs no name.
    report = cli("check", "--json")
    assert report.rc == 0, report
    assert report.json["host"] == "box"
    shown = cli("host", "ls")
    assert [row.split() for row in shown.stdout.splitlines() if row.startswith(("HOST", "box"))] == [
        ["HOST", "SSH", "FROM", "LINK"],
        ["box", "server1", "config", "up"],
    ]
    assert cli("host", "rm", "box", "--json").json == {"host": "box"}
    assert cli("check").rc == 2


def test_a_broken_configuration_is_named_and_left_as_it_is(cli: Cli) -> None:
    file = cli.home / "config.toml"
    cli.home.mkdir()
    file.write_text('[hosts.box]\nssh = "server1"\ncolour = "red"\n')
    for words in (("host", "ls"), ("host", "add", "n", "server1"), ("check", "box")):
        ran = cli(*words)
        says(ran, 2)
        assert f"error: {file} line 3: hosts.box.colour: is not known" in ran.stderr
    assert file.read_text() == '[hosts.box]\nssh = "server1"\ncolour = "red"\n'
    assert cli.ssh_config is not None
    file.unlink()
    cli.ssh_config.unlink()
    ran = cli("host", "ls")
    says(ran, 2)
    assert f"error: {cli.ssh_config} cannot be read: No such file or directory" in ran.stderr


# --- hosts behind hosts -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def hops(bed: Bed) -> Iterator[list[Sshd]]:
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(bed.start_sshd(address=address)) for address in ("127.0.0.2", "127.0.0.3")]


def chain(cli: Cli, bed: Bed, hops: list[Sshd], jump: str) -> None:
    """Write the SSH configuration: `server1` behind `hop1`, `hop2`."""
    describe(cli, bed.sshd, f"ProxyJump {jump}")
    assert cli.ssh_config is not None
    lines = []
    for number, hop in enumerate(hops, 1):
        lines += [
            f"Host hop{number}",
            f"HostName {hop.address}",
            f"Port {hop.port}",
            f"User {bed.user('bash').name}",
            f"IdentityFile {bed.client_key}",
            "IdentitiesOnly yes",
            f"UserKnownHostsFile {known(cli)}",
        ]
    cli.ssh_config.write_text("\n".join([*lines, cli.ssh_config.read_text()]))
    known(cli).write_text("".join(line(one, bed.host_keys["ed25519"]) for one in (bed.sshd, *hops)))


@pytest.mark.parametrize(("jump", "through"), [("hop1", [1, 0]), ("hop1,hop2", [1, 1])])
def test_a_host_behind_others_is_reached(cli: Cli, bed: Bed, hops: list[Sshd], jump: str, through: list[int]) -> None:
    chain(cli, bed, hops, jump)
    before = [accepted(hop) for hop in hops]
    ran = cli("check", "server1", "--json")
    assert ran.rc == 0, ran
    assert ran.json["user"] == bed.user().name
    assert [accepted(hop) - count for hop, count in zip(hops, before, strict=True)] == through
    # On one link all the rest.
    assert cli("env", "ls", "server1").rc == 0
    assert [accepted(hop) - count for hop, count in zip(hops, before, strict=True)] == through
    # Each hop is a host like any other: to a stranger nothing is sent.
    assert cli("daemon", "stop").rc == 0
    known(cli).write_text("".join(line(one, bed.host_keys["ed25519"]) for one in (bed.sshd, *hops[1:])))
    ran = cli("check", "server1")
    says(ran, 12)
    assert "the key of hop1 is unknown" in ran.stderr
    assert accepted(hops[0]) == before[0] + through[0]


def accepted(sshd: Sshd) -> int:
    return sum("Accepted publickey" in one for one in sshd.log.read_text().splitlines())


def test_the_key_of_a_host_behind_another_is_not_looked_up_past_it(cli: Cli, bed: Bed, hops: list[Sshd]) -> None:
    chain(cli, bed, hops, "hop1")
    known(cli).write_text("")
    ran = cli("host", "trust", "server1", "-y")
    says(ran, 2)
    assert "another machine" in ran.stderr
    # The first hop's can be.
    assert cli("host", "trust", "hop1", "-y").rc == 0
    assert known(cli).read_text() == line(hops[0], bed.host_keys["ed25519"])
