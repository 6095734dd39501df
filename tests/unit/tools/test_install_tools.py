"""What installers say, what package files are, and how mirrors get into configuration files. Tables, no I/O.

Over 400 lines because the tables are of one parser after the other.
"""

from __future__ import annotations

import configparser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jupyman import errors
from jupyman.config import MirrorEntry
from jupyman.core.verbs.env_push import job_name
from jupyman.model import Environment
from jupyman.tools.install import failures, mirrors, packages
from jupyman.tools.install.mirrors import BUILT_IN, Mirror
from jupyman.tools.install.request import Tool

# --- what installers say --------------------------------------------------------------------------------------------

SAID: list[tuple[str, str, str, str]] = [
    # pip 23.2.1, run against a folder without that package.
    (
        "pip-missing",
        """\
$ /home/a/.virtualenvs/e/bin/python -m pip install nosuchpkg==9
Looking in indexes: file:///srv/simple
WARNING: Location 'file:///srv/simple/nosuchpkg/' is ignored: it is neither a file nor a directory.
ERROR: Could not find a version that satisfies the requirement nosuchpkg==9 (from versions: none)
ERROR: No matching distribution found for nosuchpkg==9
==> failed with status 1
""",
        "unsolvable",
        "ERROR: No matching distribution found for nosuchpkg==9",
    ),
    # pip 23.2.1, two packages that want two versions of a third.
    (
        "pip-conflict",
        """\
Processing ./w3/cc/cc-1.0-py3-none-any.whl (from aa)
INFO: pip is looking at multiple versions of bb to determine which version is compatible with other requirements.
ERROR: Cannot install aa==1.0 and bb==1.0 because these package versions have conflicting dependencies.

The conflict is caused by:
    aa 1.0 depends on cc<2
    bb 1.0 depends on cc>=2

To fix this you could try to:
1. loosen the range of package versions you've specified
ERROR: ResolutionImpossible: for help visit https://pip.pypa.io/en/latest/topics/dependency-resolution/
""",
        "unsolvable",
        "conflicting dependencies. The conflict is caused by: aa 1.0 depends on cc<2 bb 1.0 depends on cc>=2",
    ),
    # pip 23.2.1, --hash of another file.
    (
        "pip-hash",
        """\
ERROR: THESE PACKAGES DO NOT MATCH THE HASHES FROM THE REQUIREMENTS FILE. If you have updated the package versions, \
please update the hashes. Otherwise, examine the package contents carefully; someone may have tampered with them.
    aa==1.0 from file:///srv/aa-1.0-py3-none-any.whl (from -r req.txt (line 1)):
        Expected sha256 0000000000000000000000000000000000000000000000000000000000000000
             Got        3dc35bc4228291f2bfadb8db4349c07cb2e188f772fa902643810a9ba7671c6c
""",
        "checksum",
        "ERROR: THESE PACKAGES DO NOT MATCH THE HASHES",
    ),
    # pip 23.2.1, nobody listens.
    (
        "pip-unreachable",
        """\
WARNING: Retrying (Retry(total=0, connect=None, read=None, redirect=None, status=None)) after connection broken by \
'NewConnectionError('<pip._vendor.urllib3.connection.HTTPConnection object at 0x7f5b7733e090>: Failed to establish a \
new connection: [Errno 111] Connection refused')': /simple/aa/
ERROR: Could not find a version that satisfies the requirement aa (from versions: none)
ERROR: No matching distribution found for aa
""",
        "unreachable",
        "Connection refused: /simple/aa/",
    ),
    # pip 23.2.1, a file system of one MiB.
    (
        "pip-full",
        "ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device\n",
        "no-space",
        "ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device",
    ),
    # uv 0.13.9, the same two packages.
    (
        "uv-conflict",
        """\
Using Python 3.11.7 environment at: .virtualenvs/e
error: No solution found when resolving dependencies
  cause: Because all versions of bb depend on cc>=2 and all versions of aa depend on cc<2, we can conclude that all \
versions of aa and all versions of bb are incompatible.
         And because you require aa and bb, we can conclude that your requirements are unsatisfiable.
""",
        "unsolvable",
        "error: No solution found when resolving dependencies cause: Because all versions of bb depend on cc>=2",
    ),
    # An older uv: astral-sh/uv#2538.
    (
        "uv-old",
        """\
  x No solution found when resolving dependencies:
  `-> Because torch==2.2.0 is unusable because no wheels are available with a matching Python implementation and you \
require torch==2.2.0, we can conclude that the requirements are unsatisfiable.
""",
        "unsolvable",
        "x No solution found when resolving dependencies: `-> Because torch==2.2.0 is unusable because no wheels",
    ),
    # uv 0.13.9, nobody listens.
    (
        "uv-unreachable",
        """\
error: Failed to fetch: http://127.0.0.1:9/simple/aa/
  cause: error sending request for url (http://127.0.0.1:9/simple/aa/)
  cause: Connection refused (os error 111)
""",
        "unreachable",
        "error: Failed to fetch: http://127.0.0.1:9/simple/aa/ cause: error sending request",
    ),
    # conda with libmamba: liusiyan/UQnet#5.
    (
        "conda-libmamba",
        """\
Channels:
 - defaults
Platform: linux-64
Collecting package metadata (repodata.json): done
Solving environment: failed

LibMambaUnsatisfiableError: Encountered problems while solving:
  - nothing provides requested wurlitzer 2.1.0**
  - nothing provides requested unixodbc 2.3.9**
""",
        "unsolvable",
        "LibMambaUnsatisfiableError: Encountered problems while solving: - nothing provides requested wurlitzer",
    ),
    # conda 26.9.0 (its classic solver), a channel without that package.
    (
        "conda-missing",
        """\
Collecting package metadata (current_repodata.json): ...working... done
Solving environment: ...working... unsuccessful initial attempt using frozen solve. Retrying with flexible solve.

PackagesNotFoundInChannelsError: The following packages are not available from current channels:

  - nosuch[version='>=9']

Current channels:

  - file:///srv/channel/linux-64
  - file:///srv/channel/noarch

To search for alternate channels that may provide the conda package you're
looking for, navigate to

    https://anaconda.org

and use the search bar at the top of the page.
""",
        "unsolvable",
        "The following packages are not available from current channels: - nosuch[version='>=9']",
    ),
    # conda's documentation, "Troubleshooting".
    (
        "conda-http",
        """\
Collecting package metadata (current_repodata.json): failed

CondaHTTPError: HTTP 000 CONNECTION FAILED for url <https://repo.anaconda.com/pkgs/main/linux-64/current_repodata.json>
Elapsed: -

An HTTP error occurred when trying to retrieve this URL.
""",
        "unreachable",
        "CondaHTTPError: HTTP 000 CONNECTION FAILED for url",
    ),
    # geocompx/docker#29.
    (
        "micromamba",
        """\
Encountered problems while solving:
  - nothing provides requested quarto

The environment can't be solved, aborting the operation
error    libmamba Could not solve for environment specs
critical libmamba UnsatisfiableError
""",
        "unsolvable",
        "Encountered problems while solving: - nothing provides requested quarto",
    ),
    ("silent", "==> [1/2] Python\n$ conda install\n==> failed with status 137\n", "failed", ""),
    ("traceback", "Traceback (most recent call last):\n  File x\nRuntimeError: oh\n", "failed", "RuntimeError: oh"),
]


@pytest.mark.parametrize(("log", "kind", "words"), [row[1:] for row in SAID], ids=[row[0] for row in SAID])
def test_the_installers_own_words(log: str, kind: str, words: str) -> None:
    found = failures.reason(log.splitlines())
    assert found.kind == kind
    assert words in found.text
    assert "file:///srv/channel" not in found.text
    assert len(found.text) <= 400
    assert found.hint


def test_an_earlier_step_is_no_reason() -> None:
    log = [
        "$ conda install",
        "CondaHTTPError: HTTP 000",
        "$ pip install",
        "ERROR: No matching distribution found for x",
    ]
    assert failures.reason(log).kind == "unsolvable"


@given(st.lists(st.text(max_size=60), max_size=20))
def test_any_log_has_a_reason(lines: list[str]) -> None:
    assert failures.reason(lines).hint


# --- package files --------------------------------------------------------------------------------------------------


def environment(kind: str, name: str = "e") -> Environment:
    return Environment(
        name=name,
        prefix="/p/e",
        kind=kind,  # type: ignore[arg-type]
        python="3.12.1",
        jupyter=None,
        ipykernel=None,
        torch=None,
        root="/r" if kind == "conda" else None,
    )


CONDA = Tool(kind="conda", path="/r/bin/conda", root="/r")
OTHER = Tool(kind="mamba", path="/q/bin/mamba", root="/q")
MICRO = Tool(kind="micromamba", path="/mm", root="/m")
UV = Tool(kind="uv", path="/uv")


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("torch-2.6.0+cu124-cp312-cp312-linux_x86_64.whl", "wheel"),
        ("x-1.tar.gz", "sdist"),
        ("X-1.0.ZIP", "sdist"),
        ("_libgcc_mutex-0.1-main.conda", "conda"),
        ("x-1-0.tar.bz2", "conda"),
    ],
)
def test_kinds_of_files(name: str, kind: str) -> None:
    assert packages.kind(name) == kind


@pytest.mark.parametrize(
    "name", ["x.txt", "-x.whl", ".x.whl", "a b.whl", "a;b.whl", "a\n.whl", "whl", "$(x).whl", "é.whl"]
)
def test_what_is_no_package(name: str) -> None:
    with pytest.raises(errors.UsageFault):
        packages.kind(name)


def test_steps_without_a_network() -> None:
    found = packages.steps(environment("conda"), ["/u/1/a-1-0.conda", "/u/2/b-1-py3.whl"], [OTHER, CONDA], pip=True)
    assert [step.shown for step in found] == [
        "/r/bin/conda install -y -q --offline -p /p/e /u/1/a-1-0.conda",
        "/p/e/bin/python -m pip install --no-index --find-links /u/2 /u/2/b-1-py3.whl",
        "rm -r -- /u/1 /u/2",
    ]
    assert found[-1].soft
    found = packages.steps(environment("micromamba"), ["/u/1/a-1-0.tar.bz2"], [CONDA, MICRO], pip=False)
    assert found[0].shown == "/mm -r /m install -y --offline -p /p/e /u/1/a-1-0.tar.bz2"
    found = packages.steps(environment("uv"), ["/u/1/a-1.tar.gz"], [UV], pip=False)
    assert found[0].shown == (
        "/uv pip install --python /p/e/bin/python --no-index --no-build-isolation --find-links /u/1 /u/1/a-1.tar.gz"
    )


def test_what_does_not_go_together() -> None:
    with pytest.raises(errors.UsageFault, match="conda packages do not go into it"):
        packages.steps(environment("venv"), ["/u/a.conda"], [CONDA], pip=True)
    with pytest.raises(errors.EnvironmentMissing, match="no conda"):
        packages.steps(environment("conda"), ["/u/a.conda"], [UV], pip=True)
    with pytest.raises(errors.EnvironmentMissing, match="no pip"):
        packages.steps(environment("venv"), ["/u/a.whl"], [CONDA], pip=False)


def test_platforms() -> None:
    found = packages.platforms("x86_64", "glibc 2.17")
    assert found[0] == "manylinux_2_17_x86_64"
    assert found[-4:] == ["manylinux2014_x86_64", "manylinux2010_x86_64", "manylinux1_x86_64", "linux_x86_64"]
    assert packages.platforms("aarch64", "glibc 2.36")[0] == "manylinux_2_36_aarch64"
    assert packages.platforms("x86_64", None) == ["musllinux_1_2_x86_64", "musllinux_1_1_x86_64", "linux_x86_64"]
    with pytest.raises(errors.UsageFault):
        packages.platforms("x; rm", None)


@pytest.mark.parametrize(
    ("name", "job"), [("a b/c", "a-b-c"), ("..", "environment"), ("-x", "x"), ("深", "environment")]
)
def test_an_installation_is_named_after_any_environment(name: str, job: str) -> None:
    assert job_name(name) == job


# --- mirrors --------------------------------------------------------------------------------------------------------

TUNA, USTC = BUILT_IN["tuna"], BUILT_IN["ustc"]
T, U = "https://mirrors.tuna.tsinghua.edu.cn/anaconda", "https://mirrors.ustc.edu.cn/anaconda"
# As in notes on setting up a lab server: everything in `channels`, a comment, another key.
NOTES = f"""\
# my channels
channels:
  - {T}/pkgs/free/
  - "{T}/cloud/pytorch/"   # torch
  - defaults
show_channel_urls: true
envs_dirs: [/data/envs]
"""


def test_condarc_of_nothing() -> None:
    fresh = mirrors.condarc("", TUNA, BUILT_IN.values())
    assert fresh == (
        f"default_channels:\n  - {T}/pkgs/main\n  - {T}/pkgs/r\n  - {T}/pkgs/msys2\n"
        f"custom_channels:\n  conda-forge: {T}/cloud\n  pytorch: {T}/cloud\n"
    )
    assert mirrors.condarc(fresh, TUNA, BUILT_IN.values()) == fresh


def test_what_the_user_wrote_stays() -> None:
    fresh = mirrors.condarc(NOTES, USTC, BUILT_IN.values())
    assert fresh.startswith(NOTES.replace(T, U))
    assert fresh.removeprefix(NOTES.replace(T, U)).splitlines()[0] == "default_channels:"
    # And back: of the mirror, not of what was added.
    assert mirrors.condarc(fresh, TUNA, BUILT_IN.values()).startswith(NOTES)


def test_keys_that_are_there_are_filled_anew() -> None:
    text = (
        "default_channels:\n# mine\n- https://old/main\n\n# about custom\ncustom_channels:\n    lab: file:///srv\n"
        "    conda-forge: https://old/cloud\n# end\nssl_verify: false\n"
    )
    assert mirrors.condarc(text, USTC, BUILT_IN.values()) == (
        f"default_channels:\n# mine\n  - {U}/pkgs/main\n  - {U}/pkgs/r\n  - {U}/pkgs/msys2\n\n# about custom\n"
        f"custom_channels:\n    lab: file:///srv\n    conda-forge: {U}/cloud\n    pytorch: {U}/cloud\n"
        "# end\nssl_verify: false\n"
    )


def test_line_ends_stay() -> None:
    fresh = mirrors.condarc("channels:\r\n  - defaults\r\n", TUNA, [])
    assert fresh.count("\r\n") == fresh.count("\n")


@pytest.mark.parametrize(
    "text", ["default_channels: [a, b]\n", "custom_channels: {a: b}\n", "custom_channels: &x\n  a: b\n"]
)
def test_what_we_do_not_read_is_not_touched(text: str) -> None:
    with pytest.raises(errors.UsageFault, match="line 1"):
        mirrors.condarc(text, TUNA, [])


def test_a_longer_address_is_another_ones() -> None:
    text = f"channels:\n  - {T}-old/x\n  # {T}/x\n"
    assert mirrors.condarc(text, USTC, BUILT_IN.values()).startswith(text)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("", "[global]\nindex-url = {}\n"),
        ("[install]\nuser = true\n", "[install]\nuser = true\n\n[global]\nindex-url = {}\n"),
        ("[global]\ntimeout = 6\n", "[global]\nindex-url = {}\ntimeout = 6\n"),
        (
            "# mine\n[global]\n; x\nindex_url: https://old\nextra-index-url =\n  https://a\n  https://b\n[list]\nf=1\n",
            "# mine\n[global]\n; x\nindex-url = {}\nextra-index-url =\n  https://a\n  https://b\n[list]\nf=1\n",
        ),
        ("[global]\nindex-url =\n    https://old\ntimeout = 6", "[global]\nindex-url = {}\ntimeout = 6\n"),
        ("[GLOBAL]\nINDEX-URL = a\nindex-url = b\n", "[GLOBAL]\nindex-url = {}\n"),
    ],
)
def test_pip_conf(before: str, after: str) -> None:
    fresh = mirrors.pip_conf(before, USTC)
    assert fresh == after.format(USTC.pip)
    assert mirrors.pip_conf(fresh, USTC) == fresh


@given(st.lists(st.sampled_from(["[global]", "[install]", "index-url = a", "x = 1", "# c", "  more", ""]), max_size=8))
def test_pip_reads_what_was_written(lines: list[str]) -> None:
    fresh = mirrors.pip_conf("\n".join(lines), USTC)
    sections = [line for line in lines if line.startswith("[")]
    if len(sections) == len(set(sections)) and (not lines or lines[0].startswith("[")):
        parser = configparser.RawConfigParser(strict=False)
        try:
            parser.read_string(fresh)
        except configparser.Error:
            return  # it was none before either
        assert parser.get("global", "index-url").splitlines()[0] == USTC.pip


def test_mirrors_by_name() -> None:
    own = {"tuna": MirrorEntry(pip="file:///x"), "lab": MirrorEntry(conda="file:///y")}
    assert mirrors.find("tuna", own) == Mirror(name="tuna", pip="file:///x", own=True)
    assert mirrors.find("ustc", own) == USTC
    assert mirrors.condarc("a: b\n", mirrors.find("tuna", own), []) == "a: b\n"
    assert mirrors.pip_conf("[x]\n", mirrors.find("lab", own)) == "[x]\n"
    with pytest.raises(errors.UsageFault, match="no mirror is called 'x'") as caught:
        mirrors.find("x", own)
    assert "aliyun, bfsu, lab, tuna, ustc" in caught.value.hint
