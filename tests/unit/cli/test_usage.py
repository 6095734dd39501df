"""Bad input is refused with two lines and status 2, before a daemon is even started; help has examples."""

from __future__ import annotations

import json
from pathlib import Path

import click
import pytest

from jupyman.cli.main import cli
from tests import fakes

BAD = [
    "up --port abc",
    "up --port 0",
    "up --port 70000",
    "up --port -1",
    "up --port 1e3",
    "up --port ٣",
    "up --local-port 65536",
    "up -- -oProxyCommand=x",
    "up --name -x",
    "up --name 1234",
    "up --name a/b",
    "up --name ..",
    f"up --name {'a' * 64}",
    "up --app nb",
    "up --on-conflict maybe",
    "up --restart sometimes",
    "up --timeout 0",
    "up --timeout nan",
    "up --timeout inf",
    "up --env -x",
    "up --nonsense",
    "up a b",
    "down",
    "kill 0",
    "kill 70000",
    "kill server1:0",
    "kill server1:70000",
    "kill -- -x",
    "tunnel",
    "tunnel abc",
    "tunnel 0",
    "tunnel 70000",
    "tunnel 8888:abc",
    "tunnel 8888:0",
    "tunnel 8888:h:70000",
    "tunnel 8888:-h:80",
    "tunnel 8888 8889:70000",
    "tunnel 8888 server1 --host server2",
    "tunnel 8888 --host -x",
    "ps -- -x",
    "logs -n -1",
    "logs -n x",
    "kernel add",
    "kernel add e --name a/b",
    "kernel add e h1 --host h2",
    "kernel rm ..",
    "kernel check -- -x",
    "kernel check a@b --host c",
    "kernel check p --yes",
    "env create",
    "env create -- -x",
    "env create x h1 --host h2",
    "env create x --from /nonexistent",
    "env create x --tool pip",
    "env create x --packages '",
    "env create x --kernel a/b",
    "env logs x -n -1",
    "env rm",
    "env push --env x",
    "env push /nonexistent.whl --env x",
    "env push --download -x --env x",
    "env mirror use",
    "env mirror nonsense",
    "host add 1234",
    "host add -- -x",
    "host add x -- -oProxyCommand=y",
    "host add x --port 0",
    "completion tcsh",
    "nonsense",
    "kernel nonsense",
    "--nonsense",
]


@pytest.mark.parametrize("line", BAD)
@pytest.mark.parametrize("as_json", [False, True])
def test_bad_input(tmp_path: Path, line: str, as_json: bool) -> None:
    words = line.split(" ")
    result = fakes.run(tmp_path, *([words[0], "--json", *words[1:]] if as_json else words))
    assert result.status == 2
    if as_json:
        error = result.json["error"]
        assert error["code"] == "usage"
        assert error["message"]
        assert error["hint"]
    else:
        first, second = result.stderr.splitlines()
        assert first.startswith("error: ")
        assert second.startswith("hint: ")
        assert result.stdout == ""
    assert not list(tmp_path.iterdir())  # nothing was touched, no daemon was started


@pytest.mark.parametrize("text", ["a\nb", "a\x00b", "", "a\x1b[2J"])
@pytest.mark.parametrize("option", ["--dir", "--gpu", "--env"])
def test_text_of_several_lines(tmp_path: Path, option: str, text: str) -> None:
    assert fakes.run(tmp_path, "up", "server1", option, text).status == 2
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("text", ["a b", "a\nb", "", "h" * 256])
def test_what_no_host_is_called(tmp_path: Path, text: str) -> None:
    assert fakes.run(tmp_path, "up", text).status == 2
    assert fakes.run(tmp_path, "tunnel", "8888\n", text).status == 2


LATER = [
    "up --slurm",
    "up server1 --no-slurm",
    "up server1 --slurm-arg --mem=3G",
    "up server1 --slurm-arg=--mem=3G",
    "ps -w",
    "ps -aw",
    "ps --watch",
    "dashboard",
    "dashboard --help",
]


@pytest.mark.parametrize("line", LATER)
def test_promised_for_later(tmp_path: Path, line: str) -> None:
    result = fakes.run(tmp_path, *line.split())
    assert result.status == 2
    assert result.stderr.splitlines()[1] == "hint: not in this version"
    shown = fakes.run(tmp_path, *line.split(), "--json")
    assert shown.status == 2
    assert shown.json["error"]["hint"] == "not in this version"


def commands(group: click.Group = cli, words: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    found = [words]
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        found += commands(command, (*words, name)) if isinstance(command, click.Group) else [(*words, name)]
    return found


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_help_has_an_example(tmp_path: Path, words: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    assert fakes.run(tmp_path, *words, "--help").status == 0
    text = capsys.readouterr().out
    assert "Example" in text
    assert "jupyman " + " ".join(words) in text
    assert not {"slurm", "dashboard", "--watch", "orphans"} & set(text.lower().replace(",", " ").split())
    assert max(map(len, text.splitlines())) <= 80


def test_help_of_all_names_every_verb_of_the_contract(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fakes.run(tmp_path, "--help")
    listed = {line.split()[0] for line in capsys.readouterr().out.splitlines() if line.startswith("  ")}
    contract = "up down kill ps tunnel open url logs check kernel env host daemon demo"
    assert set(contract.split()) <= listed


@pytest.mark.parametrize("words", [(), ("kernel",), ("daemon",)])
def test_no_verb(tmp_path: Path, words: tuple[str, ...]) -> None:
    result = fakes.run(tmp_path, *words)
    assert result.status == 2
    assert "Usage" in result.stdout


def test_version(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert fakes.run(tmp_path, "--version").status == 0
    assert capsys.readouterr().out.startswith("jupyman")


NEED_CONFIG = [
    "up server1",
    "down x",
    "kill x",
    "ps",
    "tunnel 1",
    "open",
    "url",
    "logs",
    "check",
    "kernel add e",
    "kernel ls",
    "kernel rm k",
    "env ls",
    "host ls",
    "host add x",
    "host rm x",
    "host trust x",
    "daemon start",
    "daemon restart",
]


@pytest.mark.parametrize("line", NEED_CONFIG)
def test_broken_config_is_named_before_anything_is_touched(tmp_path: Path, line: str) -> None:
    config = tmp_path / "config.toml"
    config.write_text('[hosts.server1]\ndir = "~"\nprot = 1\n')
    result = fakes.run(tmp_path, *line.split())
    assert result.status == 2
    assert f"{config} line 3" in result.stderr
    assert "prot" in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["config.toml"]


@pytest.mark.parametrize(("line", "status"), [("daemon status", 40), ("daemon stop", 0)])
def test_a_broken_config_does_not_hold_the_daemon(tmp_path: Path, line: str, status: int) -> None:
    (tmp_path / "config.toml").write_text("what\n")
    assert fakes.run(tmp_path, *line.split()).status == status


# --- hosts of config.toml, without a daemon -----------------------------------------------------------------------


def test_host_add_and_rm(tmp_path: Path) -> None:
    words = ("host", "add", "box", "alice@10.0.0.7:2222", "--env", "pytorch", "--dir", "~/w", "--port", "9000")
    assert fakes.run(tmp_path, *words).status == 0
    text = (tmp_path / "config.toml").read_text()
    assert text == '[hosts.box]\nssh = "alice@10.0.0.7:2222"\nenv = "pytorch"\ndir = "~/w"\nport = 9000\n'
    assert fakes.run(tmp_path, *words).status == 2
    assert fakes.run(tmp_path, "host", "rm", "box", "--json").json == {"host": "box"}
    gone = fakes.run(tmp_path, "host", "rm", "box", "--json")
    assert gone.status == 2
    assert gone.json["error"]["code"] == "unknown-host"
    assert [path.name for path in tmp_path.iterdir()] == ["config.toml"]


# --- completion ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_script(tmp_path: Path, shell: str) -> None:
    result = fakes.run(tmp_path, "completion", shell)
    assert result.status == 0
    assert "_JUPYMAN_COMPLETE" in result.stdout


def complete(home: Path, line: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> list[str]:
    words = line.split(" ")
    monkeypatch.setenv("_JUPYMAN_COMPLETE", "bash_complete")
    monkeypatch.setenv("COMP_WORDS", line)
    monkeypatch.setenv("COMP_CWORD", str(len(words) - 1))
    status: object
    try:
        status = fakes.run(home, environ={"_JUPYMAN_COMPLETE": "bash_complete"}).status
    except SystemExit as end:  # click's own way to end a completion
        status = end.code
    shown = capsys.readouterr()
    assert (status, shown.err) == (0, "")
    return [entry.partition(",")[2] for entry in shown.out.split()]


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("jupyman down ", ["one", "two"]),
        ("jupyman kill o", ["one"]),
        ("jupyman up s", ["server1", "server2"]),
        ("jupyman up c", ["configured"]),
        ("jupyman up server1 --env py", ["py311", "pytorch"]),
        ("jupyman kernel add pyt", ["pytorch"]),
        ("jupyman tunnel 8888 --host server2", ["server2"]),
        ("jupyman up --on-conflict f", ["fail"]),
        ("jupyman dashboard ", []),
        ("jupyman env create ", []),
        ("jupyman dae", ["daemon"]),
    ],
)
def test_completion_reads_files_only(
    tmp_path: Path,
    line: str,
    offered: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    state = {
        "version": 1,
        "sessions": {"one": {"name": "one", "host": "server1"}, "two": {"name": "two", "host": "server2"}},
        "environments": {"server1": ["base", "py311"], "server2": ["pytorch"]},
    }
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "state.json").write_text(json.dumps(state))
    (tmp_path / "config.toml").write_text("[hosts.configured]\n")
    assert complete(tmp_path, line, monkeypatch, capsys) == offered
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("content", [None, "{", '{"sessions": 3}'])
def test_completion_without_a_usable_state(
    tmp_path: Path, content: str | None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "config.toml").write_text("broken\n")
    if content is not None:
        (tmp_path / "state" / "state.json").write_text(content)
    assert complete(tmp_path, "jupyman up ", monkeypatch, capsys) == []
