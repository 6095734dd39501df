"""Plan an installation: from a host and a request to named steps, each with its exact command. Nothing is run.

Over 300 lines because the steps for conda, venv and uv share one planner, whose state is the plan.
"""

from __future__ import annotations

import posixpath
import re
import shlex
from collections.abc import Sequence

import msgspec

from jupyman import errors
from jupyman.model import Environment, Noun
from jupyman.tools.envs import discovery
from jupyman.tools.install import torch_wheels
from jupyman.tools.install.mirrors import Mirror
from jupyman.tools.install.request import KINDS, EnvironmentRequest, HostInstallers, Tool, check_name, check_text
from jupyman.tools.install.torch_wheels import Build

CONDA: frozenset[str] = frozenset({"conda", "mamba", "micromamba"})
DEFAULT_PYTHON = (3, 12)
# These always come from the index of torch's build.
TORCH_FAMILY = frozenset({"torchvision", "torchaudio"})
# For every environment: a kernel, and progress bars in it.
KERNEL = ("ipykernel", "ipywidgets")
MIB = 1024 * 1024
# Bytes that are needed: rough, from the sizes of the wheels on PyPI, which unpack to twice that or more
# (torch 0.9 GB and the CUDA libraries 2 GB; a CPU build 0.2 GB).
ROOM = {"conda": 700 * MIB, "pip": 200 * MIB, "cpu": 1000 * MIB, "cuda": 7000 * MIB, "pyg": 300 * MIB}
_PYTHON = re.compile(r"[0-9]\.[0-9]{1,2}(?:\.[0-9]{1,3})?")

# Run by the new environment's Python. is_available() is not enough: it may be true although every CUDA kernel fails.
PROVE_TORCH = "import torch; print('torch', torch.__version__, 'CUDA', torch.version.cuda)"
PROVE_GPU = (
    "import torch; x = torch.ones(8, device='cuda'); "
    "print('the GPU counts:', (x + x).sum().item(), 'on', torch.cuda.get_device_name())"
)


class PlanStep(Noun, frozen=True, kw_only=True):
    """One command. `soft`: its failure is reported, and the next step follows."""

    key: str
    text: str
    argv: list[str]
    soft: bool = False

    @property
    def shown(self) -> str:
        """The command as it would be typed."""
        return shlex.join(self.argv)


class InstallPlan(Noun, frozen=True, kw_only=True):
    """A planned installation."""

    tool: Tool
    environment: Environment
    steps: list[PlanStep]
    room: int  # bytes
    build: Build | None
    notes: list[str]
    file: str  # the name of the user's file in the installation's directory; "" without one

    @property
    def prefix(self) -> str:
        """The prefix of the new environment."""
        return self.environment.prefix


def check(request: EnvironmentRequest) -> None:
    """Check a request by itself, without a host.

    Raises:
        UsageFault: it is not valid.
    """
    check_name(request.name)
    for package in request.packages:
        check_text(package.removeprefix("pip:"), "package")
    for channel in request.channels:
        check_text(channel, "channel")
    if request.python is not None and not _PYTHON.fullmatch(request.python):
        raise errors.UsageFault(f"{request.python!r} is not a version of Python", "write --python 3.12")
    torch_wheels.parse(request.torch, request.cuda)


def plan(request: EnvironmentRequest, host: HostInstallers, mirror: Mirror | None = None) -> InstallPlan:
    """Plan the steps.

    Args:
        request: of the user.
        host: its installers.
        mirror: for packages, instead of the host's own configuration.

    Returns:
        The plan.

    Raises:
        UsageFault: the request is not valid, or its parts contradict each other.
        EnvironmentMissing: the host has no such tool, or no such Python.
    """
    check(request)  # it may come from an earlier attempt
    build = None
    if request.torch is not None or request.cuda is not None or request.pyg:
        build = torch_wheels.choose(
            request.torch,
            request.cuda,
            host.driver,
            host.gpus,
            pyg=request.pyg,
            pypi=mirror is not None and mirror.pip is not None and mirror.torch is None and request.torch_index is None,
        )
    _check_python(request, build)
    tool = _tool(request, host)
    return _Planner(request, host, mirror, build, tool).build_plan()


class _Planner:
    """Collects the steps for one tool."""

    def __init__(
        self, request: EnvironmentRequest, host: HostInstallers, mirror: Mirror | None, build: Build | None, tool: Tool
    ) -> None:
        self.request = request
        self.mirror = mirror
        self.build = build
        self.tool = tool
        self.notes: list[str] = []
        self.steps: list[PlanStep] = []
        self.host = host
        self.prefix = f"{self._folder()}/{request.name}"
        self.python = f"{self.prefix}/bin/python"

    def build_plan(self) -> InstallPlan:
        """Return the plan."""
        request, build = self.request, self.build
        named = [package.removeprefix("pip:") for package in request.packages if package.startswith("pip:")]
        plain = [package for package in request.packages if not package.startswith("pip:")]
        beside = [one for one in [*plain, *named] if _bare(one) in TORCH_FAMILY] if build is not None else []
        plain = [one for one in plain if one not in beside]
        named = [one for one in named if one not in beside]
        if self.tool.kind in CONDA:
            self._conda(plain)
        else:
            self._make_venv()
            self._pip("kernel-packages", "ipykernel and ipywidgets", ["pip", *KERNEL])
            named = [*plain, *named]
        if build is not None:
            label = f"torch {build.release or '(newest)'}+{build.tag}, {build.why}"
            self._pip("torch", label, [build.spec, *beside], self._torch_index(build))
        if request.pyg and build is not None:
            pages = ["--find-links", torch_wheels.pyg_page(build)]
            self._pip("pyg", "PyTorch Geometric", ["torch_geometric", *torch_wheels.pyg_packages(build)], pages)
        if request.source_name is not None and not _is_yaml(request.source_name):
            self._pip("requirements", posixpath.basename(request.source_name), ["-r", self._source()])
        if named:
            self._pip("packages", " ".join(named), named)
        if build is not None:
            self._add("proof", "torch can be imported", [self.python, "-c", PROVE_TORCH])
            if build.tag != "cpu" and self.host.gpus:
                self._add("gpu", "torch computes on the GPU", [self.python, "-c", PROVE_GPU], soft=True)
        return InstallPlan(
            tool=self.tool,
            environment=self._environment(),
            steps=self.steps,
            room=self._room(),
            build=build,
            notes=self.notes,
            file=posixpath.basename(self._source()) if request.source_name is not None else "",
        )

    # --- the tools ------------------------------------------------------------------------------------------------

    def _conda(self, packages: Sequence[str]) -> None:
        # The prefix is an empty environment already. All three tools install into it, and continue in it after an
        # interrupted attempt; `create` would refuse, or remove it with the mark that it is not finished.
        where = ["-p", self.prefix, *self._channels()]
        start = self._program("install")
        source = self.request.source_name
        python = f"python={self.request.python or _dotted(self._chosen())}"
        if source is not None and _is_yaml(source):
            update = start if self.tool.kind == "micromamba" else [self.tool.path, "env", "update"]
            argv = [*update, "-p", self.prefix, "-f", self._source()]
            self._add("make", f"everything in {posixpath.basename(source)}", argv)
            wanted = [*([python] if self.request.python is not None else []), "pip", *KERNEL, *packages]
            self._add("kernel-packages", "ipykernel and ipywidgets", [*start, *where, *wanted])
            return
        text = f"Python {python.partition('=')[2]}, ipykernel, ipywidgets" + "".join(f", {one}" for one in packages)
        self._add("make", text, [*start, *where, python, "pip", *KERNEL, *packages])

    def _make_venv(self) -> None:
        if self.tool.kind == "uv":
            version = self.request.python or _dotted(self._chosen())
            # The prefix exists already, with our mark that it is not finished.
            argv = [self.tool.path, "venv", "--allow-existing", "--python", version, self.prefix]
            self._add("make", f"a virtual environment with Python {version}", argv)
            return
        wanted = self.request.python
        fits = [one for one in self.host.pythons if one.venv and (wanted is None or _same(one.version, wanted))]
        low, high = torch_wheels.pythons(self.build) if self.build is not None else ((3, 8), (9, 99))
        fits = [one for one in fits if low <= one.minor <= high]
        if not fits:
            there = ", ".join(sorted({one.version for one in self.host.pythons if one.venv})) or "none"
            what = f"Python {wanted}" if wanted is not None else f"Python from {_dotted(low)} to {_dotted(high)}"
            raise errors.EnvironmentMissing(
                f"the host has no {what} that can make an environment",
                f"available: {there}; uv or conda would bring their own, or install python3-venv",
            )
        best = max(fits, key=lambda one: one.minor)
        self._add("make", f"a virtual environment with Python {best.version}", [best.path, "-m", "venv", self.prefix])

    def _program(self, verb: str) -> list[str]:
        found = [self.tool.path, verb, "-y"]
        if self.tool.kind == "micromamba":
            return [self.tool.path, "-r", self.tool.root or self._own_root(), verb, "-y"]
        return [*found, "-q"]  # no progress bars in the log

    def _pip(self, key: str, text: str, packages: Sequence[str], more: Sequence[str] | None = None) -> None:
        if self.tool.kind == "uv":
            argv = [self.tool.path, "pip", "install", "--python", self.python]
        else:
            argv = [self.python, "-m", "pip", "install"]
        index = self._index() if more is None or "--find-links" in more else []
        self._add(key, text, [*argv, *packages, *index, *(more or [])])

    def _add(self, key: str, text: str, argv: Sequence[str], *, soft: bool = False) -> None:
        self.steps.append(PlanStep(key=key, text=text, argv=list(argv), soft=soft))

    # --- sources and places ---------------------------------------------------------------------------------------

    def _channels(self) -> list[str]:
        channels = list(self.request.channels)
        if not channels and self.mirror is not None and self.mirror.conda is not None:
            channels = [f"{self.mirror.conda.rstrip('/')}/cloud/conda-forge"]
        if not channels:
            return []
        return ["--override-channels", *(word for channel in channels for word in ("-c", channel))]

    def _index(self) -> list[str]:
        return ["--index-url", self.mirror.pip] if self.mirror is not None and self.mirror.pip is not None else []

    def _torch_index(self, build: Build) -> list[str] | None:
        base = self.request.torch_index or (self.mirror.torch if self.mirror is not None else None)
        if base is None and self._index() and build.on_pypi:
            self.notes.append(f"PyPI's own torch {build.release} is the {build.tag} build: it comes from the mirror")
            return None
        return ["--index-url", f"{check_text(base or torch_wheels.INDEX, 'address').rstrip('/')}/{build.tag}"]

    def _source(self) -> str:
        yaml = _is_yaml(self.request.source_name or "")
        return f"{self.host.jobs}/{self.request.name}/{'environment.yml' if yaml else 'requirements.txt'}"

    def _folder(self) -> str:
        folder = self.request.dir
        if folder is not None:
            # As `up --dir`: relative to the home.
            below = folder[1:].lstrip("/") if folder[:2] in {"~", "~/"} else check_text(folder, "folder")
            return posixpath.normpath(posixpath.join(self.host.home, below))
        if self.tool.kind not in CONDA:
            return f"{self.host.home}/.virtualenvs"
        if self.tool.kind == "micromamba":
            return f"{self.tool.root or self._own_root()}/envs"
        if self.tool.writable and self.tool.root is not None:
            return f"{self.tool.root}/envs"
        own = f"{self.host.home}/.conda/envs"
        self.notes.append(f"{self.tool.root}/envs is not writable for you: it will be in {own}")
        return own

    def _own_root(self) -> str:
        return f"{self.host.home}/micromamba"

    def _environment(self) -> Environment:
        root = self.tool.root if self.tool.kind in CONDA else None
        if self.tool.kind == "micromamba":
            root = root or self._own_root()
        found = Environment(
            name=discovery.name_of(self.prefix, root, self.host.home),
            prefix=self.prefix,
            kind=self.tool.kind,
            python=None,
            jupyter=None,
            ipykernel=None,
            torch=None,
            root=root,
            executable=self.python,
        )
        # As the probe does, a root is named only for an environment inside it.
        inside = root is not None and self.prefix.startswith(f"{root}/envs/")
        return found if inside or root is None else msgspec.structs.replace(found, root=None)

    def _chosen(self) -> tuple[int, int]:
        """Return the Python when the user named none: the default, or the newest that has wheels of torch."""
        low, high = torch_wheels.pythons(self.build) if self.build is not None else (DEFAULT_PYTHON, DEFAULT_PYTHON)
        if self.tool.kind == "uv":
            # uv uses an installed one, which needs no download.
            there = [one.minor for one in self.host.pythons if (low if self.build else (3, 10)) <= one.minor]
            there = [one for one in there if self.build is None or one <= high]
            if there:
                return max(there)
        return min(max(DEFAULT_PYTHON, low), high)

    def _room(self) -> int:
        room = ROOM["conda" if self.tool.kind in CONDA else "pip"]
        if self.build is not None:
            room += ROOM["cpu" if self.build.tag == "cpu" else "cuda"]
        return room + (ROOM["pyg"] if self.request.pyg else 0)


def _tool(request: EnvironmentRequest, host: HostInstallers) -> Tool:
    """Return the installer."""
    yaml = request.source_name is not None and _is_yaml(request.source_name)
    for kind in KINDS if request.tool is None else [one for one in KINDS if one == request.tool]:
        if yaml and kind not in CONDA:
            continue
        found = [one for one in host.tools if one.kind == kind]
        if kind == "venv":
            found = [Tool(kind="venv", path=one.path) for one in host.pythons if one.venv][:1]
        if request.channels and kind not in CONDA:
            continue
        if found:
            # Of several roots, one that the user can write in.
            return min(found, key=lambda one: not one.writable)
    names = ", ".join(dict.fromkeys(one.kind for one in host.tools)) or "none"
    if any(one.venv for one in host.pythons):
        names += ", venv"
    what = request.tool or "conda, mamba, micromamba, uv, or Python with venv"
    if yaml or request.channels:
        what = "conda, mamba or micromamba, which an environment.yml or a channel needs"
    raise errors.EnvironmentMissing(f"the host has no {what}", f"available: {names}")


def _check_python(request: EnvironmentRequest, build: Build | None) -> None:
    if request.python is None or build is None:
        return
    low, high = torch_wheels.pythons(build)
    numbers = tuple(int(part) for part in request.python.split(".")[:2])
    if not low <= numbers <= high:
        raise errors.UsageFault(
            f"torch {build.release or '(newest)'} has no wheels for Python {request.python}",
            f"from {_dotted(low)} to {_dotted(high)}",
        )


def _bare(package: str) -> str:
    """Return ``torchvision`` for ``torchvision>=0.2``."""
    return re.split(r"[\s\[=<>!~;@]", package, maxsplit=1)[0].lower()


def _is_yaml(name: str) -> bool:
    return name.lower().endswith((".yml", ".yaml"))


def _same(version: str, wanted: str) -> bool:
    return version == wanted or version.startswith(f"{wanted}.")


def _dotted(numbers: tuple[int, int]) -> str:
    return f"{numbers[0]}.{numbers[1]}"
