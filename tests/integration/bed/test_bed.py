"""The test bed: real logins by real shells, a Jupyter that runs, recorded GPUs, and nothing left afterwards."""

from __future__ import annotations

import json
import pwd
import socket
import subprocess
from pathlib import Path

import psutil
import pytest

from tests.bed import KINDS, Bed, Cli, User, needs_root, private_sshd, wait_until
from tests.bed.accounts import NOISE_LINES

SHELL_NAMES = {"bash": "bash", "dash": "dash", "tcsh": "tcsh", "fish": "fish", "zsh": "zsh"}
QUERY = "nvidia-smi --query-gpu={} --format=csv,noheader,nounits"
APPS = "nvidia-smi --query-compute-apps=gpu_uuid,pid,process_name,used_gpu_memory --format=csv,noheader,nounits"


@pytest.mark.parametrize("kind", KINDS)
def test_every_user_can_log_in(bed: Bed, kind: str) -> None:
    user = bed.user(kind)
    ran = bed.ssh(kind, "id -un; echo $HOME")
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.splitlines()[-2:] == [user.name, str(user.home)]


@needs_root
@pytest.mark.parametrize(("kind", "program"), SHELL_NAMES.items())
def test_the_login_shell_is_what_it_claims(bed: Bed, kind: str, program: str) -> None:
    user = bed.user(kind)
    # Each of them has its own word for its process, or none: the kernel's answer is the same for all.
    ran = bed.ssh(kind, "sh -c 'readlink /proc/$PPID/exe'; true")
    assert Path(ran.stdout.strip()).name.startswith({"tcsh": "bsd-csh"}.get(kind, program)[:3]) or program in ran.stdout
    assert pwd.getpwnam(user.name).pw_shell == str(user.shell)


@needs_root
@pytest.mark.parametrize(
    ("kind", "line"), [("tcsh", "set x = (a b); echo $#x"), ("fish", "for x in a b; end; count a b")]
)
def test_tcsh_and_fish_are_no_posix_shells(bed: Bed, kind: str, line: str) -> None:
    assert bed.ssh(kind, "for x in a b; do echo $x; done").stdout.split() != ["a", "b"]
    assert bed.ssh(kind, line).stdout.split() == ["2"]


@needs_root
def test_the_banner_is_on_both_streams(bed: Bed) -> None:
    ran = bed.ssh("banner", "echo done")
    assert len(ran.stdout.splitlines()) == NOISE_LINES + 1
    assert len(ran.stderr.splitlines()) == NOISE_LINES
    assert ran.stdout.splitlines()[-1] == "done"


def test_the_path_is_clean(bed: Bed) -> None:
    user = bed.user()
    path = bed.ssh("bash", "echo $PATH").stdout.strip()
    assert path == f"{user.programs}:/usr/local/bin:/usr/bin:/bin"
    assert not any(user.programs.iterdir())


def test_the_conda_root_has_its_environments(bed: Bed) -> None:
    listed = json.loads(bed.ssh("bash", "~/miniconda3/bin/conda env list --json").stdout)["envs"]
    root = bed.conda.root
    assert listed == [str(root), *(str(root / "envs" / name) for name in ("lab", "pytorch", "tf"))]
    # Readable for every account: records, history, Python itself.
    ran = bed.ssh(
        "bash", "cd ~/miniconda3 && cat envs/*/conda-meta/history conda-meta/*.json >/dev/null && ls conda-meta"
    )
    assert ran.returncode == 0, ran.stderr
    assert "conda-24.9.2-py311h06a4308_0.json" in ran.stdout


@pytest.mark.parametrize(
    ("env", "found", "missing"),
    [
        ("lab", ("jupyterlab", "jupyter_server", "ipykernel"), ("torch",)),
        ("pytorch", ("ipykernel", "torch"), ("jupyterlab", "jupyter_server", "notebook")),
        ("tf", (), ("ipykernel", "jupyterlab", "torch")),
        ("base", (), ("ipykernel", "jupyterlab", "torch")),
    ],
)
def test_an_environment_has_its_packages_and_no_others(
    bed: Bed, env: str, found: tuple[str, ...], missing: tuple[str, ...]
) -> None:
    code = "import importlib.util as u, json, sys; "
    code += "print(json.dumps([sys.prefix, [bool(u.find_spec(n)) for n in sys.argv[1:]]]))"
    prefix = "miniconda3" if env == "base" else f"miniconda3/envs/{env}"
    ran = bed.ssh("bash", f"~/{prefix}/bin/python -c '{code}' {' '.join((*found, *missing))}")
    real, have = json.loads(ran.stdout)
    assert Path(real).resolve() == bed.conda.root / ("" if env == "base" else f"envs/{env}")
    assert have == [True] * len(found) + [False] * len(missing)


def test_a_home_has_an_environment_of_its_own(bed: Bed) -> None:
    user = bed.user()
    listed = (user.home / ".conda" / "environments.txt").read_text().split()
    assert listed == [f"{user.home}/work/env"]
    assert bed.ssh("bash", f"{listed[0]}/bin/python -c 'import sys; print(sys.prefix)'").stdout.strip() == listed[0]


def test_jupyter_lab_runs_as_the_user(bed: Bed) -> None:
    ran = bed.ssh("bash", "~/miniconda3/envs/lab/bin/jupyter-lab --version")
    assert ran.returncode == 0, ran.stderr
    assert int(ran.stdout.split(".")[0]) >= 4


def test_a_cell_runs_as_the_user(user: User, fresh_bed: Bed) -> None:
    del user
    code = (
        "from jupyter_client.manager import run_kernel\n"
        "with run_kernel() as kernel:\n"
        "    kernel.execute_interactive('import getpass; print(getpass.getuser())')\n"
    )
    ran = fresh_bed.ssh("bash", "~/miniconda3/envs/pytorch/bin/python -", input=code)
    assert ran.stdout.strip() == fresh_bed.user().name, ran.stderr


def test_the_activation_hook_is_there(bed: Bed) -> None:
    ran = bed.ssh("bash", "sh -c '. ~/miniconda3/envs/pytorch/etc/conda/activate.d/jm_test.sh; echo $JM_ACTIVATED'")
    assert ran.stdout.strip() == "pytorch"


def test_no_gpu_program_unless_chosen(bed: Bed) -> None:
    found = bed.ssh("bash", "command -v nvidia-smi").stdout.strip()
    assert not found.startswith(str(bed.folder))


def test_two_gpus(user: User, fresh_bed: Bed) -> None:
    user.set_gpu("two-a100")
    rows = fresh_bed.ssh("bash", QUERY.format("index,name,memory.total,compute_cap")).stdout.splitlines()
    assert rows == ["0, NVIDIA A100-SXM4-80GB, 81920, 8.0", "1, NVIDIA A100-SXM4-80GB, 81920, 8.0"]
    apps = fresh_bed.ssh("bash", APPS).stdout.splitlines()
    assert [row.split(", ", 2)[2] for row in apps] == [
        "/opt/conda/envs/pytorch/bin/python, 60012",
        "train, with a comma, 1210",
    ]
    assert "CUDA Version: 12.4" in fresh_bed.ssh("bash", "nvidia-smi").stdout
    assert len(fresh_bed.ssh("bash", "nvidia-smi -L").stdout.splitlines()) == len(rows)


@pytest.mark.parametrize(
    ("case", "command", "status", "words"),
    [
        ("mismatch", "nvidia-smi", 18, "Driver/library version mismatch"),
        ("mismatch", QUERY.format("index"), 18, "Driver/library version mismatch"),
        ("no-driver", QUERY.format("index"), 9, "couldn't communicate with the NVIDIA driver"),
        ("no-devices", QUERY.format("index"), 6, "No devices were found"),
        ("r610", "nvidia-smi", 0, "CUDA UMD Version: 13.3"),
        ("mig", QUERY.format("index,utilization.gpu,mig.mode.current"), 0, "0, [N/A], Enabled"),
        ("mig", "nvidia-smi -L", 0, "MIG 1g.10gb"),
        ("old-driver", QUERY.format("index,compute_cap"), 2, 'Field "compute_cap" is not a valid field to query.'),
        ("old-driver", QUERY.format("index,driver_version"), 0, "0, 450.80.02"),
    ],
)
def test_the_other_gpu_cases(user: User, fresh_bed: Bed, case: str, command: str, status: int, words: str) -> None:
    user.set_gpu(case)
    ran = fresh_bed.ssh("bash", command)
    assert ran.returncode == status
    assert words in ran.stdout


def test_a_wedged_driver_hangs_and_dies_when_killed(user: User, fresh_bed: Bed) -> None:
    user.set_gpu("hang")
    ran = fresh_bed.ssh("bash", f"timeout 0.3 {QUERY.format('index')}")
    assert ran.returncode == 124
    assert ran.stdout == ""


@needs_root
def test_a_neighbour_holds_a_port(bed: Bed) -> None:
    other = bed.user("other")
    with other.hold_port() as held:
        assert Path(f"/proc/{held.pid}").stat().st_uid == other.uid
        with socket.create_connection(("127.0.0.1", held.port), 5):
            pass
        port = held.port
    with pytest.raises(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port), 5):
        pass


@needs_root
def test_passwords_and_keyboard_interactive_are_available(bed: Bed) -> None:
    paramiko = pytest.importorskip("paramiko")
    bed.user("other").set_password("correct horse")
    for options, login in (
        (("PasswordAuthentication yes",), "auth_password"),
        (("UsePAM yes", "KbdInteractiveAuthentication yes"), "auth_interactive"),
    ):
        with bed.start_sshd(*options) as sshd:
            transport = paramiko.Transport((sshd.address, sshd.port))
            try:
                transport.start_client(timeout=10)
                answer = (
                    "correct horse"
                    if login == "auth_password"
                    else lambda _title, _text, asked: ["correct horse"] * len(asked)
                )
                getattr(transport, login)(bed.user("other").name, answer)
                assert transport.is_authenticated()
            finally:
                transport.close()


def test_an_sshd_with_other_keys_and_another_address(bed: Bed) -> None:
    with bed.start_sshd(address="127.0.0.2", host_keys=("rsa",)) as sshd:
        assert "ssh-rsa" in sshd.known_hosts.read_text()
        assert bed.ssh("bash", "echo there", sshd=sshd).stdout.strip() == "there"


def test_an_sshd_can_be_restarted_on_its_port(bed: Bed) -> None:
    with bed.start_sshd() as sshd:
        port = sshd.port
        sshd.stop()
        assert bed.ssh("bash", "true", sshd=sshd).returncode == 255
        sshd.start()
        assert sshd.port == port
        assert bed.ssh("bash", "true", sshd=sshd).returncode == 0


def test_a_connection_can_be_broken(bed: Bed) -> None:
    with bed.start_sshd() as sshd:
        words = ["ssh", "-F", str(sshd.ssh_config), "server1", "echo up; exec sleep 600"]
        import subprocess

        with subprocess.Popen(
            words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        ) as client:
            assert client.stdout is not None
            assert client.stdout.readline() == b"up\n"
            [connection] = sshd.connections()
            connection.kill()
            assert client.wait(10) == 255
    bed.reset()


@needs_root
def test_reset_ends_processes_and_cleans_homes(bed: Bed) -> None:
    user = bed.user("zsh") if "zsh" in {one.kind for one in bed.users} else bed.user()
    user.put("notes/secret", "x", 0o600)
    user.set_gpu("two-a100")
    assert user.run("sh", "-c", "mkdir /tmp/jm-left$$ && nohup sleep 600 >/dev/null 2>&1 & echo $!").returncode == 0
    wait_until(user.processes, what="the process")
    user.reset()
    assert user.processes() == []
    assert sorted(entry.name for entry in user.home.iterdir()) == [".conda", "miniconda3", "work"]
    assert not any(user.programs.iterdir())
    assert not any(entry.lstat().st_uid == user.uid for entry in Path("/tmp").iterdir())


@needs_root
def test_a_bed_leaves_no_trace() -> None:
    with Bed() as second:
        names, folder, port = [user.name for user in second.users], second.folder, second.sshd.port
        second.ssh("bash", "nohup sleep 600 >/dev/null 2>&1 </dev/null &")
        uid = second.user().uid
    assert not folder.exists()
    assert not {entry.pw_name for entry in pwd.getpwall()} & set(names)
    with pytest.raises(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port), 5):
        pass
    # A zombie holds nothing; when it goes is the business of the machine's first process.
    assert not [one for one in psutil.process_iter() if one.uids().real == uid and one.status() != psutil.STATUS_ZOMBIE]


def test_the_command_line_has_a_home_of_its_own(cli: Cli, jupyman_home: Path, ssh_config: Path) -> None:
    assert cli.environ["JUPYMAN_HOME"] == str(jupyman_home)
    assert cli.environ["JUPYMAN_SSH_CONFIG"] == str(ssh_config)
    assert "SSH_AUTH_SOCK" not in cli.environ
    ran = cli("--version")
    assert ran.rc == 0, ran
    assert cli.browsed == []


def test_openssh_logs_in_to_a_private_sshd(tmp_path: Path) -> None:
    with private_sshd(tmp_path / "bed") as sshd:
        words = ["ssh", "-F", str(sshd.ssh_config), "-o", "BatchMode=yes", "bed", "echo hello"]
        done = subprocess.run(words, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
        assert done.stdout == "hello\n", done.stderr
