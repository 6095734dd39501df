"""How an environment is made: a host and a wish give steps. Tables, no I/O."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jupyman import errors
from jupyman.model import Driver, Gpu
from jupyman.tools.gpu import torch_cuda
from jupyman.tools.install import plan as recipe
from jupyman.tools.install import torch_wheels
from jupyman.tools.install.mirrors import BUILT_IN, Mirror
from jupyman.tools.install.plan import InstallPlan
from jupyman.tools.install.request import EnvironmentRequest, HostInstallers, Python, Tool, check_name

HOME = "/home/alice"
JOBS = f"{HOME}/.local/state/jupyman/n/.environments"
CONDA = Tool(kind="conda", path="/opt/conda/bin/conda", root="/opt/conda", writable=False)
OWN = Tool(kind="conda", path=f"{HOME}/miniconda3/bin/conda", root=f"{HOME}/miniconda3", writable=True)
MAMBA = Tool(kind="mamba", path=f"{HOME}/mf/bin/mamba", root=f"{HOME}/mf", writable=True)
MICRO = Tool(kind="micromamba", path=f"{HOME}/.local/bin/micromamba", root=f"{HOME}/mm", writable=True)
UV = Tool(kind="uv", path="/usr/bin/uv", writable=True)
PY311 = Python(path="/usr/bin/python3", version="3.11.2", venv=True)
PY314 = Python(path="/usr/bin/python3.14", version="3.14.1", venv=True)
BARE = Python(path="/usr/bin/python3.13", version="3.13.0", venv=False)


def gpu(cap: str | None = "8.0") -> Gpu:
    return Gpu(index=0, uuid="GPU-1", name="A100", memory_total=1, memory_used=0, utilization=0, compute_cap=cap)


def means(
    *tools: Tool, pythons: tuple[Python, ...] = (), driver: str | None = None, cap: str | None = "8.0"
) -> HostInstallers:
    return HostInstallers(
        home=HOME,
        jobs=JOBS,
        tools=list(tools),
        pythons=list(pythons),
        driver=Driver(version=driver, cuda=None) if driver is not None else None,
        gpus=[gpu(cap)] if driver is not None else [],
    )


def wish(name: str = "e", **more: Any) -> EnvironmentRequest:
    return EnvironmentRequest(name=name, **more)


def shown(made: InstallPlan) -> list[str]:
    return [f"{step.key}: {step.shown}" for step in made.steps]


def test_conda_in_a_root_of_ones_own() -> None:
    made = recipe.plan(wish(packages=["numpy>=2", "pip:einops"]), means(CONDA, OWN))
    prefix = f"{HOME}/miniconda3/envs/e"
    assert made.prefix == prefix
    assert (made.environment.kind, made.environment.name, made.environment.root) == ("conda", "e", f"{HOME}/miniconda3")
    assert shown(made) == [
        f"make: {OWN.path} install -y -q -p {prefix} python=3.12 pip ipykernel ipywidgets 'numpy>=2'",
        f"packages: {prefix}/bin/python -m pip install einops",
    ]


def test_a_shared_root_is_left_alone() -> None:
    made = recipe.plan(wish(), means(CONDA))
    assert made.prefix == f"{HOME}/.conda/envs/e"
    assert made.environment.root is None
    assert "not writable for you" in made.notes[0]
    assert recipe.plan(wish(dir="~/scratch/x/../envs"), means(CONDA)).prefix == f"{HOME}/scratch/envs/e"


def test_channels_and_mirrors() -> None:
    made = recipe.plan(wish(channels=["conda-forge", "file:///srv/lab"]), means(OWN))
    assert "--override-channels -c conda-forge -c file:///srv/lab python=3.12" in made.steps[0].shown
    made = recipe.plan(wish(packages=["pip:einops"]), means(OWN), BUILT_IN["tuna"])
    assert "-c https://mirrors.tuna.tsinghua.edu.cn/anaconda/cloud/conda-forge " in made.steps[0].shown
    assert made.steps[1].shown.endswith("einops --index-url https://pypi.tuna.tsinghua.edu.cn/simple")


def test_micromamba_gets_its_root() -> None:
    made = recipe.plan(wish(), means(MICRO))
    assert made.prefix == f"{HOME}/mm/envs/e"
    assert made.steps[0].shown.startswith(f"{MICRO.path} -r {HOME}/mm install -y -p {HOME}/mm/envs/e ")
    rootless = msgspec.structs.replace(MICRO, root=None)
    assert recipe.plan(wish(), means(rootless)).prefix == f"{HOME}/micromamba/envs/e"


def test_uv_and_venv() -> None:
    made = recipe.plan(wish(packages=["numpy"]), means(UV, pythons=(PY311, BARE)))
    prefix = f"{HOME}/.virtualenvs/e"
    python = f"{prefix}/bin/python"
    assert shown(made) == [
        f"make: /usr/bin/uv venv --allow-existing --python 3.13 {prefix}",
        f"kernel-packages: /usr/bin/uv pip install --python {python} pip ipykernel ipywidgets",
        f"packages: /usr/bin/uv pip install --python {python} numpy",
    ]
    made = recipe.plan(wish(), means(UV, pythons=(BARE, PY311), driver=None), None)
    assert made.tool.kind == "uv"
    made = recipe.plan(wish(tool="venv"), means(UV, pythons=(BARE, PY311)))
    assert shown(made)[0] == f"make: /usr/bin/python3 -m venv {prefix}"
    assert shown(made)[1] == f"kernel-packages: {python} -m pip install pip ipykernel ipywidgets"


def test_the_newest_python_that_torch_has_wheels_for() -> None:
    made = recipe.plan(wish(torch="2.5.1"), means(pythons=(PY311, PY314)))
    assert made.steps[0].argv[0] == "/usr/bin/python3"
    assert recipe.plan(wish(torch="2.1"), means(OWN)).steps[0].argv[-4:-3] == ["python=3.11"]
    with pytest.raises(errors.EnvironmentMissing, match=r"no Python from 3\.9 to 3\.13"):
        recipe.plan(wish(torch="2.6.0"), means(pythons=(PY314, BARE)))


def test_files() -> None:
    made = recipe.plan(wish(source_name="Environment.YML", source="x", packages=["numpy"]), means(MAMBA))
    where = f"-p {HOME}/mf/envs/e"
    assert shown(made) == [
        f"make: {MAMBA.path} env update {where} -f {JOBS}/e/environment.yml",
        f"kernel-packages: {MAMBA.path} install -y -q {where} pip ipykernel ipywidgets numpy",
    ]
    assert made.file == "environment.yml"
    made = recipe.plan(wish(source_name="environment.yaml", source="x", python="3.10"), means(MICRO))
    assert made.steps[0].shown == (
        f"{MICRO.path} -r {HOME}/mm install -y -p {HOME}/mm/envs/e -f {JOBS}/e/environment.yml"
    )
    assert "python=3.10" in made.steps[1].argv
    made = recipe.plan(wish(source_name="a b.txt", source="x"), means(UV, pythons=(PY311,)))
    assert made.steps[2].argv[-2:] == ["-r", f"{JOBS}/e/requirements.txt"]
    with pytest.raises(errors.EnvironmentMissing, match=r"an environment\.yml"):
        recipe.plan(wish(source_name="environment.yml", source="x"), means(UV, pythons=(PY311,)))


TORCH = "--index-url https://download.pytorch.org/whl"


@pytest.mark.parametrize(
    ("more", "driver", "cap", "spec", "where"),
    [
        ({"torch": "auto"}, "550.54.15", "8.0", "torch==2.6.*", f"{TORCH}/cu124"),
        ({"torch": "auto"}, "580.65.06", "8.0", "torch", f"{TORCH}/cu130"),
        ({"torch": "auto"}, "580.65.06", "7.0", "torch==2.14.*", f"{TORCH}/cu126"),  # Volta: no code since cu128
        ({"torch": "auto"}, "535.54.03", "8.0", "torch==2.5.*", f"{TORCH}/cu121"),
        ({"torch": "auto"}, None, None, "torch", f"{TORCH}/cpu"),
        ({"torch": "2.5.1"}, "580.65.06", "8.0", "torch==2.5.1", f"{TORCH}/cu124"),
        ({"torch": "2.5.1+cu121"}, "580.65.06", "8.0", "torch==2.5.1", f"{TORCH}/cu121"),
        ({"torch": "2.5.1", "cuda": "11.8"}, "580.65.06", "8.0", "torch==2.5.1", f"{TORCH}/cu118"),
        ({"cuda": "cpu"}, "580.65.06", "8.0", "torch", f"{TORCH}/cpu"),
        ({"torch": "auto", "pyg": True}, "580.65.06", "8.0", "torch==2.12.*", f"{TORCH}/cu130"),
        ({"pyg": True}, "550.54.15", "8.0", "torch==2.6.*", f"{TORCH}/cu124"),
        (
            {"torch": "auto", "torch_index": "file:///srv/whl/"},
            "550.54.15",
            "8.0",
            "torch==2.6.*",
            "file:///srv/whl/cu124",
        ),
    ],
)
def test_torch(more: dict[str, Any], driver: str | None, cap: str | None, spec: str, where: str) -> None:
    made = recipe.plan(wish(**more), means(OWN, driver=driver, cap=cap))
    step = next(step for step in made.steps if step.key == "torch")
    assert step.argv[4] == spec
    assert step.shown.endswith(where)
    keys = [step.key for step in made.steps]
    assert keys[-2:] == (["proof", "gpu"] if driver is not None and not where.endswith("cpu") else [keys[-2], "proof"])
    assert [step.key for step in made.steps if step.soft] == [key for key in keys if key == "gpu"]


def test_a_mirror_serves_the_release_whose_wheel_on_pypi_is_the_right_build() -> None:
    for driver, release in (("550.54.15", "2.6"), ("570.26", "2.10"), ("580.65.06", "2.14")):
        made = recipe.plan(wish(torch="auto"), means(OWN, driver=driver), BUILT_IN["ustc"])
        step = next(step for step in made.steps if step.key == "torch")
        assert step.argv[4:] == [f"torch=={release}.*", "--index-url", "https://mirrors.ustc.edu.cn/pypi/simple"]
        assert "comes from the mirror" in made.notes[-1]
    # What PyPI has not comes from PyTorch's own index, or from the mirror's where it has one.
    made = recipe.plan(wish(torch="2.6.0", cuda="cu118"), means(OWN, driver="550.54.15"), BUILT_IN["ustc"])
    assert next(step for step in made.steps if step.key == "torch").shown.endswith(f"{TORCH}/cu118")
    lab = Mirror(name="lab", pip="file:///srv/simple", torch="file:///srv/whl")
    made = recipe.plan(wish(torch="auto"), means(OWN, driver="550.54.15"), lab)
    assert next(step for step in made.steps if step.key == "torch").shown.endswith("--index-url file:///srv/whl/cu124")


def test_torchs_family_comes_from_its_index() -> None:
    made = recipe.plan(wish(torch="auto", packages=["torchvision", "numpy"]), means(OWN, driver="550.54.15"))
    assert made.steps[0].argv[-1] == "numpy"
    assert made.steps[1].argv[4:6] == ["torch==2.6.*", "torchvision"]
    # Without ours of torch, theirs is the user's affair.
    assert recipe.plan(wish(packages=["torchvision"]), means(OWN)).steps[0].argv[-1] == "torchvision"


def test_pyg_has_the_wheels_of_that_torch() -> None:
    made = recipe.plan(wish(torch="2.5.1", pyg=True), means(OWN, driver="550.54.15"))
    step = next(step for step in made.steps if step.key == "pyg")
    assert step.shown.endswith("--find-links https://data.pyg.org/whl/torch-2.5.0+cu124.html")
    assert step.argv[4:] == [
        *("torch_geometric", "pyg_lib", "torch_scatter", "torch_sparse", "torch_cluster", "torch_spline_conv"),
        *("--find-links", "https://data.pyg.org/whl/torch-2.5.0+cu124.html"),
    ]
    with pytest.raises(errors.UsageFault, match=r"no wheels for torch 2\.12\.0\+cu128") as caught:
        recipe.plan(wish(torch="2.12.0", cuda="cu128", pyg=True), means(OWN))
    assert "2.10" in caught.value.hint


def test_room_grows_with_what_is_asked_for() -> None:
    bare, cpu = recipe.plan(wish(), means(OWN)), recipe.plan(wish(torch="auto"), means(OWN))
    cuda = recipe.plan(wish(torch="auto"), means(OWN, driver="550.54.15"))
    assert 0 < bare.room < cpu.room < cuda.room


BAD: list[tuple[dict[str, Any], str]] = [
    ({"torch": "2.5.1;x"}, "not a release of torch"),
    ({"torch": "2.5.1+cu12"}, "not a release of torch"),
    ({"torch": "auto", "cuda": "cu12"}, "not a CUDA build"),
    ({"torch": "2.5.1+cu121", "cuda": "cpu"}, "two builds"),
    ({"python": "3"}, "not a version of Python"),
    ({"python": "3.12; rm"}, "not a version of Python"),
    ({"torch": "2.5.1", "python": "3.14"}, "no wheels for Python 3.14"),
    ({"packages": ["-rfile"]}, "not a package"),
    ({"packages": ["pip:--index-url=x"]}, "not a package"),
    ({"packages": ["a\nb"]}, "not a package"),
    ({"packages": [""]}, "not a package"),
    ({"channels": ["-c"]}, "not a channel"),
    ({"channels": ["https://me:secret@host/x"]}, "contains a password"),
    ({"torch": "auto", "torch_index": "https://me:secret@host/x"}, "contains a password"),
]


@pytest.mark.parametrize(("more", "words"), BAD)
def test_bad_wishes(more: dict[str, Any], words: str) -> None:
    with pytest.raises(errors.UsageFault, match=words) as caught:
        recipe.plan(wish(**more), means(OWN))
    assert "secret" not in caught.value.message + caught.value.hint


def test_nothing_fits_an_old_driver() -> None:
    with pytest.raises(errors.UsageFault, match=r"no build of torch fits driver 390\.1") as caught:
        recipe.plan(wish(torch="auto"), means(OWN, driver="390.1"))
    assert "--cuda cpu" in caught.value.hint


@pytest.mark.parametrize(
    ("tool", "there", "words"),
    [
        (None, means(), "no conda, mamba, micromamba, uv"),
        ("mamba", means(OWN, UV), "no mamba"),
        ("venv", means(OWN, pythons=(BARE,)), "no venv"),
    ],
)
def test_missing_tools(tool: str | None, there: HostInstallers, words: str) -> None:
    with pytest.raises(errors.EnvironmentMissing, match=words):
        recipe.plan(wish(tool=tool), there)


@pytest.mark.parametrize(
    "name", ["", ".", "..", "a/b", "-x", ".x", "a b", "base", "root", "a" * 64, "a\n", "é", "$(x)"]
)
def test_names_that_cannot_be(name: str) -> None:
    with pytest.raises(errors.UsageFault):
        check_name(name)


def test_the_tables_agree() -> None:
    tags = {row[0]: row for row in torch_cuda.BUILDS}
    for release, tag in torch_wheels.ON_PYPI.items():
        assert tag in tags
        assert tags[tag][4] <= release, (release, tag)
    lows = [row[0] for row in torch_wheels.PYTHONS]
    assert lows == sorted(lows, reverse=True)


TEXT = st.one_of(
    st.none(), st.text(max_size=8), st.sampled_from(["auto", "2.5.1", "cu124", "cpu", "3.12", "conda", "uv"])
)


@given(
    st.text(max_size=6),
    st.lists(st.text(max_size=12), max_size=3),
    st.lists(st.text(max_size=12), max_size=2),
    *([TEXT] * 6),
    st.booleans(),
)
def test_any_wish_gives_steps_or_an_error(
    name: str,
    packages: list[str],
    channels: list[str],
    python: str | None,
    torch: str | None,
    cuda: str | None,
    folder: str | None,
    index: str | None,
    source: str | None,
    pyg: bool,
) -> None:
    asked = EnvironmentRequest(
        name=name or "e",
        packages=packages,
        channels=channels,
        python=python,
        torch=torch,
        cuda=cuda,
        dir=folder,
        torch_index=index,
        source_name=source,
        pyg=pyg,
    )
    try:
        made = recipe.plan(asked, means(OWN, UV, pythons=(PY311,), driver="550.54.15"))
    except errors.JupymanError:
        return
    assert made.prefix.startswith("/")
    for step in made.steps:
        assert step.argv[0].startswith("/")
        assert all("\n" not in word or step.key in {"proof", "gpu"} for word in step.argv)
