"""The pure parts: runtime files, addresses, kernel specs, activation."""

from __future__ import annotations

import json
import shlex
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jupyman import errors
from jupyman.model import Environment, KernelSpec
from jupyman.tools.envs import activation
from jupyman.tools.jupyter import kernelspec, server


def environment(
    *,
    name: str = "pytorch",
    prefix: str = "/opt/conda/envs/pytorch",
    kind: str = "conda",
    root: str | None = "/opt/conda",
) -> Environment:
    import msgspec

    fields = {"name": name, "prefix": prefix, "kind": kind, "root": root}
    empty = {"python": None, "jupyter": None, "ipykernel": None, "torch": None}
    return msgspec.convert({**fields, **empty}, Environment)


# As jupyter_server 2.21.1 and notebook 6.5.7 write them (recorded on Debian 12).
SERVER_2 = """{ "base_url": "/", "hostname": "localhost", "password": false, "pid": 7, "port": 8888,
 "root_dir": "/home/a", "secure": false, "sock": "", "token": "t",
 "url": "http://localhost:8888/", "version": "2.21.1"}"""
NOTEBOOK_6 = """{ "base_url": "/x/", "hostname": "localhost", "notebook_dir": "/n", "password": true, "pid": 8,
 "port": 9, "secure": false, "sock": "", "token": "", "url": "http://localhost:9/x/"}"""


def test_runtime_files_of_both_kinds() -> None:
    new = server.parse_runtime(SERVER_2.replace("\n", ""))
    old = server.parse_runtime(NOTEBOOK_6)
    assert new is not None
    assert old is not None
    assert (new.pid, new.port, new.directory, new.token, new.version) == (7, 8888, "/home/a", "t", "2.21.1")
    assert (old.pid, old.directory, old.password, old.version, old.base_url) == (8, "/n", True, None, "/x/")


@pytest.mark.parametrize("text", ["", "{", "[]", '{"pid": "7"}', '{"port": 1}', '"x"', "\x00"])
def test_other_texts_are_no_runtime_file(text: str) -> None:
    assert server.parse_runtime(text) is None


@pytest.mark.parametrize(
    ("text", "address", "port", "loopback", "reached"),
    [
        ("0100007F:22B8", "127.0.0.1", 8888, True, True),
        ("0200007F:22B8", "127.0.0.2", 8888, True, False),
        ("00000000:0050", "0.0.0.0", 80, False, True),
        ("00000000000000000000000000000000:22B8", "::", 8888, False, True),
        ("00000000000000000000000001000000:22B8", "::1", 8888, True, False),
        ("0000000000000000FFFF00000100007F:22B8", "127.0.0.1", 8888, True, True),
        ("127.0.0.1:8888", "127.0.0.1", 8888, True, True),
        ("[::1]:8888", "::1", 8888, True, False),
        ("*:8888", "*", 8888, False, True),
    ],
)
def test_addresses(text: str, address: str, port: int, loopback: bool, reached: bool) -> None:
    found = server.parse_listen(text)
    assert found is not None
    assert (found.address, found.port, found.loopback, found.from_loopback) == (address, port, loopback, reached)


@pytest.mark.parametrize("text", ["", ":", "x", "127.0.0.1:", "127.0.0.1:99999", ":80"])
def test_no_addresses(text: str) -> None:
    assert server.parse_listen(text) is None


@given(st.text())
def test_parsers_never_raise(text: str) -> None:
    server.parse_runtime(text)
    server.parse_listen(text)
    kernelspec.parse("n", "/d", text)


@pytest.mark.parametrize(
    ("text", "url"), [(None, "/"), ("", "/"), ("/", "/"), ("x", "/x/"), ("/x", "/x/"), ("/x/y/", "/x/y/")]
)
def test_base_urls(text: str | None, url: str) -> None:
    assert server.base_url(text) == url


@pytest.mark.parametrize(
    ("name", "ok"),
    [
        ("s1", True),
        ("_x", True),
        ("a" * 63, True),
        ("8888", False),
        ("", False),
        (".x", False),
        ("a/b", False),
        ("a" * 64, False),
        ("a\n", False),
    ],
)
def test_session_names(name: str, ok: bool) -> None:
    assert server.valid_name(name) is ok


@given(st.text())
def test_the_default_kernel_is_a_python_literal(kernel: str) -> None:
    text = server.configuration(f"a = 1\n{server.DEFAULT_KERNEL_LINE}", kernel)
    scope: dict[str, str] = {}
    exec(compile(text, "c", "exec"), scope)
    assert scope["_kernel"] == kernel


def test_a_template_without_its_line_is_a_bug() -> None:
    with pytest.raises(ValueError, match="_kernel"):
        server.configuration("", None)


@pytest.mark.parametrize(
    ("name", "prefix", "kernel"),
    [
        ("PyTorch", "/x", "pytorch"),
        ("my env (2)", "/x", "my-env-2"),
        ("", "/home/a/Proj.v1/", "proj.v1"),
        ("中文", "/x", "python"),
    ],
)
def test_kernel_names_come_from_the_environment(name: str, prefix: str, kernel: str) -> None:
    assert kernelspec.name_for(environment(name=name, prefix=prefix)) == kernel


@given(st.text())
def test_a_derived_name_is_always_allowed(name: str) -> None:
    derived = kernelspec.name_for(environment(name=name))
    assert kernelspec.checked_name(derived) == derived


@pytest.mark.parametrize("name", ["", ".", "..", "a b", "a/b", "ä", "a\n", "x" * 101])
def test_other_kernel_names_are_refused(name: str) -> None:
    with pytest.raises(errors.UsageFault):
        kernelspec.checked_name(name)


@pytest.mark.parametrize(
    ("argv", "env", "directory", "prefix", "program"),
    [
        (["/e/bin/python", "-m"], {}, "/d/kernels/k", "/e", "/e/bin/python"),
        (["python", "-m"], {}, "/e/share/jupyter/kernels/k", "/e", "/e/bin/python"),
        (["python", "-m"], {}, "/home/a/.local/share/jupyter/kernels/k", None, None),
        (["/bin/bash", "-c", "x", "/e/bin/python", "-m"], {"CONDA_PREFIX": "/e"}, "/d/k", "/e", "/e/bin/python"),
        (["/usr/bin/R", "--slave"], {}, "/d/k", None, "/usr/bin/R"),
    ],
)
def test_whose_kernel(argv: list[str], env: dict[str, str], directory: str, prefix: str | None, program: str) -> None:
    spec = kernelspec.parse("k", directory, json.dumps({"argv": argv, "env": env, "display_name": "K"}))
    assert (spec.prefix, kernelspec.executable(spec)) == (prefix, program)


@pytest.mark.parametrize(
    ("directory", "holder"),
    [
        ("/opt/conda/envs/lab/share/jupyter/kernels/python3", "/opt/conda/envs/lab"),
        ("/opt/conda/share/jupyter/kernels/python3", "/opt/conda"),
        ("/opt/conda/envs/lab2/share/jupyter/kernels/python3", None),
        ("/home/a/.local/share/jupyter/kernels/x", None),
        ("/usr/share/jupyter/kernels/x", None),  # every server looks there, also of other environments
        ("/usr/local/share/jupyter/kernels/x", None),
    ],
)
def test_whose_servers_show_a_kernel(directory: str, holder: str | None) -> None:
    prefixes = ["/usr", "/usr/local", "/opt/conda", "/opt/conda/envs/lab/"]
    found = kernelspec.holder(directory, prefixes)
    assert (found or "").rstrip("/") == (holder or "")


def spec(name: str, display: str, prefix: str = "/opt/conda/envs/tf", directory: str = "/d") -> KernelSpec:
    argv = [f"{prefix}/bin/python", "-m", "ipykernel_launcher"]
    return kernelspec.parse(name, f"{directory}/{name}", json.dumps({"argv": argv, "display_name": display}))


@pytest.mark.parametrize(
    ("name", "display", "runs", "promised"),
    [
        ("pytorch", "Python (pytorch)", "pytorch", None),
        ("pytorch", "Python (pytorch)", "tf", "pytorch"),
        ("pytorch", "pytorch", "base", "pytorch"),
        ("pytorch", "Python 3 (ipykernel)", "base", "pytorch"),  # ipykernel's own words: the name counts
        ("pytorch", "Python (tf)", "tf", None),  # what is shown counts before the name
        ("mine", "Python [tf]", "pytorch", "tf"),
        ("mine", "pytorch with extras", "tf", None),
        ("python3", "Python 3 (ipykernel)", "tf", None),
        ("x", "Python (gone)", None, None),
        ("pytorch", "Python (pytorch)", None, "pytorch"),
    ],
)
def test_names_that_promise_another_environment(
    name: str, display: str, runs: str | None, promised: str | None
) -> None:
    known = [environment(name=one, prefix=f"/opt/{one}") for one in ("base", "pytorch", "tf", "system")]
    there = next((one for one in known if one.name == runs), None)
    assert kernelspec.misnamed(spec(name, display), there, known) == promised


def test_kernels_that_a_server_cannot_tell_apart() -> None:
    specs = [
        spec("python3", "Python 3", directory="/home"),
        spec("python3", "Python 3", prefix="/opt/lab", directory="/opt/lab"),
        spec("a", "Same"),
        spec("b", "Same"),
        spec("c", "Other"),
    ]
    every = {one.name for one in specs}
    hidden, alike = kernelspec.confusions(specs, every, "lab")
    assert (hidden.code, hidden.severity) == ("kernel-hidden", "warning")
    assert "/home/python3 and /opt/lab/python3" in hidden.text
    assert (alike.code, alike.severity) == ("kernel-alike", "info")
    assert "kernels a and b alike, as 'Same'" in alike.text
    assert kernelspec.confusions(specs, {"c"}, "lab") == []
    assert [one.code for one in kernelspec.confusions(specs, {"b"}, "lab")] == ["kernel-alike"]
    same = [spec("k", "K", directory="/one"), spec("k", "K", directory="/two")]
    assert [one.severity for one in kernelspec.confusions(same, {"k"}, "lab")] == ["info"]


def test_the_variables_of_conda_and_venv() -> None:
    assert activation.variables(environment())["CONDA_DEFAULT_ENV"] == "pytorch"
    assert activation.variables(environment(name=""))["CONDA_DEFAULT_ENV"] == "/opt/conda/envs/pytorch"
    assert activation.variables(environment(kind="micromamba"))["MAMBA_ROOT_PREFIX"] == "/opt/conda"
    assert activation.variables(environment(kind="venv", prefix="/v")) == {"VIRTUAL_ENV": "/v"}
    assert activation.variables(environment(kind="system", prefix="/usr")) == {}
    assert activation.path(environment()) == ["/opt/conda/envs/pytorch/bin", "/opt/conda/condabin"]
    assert activation.path(environment(kind="system", prefix="/usr")) == []


@pytest.mark.parametrize("shell", ["sh", "bash"])
@pytest.mark.parametrize("prefix", ["/opt/x", "/opt/a b'c$(id)`id`\"\\;*", "/opt/中文"])
def test_any_prefix_survives_the_shell(shell: str, prefix: str) -> None:
    script = activation.script(environment(name=prefix, prefix=prefix, root=None))
    ask = 'printf "%s\\n" "$CONDA_PREFIX" "$PATH" "$1" "$-"'
    done = subprocess.run(
        [shell, "-c", f"{script}\n{ask}", "x", "kept"],
        env={"PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=True,
    )
    where, path, first, _ = done.stdout.splitlines()
    assert (where, path, first) == (prefix, f"{prefix}/bin:/usr/bin:/bin", "kept")


def test_a_wrapper_becomes_the_program() -> None:
    text = kernelspec.wrapper(environment(prefix="/v", kind="venv"))
    argv = ["sh", "-c", f"echo $$; {text}", "sh", "-c", "echo $$ $1", "x", "a b"]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    shell, program = done.stdout.splitlines()
    assert program == f"{shell} a b"
    assert shlex.quote("/v") in text
