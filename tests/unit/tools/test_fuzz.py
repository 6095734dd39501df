"""Hostile answers for each parser of a host's output: no crash, no hang, nothing unbounded.

Inputs are mutations of real answers, so that most of them are nearly right. The seed is another one in each run, and is
printed when a parser fails. ``JUPYMAN_FUZZ_ROUNDS=100000`` makes a long run.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from jupyman import errors
from jupyman.cli import terminal
from jupyman.core.sessions import outage_page
from jupyman.core.verbs import kill_orphans, tunnel
from jupyman.host.gpus import report
from jupyman.host.kernels import notebooks
from jupyman.host.report import ports, probe
from jupyman.host.servers import listing, records
from jupyman.host.shell import script
from jupyman.local import daemon_file
from jupyman.ssh.config import ssh_g
from jupyman.ssh.config.destination import Destination
from jupyman.ssh.login import hostkeys
from jupyman.tools.envs import discovery
from jupyman.tools.gpu import choose, nvidia_smi, torch_cuda, torch_run
from jupyman.tools.host import lsof, sockets
from jupyman.tools.jupyter import kernelspec, server
from tests.unit.tools.mutation import MARKER, mutate

DATA = Path(__file__).parents[2] / "data"
ROUNDS = int(os.environ.get("JUPYMAN_FUZZ_ROUNDS", "2000"))
SLOW = 1.0  # seconds for one input
GROWTH = 400  # times the input that its result may take, in bytes of JSON
PROBE = """\
uid 1000
user alice
home /home/alice
shell /bin/bash
node gpu1
boot_id 5f32acd5-7ad1-4f58-bbbf-764d17e34606
os Debian GNU/Linux 12 (bookworm)
gpu.header_status 0
gpu.header | NVIDIA-SMI 550.54.15   Driver Version: 550.54.15   CUDA Version: 12.4  |
gpu.status 0
gpu.row 0, GPU-1f2e, NVIDIA A100-SXM4-80GB, 550.54.15, 81920, 1210, 28, 8.0, Disabled
gpu.row 1, GPU-2f2e, NVIDIA A100-SXM4-80GB, 550.54.15, 81920, [N/A], [Not Supported], 8.0, Enabled
gpu.app GPU-1f2e, 60012, train, with a comma, 1210
gpu.user 60012 bob
gpu.uid 60012 1001
gpu.link 60012 4121
gpu.link 4121 1
gpu.kernel 60012 /tmp/jm-abcdef/kernel-1f3c9a20-7d41-4c57-8f5e-0a6b2d9c4e11.json
gpu.list GPU 1: NVIDIA A100-SXM4-80GB (UUID: GPU-2f2e)
gpu.list   MIG 3g.40gb     Device  0: (UUID: MIG-5a6e2c90)
gpu.apps_status 0
part gpus
orphan.pid 60012
orphan.ticks 4711
orphan.file /tmp/jm-abcdef/kernel-1f3c9a20-7d41-4c57-8f5e-0a6b2d9c4e11.json
orphan.memory 120000
orphan.child 60013
part orphans
nvcc 12.4.1
home_writable yes
disk /dev/vda 263174212 22000000 83000000 22% /
filesystem nfs
quota /dev/vda 100 200* 300 none
part disk
toolkit 12.4.1 /usr/local/cuda-12.4
cudnn 9.1.0
slurm slurm 22.05
env.prefix /opt/conda/envs/pytorch
env.kind conda
env.root /opt/conda
env.executable /opt/conda/envs/pytorch/bin/python
env.python 3.12.4
env.app lab
env.dist jupyter_server-2.21.1
env.torch __version__ = '2.5.1+cu124'
env.torch cuda = '12.4'
env.prefix /opt/conda
closed /root/envs
on_path /opt/conda/bin
part environments
"""
RECORDS = """\
node gpu1
boot_id 5f32acd5-7ad1-4f58-bbbf-764d17e34606
user alice
record.directory /home/alice/.local/state/jupyman/gpu1/server1
record.version 1
record.name server1
record.pid 4121
record.start_ticks 12345
record.boot_id 5f32acd5-7ad1-4f58-bbbf-764d17e34606
record.sock /tmp/jm-abcdef/server
record.app lab
record.gpus 0,1
record.started 2026-03-03T10:00:00Z
record.state alive
record.token 0123456789abcdef0123456789abcdef0123456789abcdef
other.node gpu2
other.name server1
server.file /home/alice/.local/share/jupyter/runtime/jpserver-77.json
server.pid 77
server.start_ticks 99
server.app lab
server.listen 0100007F:22B8
server.json {"pid": 77, "port": 8888, "base_url": "/", "token": "abc", "root_dir": "/home/alice", "version": "2.21.1"}
"""
REQUEST = "GET /lab HTTP/1.1\r\nHost: 127.0.0.1:8888\r\nAccept: text/html\r\n\r\n"
KNOWN = """\
[127.0.0.1]:2222 ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ6vFkcG4S0B0Hk6tX5Y3i9bX7T3mVbWc2q3yZr8uN1P comment
@revoked * ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ6vFkcG4S0B0Hk6tX5Y3i9bX7T3mVbWc2q3yZr8uN1P
@cert-authority *.lab ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ6vFkcG4S0B0Hk6tX5Y3i9bX7T3mVbWc2q3yZr8uN1P
|1|F1E1KeoE/eEWhi10WpGv4OdiO6Y=|3988QV0VE8wmZL7suNrYQLITLCg= ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAAAQQ==
"""
SSH_G = """\
user alice
hostname 10.0.0.7
port 22
identityfile ~/.ssh/id_%r
userknownhostsfile ~/.ssh/known_hosts ~/.ssh/known_hosts2
proxyjump gate,inner
connecttimeout 10
stricthostkeychecking ask
"""


def recorded(name: str) -> str:
    return (DATA / name).read_text(encoding="utf-8")


def facts(text: str) -> script.Facts:
    answer = f"motd\n{MARKER} begin\n{text}\n{MARKER} end 0\n".encode("utf-8", "surrogatepass")
    return script.parse(answer, MARKER)[0]


def owners(answer: script.Facts) -> object:
    return report.attribute(report.read(answer), report.tree(answer), {4121: "s"})


def orphans(answer: script.Facts) -> object:
    return kill_orphans.problem("h", kill_orphans.read(answer, report.read(answer)))


OUTAGE = outage_page.OutageFacts("s", "h", "x")
TOLD = (
    """{"stage": "done", "version": "2.5.1+cu124", "cuda": "12.4", "right": true, "device": "A100", "seconds": 3.1}"""
)
SESSIONS = """[{"id": "a", "path": "work/train.ipynb", "kernel": {"id": "1f3c9a20", "name": "python3"}}]"""


def told(text: str) -> Any:
    found = next(facts(PROBE).records("env", "prefix"))
    environment = discovery.read(found.one, found.all)
    assert environment is not None
    return torch_run.judge(environment, text, status=0, line=text, limit=9, install=None, gpus=True)


def decoded(text: str) -> Any:
    with contextlib.suppress(ValueError, RecursionError):
        return json.loads(text)
    return text


def read_env(text: str) -> Any:
    found = next(facts(text).records("env", "prefix"), script.Facts())
    return discovery.read(found.one, found.all, "/home/alice")


READERS: dict[str, tuple[str, Callable[[str], Any]]] = {
    "the protocol": (PROBE, lambda text: script.parse(text.encode("utf-8", "surrogatepass"), MARKER)[0].lines),
    "the report": (PROBE, lambda text: probe.read(facts(text), "h")),
    "whose GPU it is": (PROBE, lambda text: owners(facts(text))),
    "orphans": (PROBE, lambda text: orphans(facts(text))),
    "torch's own words": (TOLD, told),
    "sessions of a server": (SESSIONS, lambda text: notebooks.read(decoded(text))),
    "records": (RECORDS, lambda text: listing.rows("h", records.read(facts(text)))),
    "ports": (recorded("ports/lsof-root.txt"), lambda text: ports.read(facts(text))),
    "lsof": (recorded("ports/lsof-root.txt"), lambda text: [str(one) for one in lsof.parse(text.split("\n"))]),
    "ss": (recorded("ports/ss-root.txt"), lambda text: [str(one) for one in sockets.ss(text.split("\n"))]),
    "/proc/net/tcp": (recorded("ports/tcp.txt"), lambda text: [str(one) for one in sockets.proc_net(text.split("\n"))]),
    "nvidia-smi": (recorded("nvidia-smi/two-a100/gpus.csv"), lambda text: nvidia_smi.gpus(text.split("\n"))),
    "nvidia-smi's table": (
        recorded("nvidia-smi/r610/header.txt"),
        lambda text: [nvidia_smi.driver([], text.split("\n")), nvidia_smi.problem(9, text.split("\n"))],
    ),
    "GPU processes": (
        recorded("nvidia-smi/two-a100/apps.csv"),
        lambda text: nvidia_smi.processes(text.split("\n"), nvidia_smi.users(text.split("\n"))),
    ),
    "environments": (PROBE, read_env),
    "torch": ("__version__ = '2.5.1+cu124'\ncuda = '12.4'\n", lambda text: discovery.torch([text], text, text)),
    "versions": ("12.4.1", torch_cuda.version),
    "runtime files": ('{"pid": 77, "port": 8888, "base_url": "/", "token": "abc"}', server.parse_runtime),
    "listening addresses": ("0100007F:22B8", lambda text: str(server.parse_listen(text))),
    "kernel.json": (
        '{"argv": ["/opt/conda/bin/python", "-m", "ipykernel_launcher", "-f", "{connection_file}"], "env": {"A": "b"}}',
        lambda text: kernelspec.parse("k", "/d", text),
    ),
    "GPU wishes": ("free:20G", lambda text: str(choose.parse(text))),
    "requests of a browser": (REQUEST, lambda text: str(outage_page.answer(text.encode(), OUTAGE))),
    "known_hosts": (KNOWN, lambda text: [str(hostkeys.matches(one.names, "a")) for one in hostkeys.parse(text, "f")]),
    "ssh -G": (SSH_G, lambda text: str(ssh_g.parse(text, Destination.parse("h")))),
    "destinations": ("alice@10.0.0.7:2222", lambda text: str(Destination.parse(text))),
    "forwards": ("6006:127.0.0.1:16006", lambda text: tunnel.parse(text, "h")),
    "the terminal": ("server1 running", lambda text: terminal.table(("A", "B"), [(text, text)])),
}  # fmt: skip


@pytest.mark.parametrize("name", READERS)
def test_hostile_answers(name: str) -> None:
    text, read = READERS[name]
    seed = random.SystemRandom().randrange(1 << 32)
    chance = random.Random(seed)
    for number in range(ROUNDS):
        hostile = mutate(text, chance)
        try:
            start = time.monotonic()
            result = accepted(read, hostile)
            if time.monotonic() - start > SLOW:  # the machine may have paused: once more
                start = time.monotonic()
                accepted(read, hostile)
                assert time.monotonic() - start < SLOW
            size = len(msgspec.json.encode(result))
            assert size < GROWTH * (len(hostile) + 100)
        except Exception as error:
            raise AssertionError(f"{name}: input {number} of seed {seed}: {hostile!r}") from error


def accepted(read: Callable[[str], Any], hostile: str) -> Any:
    """Read it; an error of ours is a good answer."""
    try:
        found = read(hostile)
    except errors.JupymanError as error:
        return error.message.encode("utf-8", "replace").decode()
    return found.encode("utf-8", "replace").decode() if isinstance(found, str) else found


@pytest.mark.parametrize(
    "content", [b"", b"{", b"\xff\xfe", b"[]", b'{"pid": "x"}', b"null", b"9" * 5000, b"{" * 100_000]
)
def test_a_forged_daemon_file_is_no_address(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "daemon.json"
    file.write_bytes(content)
    assert daemon_file.read(file) is None
