"""config.toml: strict when read, gentle when written."""

from __future__ import annotations

import stat
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jupyman import config, errors, rules

COMMENTED = """\
# mine
default_host = "a"   # the usual one

[hosts.a]  # first
ssh = "alice@10.0.0.7"
env = 'x'

[hosts.b]
dir = "~/w"
"""


def test_absent_file_is_empty(tmp_path: Path) -> None:
    assert config.load(tmp_path / "config.toml") == config.Config()


def test_everything_that_the_contract_names(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text("""\
default_host = "server1"
ssh_config = "~/work/ssh"
[defaults]
env = "pytorch"
on_conflict = "ask"
[hosts.server1]
ssh = "alice@10.0.0.7:22"
dir = "~/work"
env = "pytorch"
gpu = "auto"
engine = "sshtunnel"
port = 9000
local_port = 9001
[hosts."box.example.org"]
[hosts.cluster]
launcher = "slurm"
slurm = { partition = "gpu", gres = "gpu:1", time = "4:00:00", mem = "32G" }
""")
    read = config.load(path)
    assert read.default_host == "server1"
    assert read.defaults.on_conflict == "ask"
    assert read.hosts["server1"].local_port == 9001
    assert read.hosts["box.example.org"] == config.HostEntry()
    assert (read.hosts["cluster"].slurm or {})["gres"] == "gpu:1"


@pytest.mark.parametrize(
    ("text", "line", "says"),
    [
        ("\n\na = ", 3, "TOML"),
        ('x = """\n\n', 3, "TOML"),
        ('default_hst = "x"', 1, "default_hst"),
        ('[defaults]\nenv = "a"\n\n[hosts.a]\nport = 1\n[hosts.b]\n# env\nenv = 3', 8, "hosts.b.env"),
        ('[hosts.a]\nenv = "x"\n[defaults]\nenv = 3', 4, "defaults.env"),
        ('[hosts]\na = { env = "x", port = 70000 }', 2, "70000"),
        ('\nhosts.a.port = "8"', 2, "hosts.a.port"),
        ("[hosts.a]\nlocal_port = 0", 2, "between 1 and 65535"),
        ("[hosts.a]\nport = true", 2, "bool"),
        ("[hosts.a]\nport = 8888.0", 2, "float"),
        ('\n[hosts."-x"]\nenv = "a"', 2, "-x"),
        ("[hosts.1234]", 1, "1234"),
        ('[hosts."a b"]', 1, "a b"),
        ("hosts = 3", 1, "hosts"),
        ("\nhosts.a = 3", 2, "table"),
        ("[[hosts]]\na = 1", 1, "hosts"),
        ("\ndefaults = 1", 2, "defaults"),
        ("[defaults]\nhosts = 3", 2, "defaults.hosts"),
        ('[hosts.a]\nssh = "-oProxyCommand=x"', 2, "hosts.a.ssh"),
        ('[hosts.a]\nssh = ""', 2, "hosts.a.ssh"),
        ('\ndefault_host = "a b"', 2, "default_host"),
        ('[hosts.a]\nengine = "x"', 2, "engine"),
        ('[defaults]\nrestart = "yes"', 2, "restart"),
        ("[hosts.a]\nslurm = 3", 2, "slurm"),
        ("[hosts.a]\n'env' = 3", 2, "hosts.a.env"),
        ("[hosts.a]\nfree = 3\n", 2, "known here: ssh, env"),
    ],
)
def test_fault_names_file_and_line(tmp_path: Path, text: str, line: int, says: str) -> None:
    path = tmp_path / "config.toml"
    path.write_text(text)
    with pytest.raises(errors.ConfigFault) as caught:
        config.load(path)
    assert f"{path} line {line}" in caught.value.message
    assert caught.value.details["line"] == line
    assert says in caught.value.message
    assert caught.value.status == 2


def test_fault_of_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(errors.ConfigFault):
        config.load(tmp_path)
    (tmp_path / "config.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(errors.ConfigFault):
        config.load(tmp_path / "config.toml")


def test_byte_order_mark_of_notepad(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_bytes(b'\xef\xbb\xbfdefault_host = "a"\r\n')
    assert config.load(path).default_host == "a"
    config.add_host(path, "b", {})
    assert config.load(path).hosts == {"b": config.HostEntry()}


@given(st.text(max_size=80))
def test_any_text_loads_or_is_refused(text: str) -> None:
    """Never another exception; a name that passes is harmless everywhere."""
    try:
        name = rules.check_name(text)
    except errors.UsageFault:
        assert not text or not text.isascii() or len(text) > 63 or not text.strip("-.0123456789") or not text.isalnum()
    else:
        assert name.isascii()
        assert len(name) <= 63
        assert name[0] not in "-."
        assert not {"/", "\n", " ", "\0", ":", "'", "$"} & set(name)


@pytest.mark.parametrize("name", ["a", "_", "A.b-c_d", "1a", "a" * 63])
def test_names(name: str) -> None:
    assert rules.check_name(name) == name


@pytest.mark.parametrize("name", ["", "-a", ".a", "1", "8888", "a" * 64, "a/b", "a b", "a\n", "é", "a:b", "٣"])
def test_what_is_no_name(name: str) -> None:
    with pytest.raises(errors.UsageFault):
        rules.check_name(name)


@pytest.mark.parametrize("port", [1, 8888, 65535])
def test_ports(port: int) -> None:
    assert rules.check_port(port) == port


@pytest.mark.parametrize("port", [0, -1, 65536, 10**9])
def test_what_is_no_port(port: int) -> None:
    with pytest.raises(errors.UsageFault):
        rules.check_port(port)


# --- writing ------------------------------------------------------------------------------------------------------


def test_add_keeps_every_byte_of_the_user(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text(COMMENTED)
    config.add_host(path, "c.d", {"ssh": "bob@h", "port": 9000})
    text = path.read_text()
    assert text.startswith(COMMENTED)
    assert config.load(path).hosts["c.d"] == config.HostEntry(ssh="bob@h", port=9000)
    assert set(config.load(path).hosts) == {"a", "b", "c.d"}


def test_remove_takes_one_table(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text(COMMENTED)
    config.remove_host(path, "a")
    assert path.read_text() == COMMENTED.replace(
        """[hosts.a]  # first
ssh = "alice@10.0.0.7"
env = 'x'

""",
        "",
    )


@pytest.mark.parametrize(
    "text",
    ["", "# only a comment\n", "hosts = { a = { env = 'x' } }\n", "hosts.a.env = 'x'\n", "[hosts]\na.env = 'x'\n"],
)
def test_add_and_remove_in_any_style(tmp_path: Path, text: str) -> None:
    path = tmp_path / "config.toml"
    path.write_text(text)
    before = config.load(path).hosts
    config.add_host(path, "new", {"ssh": "n"})
    assert config.load(path).hosts == {**before, "new": config.HostEntry(ssh="n")}
    config.remove_host(path, "new")
    assert config.load(path).hosts == before


@pytest.mark.parametrize("mode", [0o600, 0o644, 0o640])
def test_mode_and_line_ends_stay(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "config.toml"
    path.write_bytes(b'default_host = "a"\r\n\r\n[hosts.a]\r\nenv = "x"\r\n')
    path.chmod(mode)
    config.add_host(path, "b", {"env": "y"})
    assert stat.S_IMODE(path.stat().st_mode) == mode
    assert path.read_bytes().startswith(b'default_host = "a"\r\n\r\n[hosts.a]\r\nenv = "x"\r\n')
    assert [file.name for file in tmp_path.iterdir()] == ["config.toml"]


def test_new_file_is_private(tmp_path: Path) -> None:
    path = tmp_path / "new" / "config.toml"
    config.add_host(path, "a", {})
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_a_link_to_the_users_dotfiles_stays_a_link(tmp_path: Path) -> None:
    real = tmp_path / "dotfiles" / "jupyman.toml"
    real.parent.mkdir()
    real.write_text(COMMENTED)
    path = tmp_path / "config.toml"
    path.symlink_to(real)
    config.add_host(path, "c", {})
    assert path.is_symlink()
    assert "c" in config.load(real).hosts


def test_what_cannot_be_added_leaves_the_file_alone(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text(COMMENTED)
    for name, values in (("a", {}), ("-x", {}), ("c", {"port": 0}), ("c", {"colour": "red"})):
        with pytest.raises(errors.UsageFault):
            config.add_host(path, name, values)  # type: ignore[arg-type]
    with pytest.raises(errors.UnknownHost):
        config.remove_host(path, "c")
    assert path.read_text() == COMMENTED


def test_a_broken_file_is_not_written(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text("broken")
    with pytest.raises(errors.ConfigFault):
        config.add_host(path, "a", {})
    assert path.read_text() == "broken"


def test_a_reader_never_sees_half_a_file(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text(COMMENTED)
    done = threading.Event()
    seen: list[bool] = []

    def read() -> None:
        while not done.is_set():
            seen.append("a" in config.load(path).hosts)

    reader = threading.Thread(target=read)
    reader.start()
    try:
        for number in range(20):
            config.add_host(path, f"n{number}", {"env": "x" * 2000})
    finally:
        done.set()
        reader.join()
    assert seen
    assert all(seen)


def test_mirrors(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text('[mirrors.lab]\nconda = "file:///srv/conda"\npip = "https://m.example/simple"\n')
    lab = config.load(path).mirrors["lab"]
    assert (lab.conda, lab.pip, lab.torch) == ("file:///srv/conda", "https://m.example/simple", None)
    for text, words in (
        ("[mirrors]\nlab = 1\n", "must be a table"),
        ('[mirrors.lab]\nurl = "https://x"\n', "url: is not known"),
        ('[mirrors.lab]\n\npip = "x"\n', "line 3"),
        ('[mirrors.lab]\npip = "https://me:secret@x/y"\n', "without a password"),
    ):
        path.write_text(text)
        with pytest.raises(errors.ConfigFault, match=words):
            config.load(path)
