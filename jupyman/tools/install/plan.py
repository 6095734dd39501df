"""How an environment is made: a host and a wish become named steps, each with its exact command. Nothing is run."""

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
# They come from the index of torch's build, whatever else comes from where.
TORCH_FAMILY = frozenset({"torchvision", "torchaudio"})
# What every environment gets: a kernel, and progress bars in it.
KERNEL = ("ipykernel", "ipywidgets")
MIB = 1024 * 1024
# Room that is needed, bytes: rough, from the sizes of the wheels on PyPI, which unpack to twice that or more
# (torch 0.9 GB and the CUDA libraries 2 GB; a CPU build 0.2 GB).
ROOM = {"conda": 700 * MIB, "pip": 200 * MIB, "cpu": 1000 * MIB, "cuda": 7000 * MIB, "pyg": 300 * MIB}
_PYTHON = re.compile(r"[0-9]\.[0-9]{1,2}(?:\.[0-9]{1,3})?")

# Run by the new environment's Python. Looking alone is not enough: is_available() may say yes where every kernel fails.
PROVE_TORCH = "import torch; print('torch', torch.__version__, 'CUDA', torch.version.cuda)"
PROVE_GPU = (
    "import torch; x = torch.ones(8, device='cuda'); "
    "print('the GPU counts:', (x + x).sum().item(), 'on', torch.cuda.get_device_name())"
)


class PlanStep(Noun, frozen=True, kw_only=True):
    """One command. `soft`: its failure is told, and the next step follows."""

    key: str
    text: str
    argv: list[str]
    soft: bool = False

    @property
    def shown(self) -> str:
        """The command as it could be typed."""
        return shlex.join(self.argv)


class InstallPlan(Noun, frozen=True, kw_only=True):
    """How it is done."""

    tool: Tool
    environment: Environment
    steps: list[PlanStep]
    room: int  # bytes
    build: Build | None
    notes: list[str]
    file: str  # what the user's file is called in the installation's directory; "" where there is none

    @property
    def prefix(self) -> str:
        """Where it will lie."""
        return self.environment.prefix


def check(wish: EnvironmentRequest) -> None:
    """Judge a wish by its words alone.

    Raises:
        UsageFault: it cannot be meant.
    """
    check_name(wish.name)
    for package in wish.packages:
        check_text(package.removeprefix("pip:"), "package")
    for channel in wish.channels:
        check_text(channel, "channel")
    if wish.python is not None and not _PYTHON.fullmatch(wish.python):
        raise errors.UsageFault(f"{wish.python!r} is no version of Python", "write --python 3.12")
    torch_wheels.parse(wish.torch, wish.cuda)


def plan(wish: EnvironmentRequest, means: HostInstallers, mirror: Mirror | None = None) -> InstallPlan:
    """Work out the steps.

    Args:
        wish: what the user asked for.
        means: what the host has.
        mirror: where packages come from, where the host's own configuration shall not say.

    Returns:
        The recipe.

    Raises:
        UsageFault: the wish cannot be meant, or its parts do not go together.
        EnvironmentMissing: the host has no such tool, or no such Python.
    """
    check(wish)  # what was kept of an earlier try, too
    build = None
    if wish.torch is not None or wish.cuda is not None or wish.pyg:
        build = torch_wheels.choose(
            wish.torch,
            wish.cuda,
            means.driver,
            means.gpus,
            pyg=wish.pyg,
            pypi=mirror is not None and mirror.pip is not None and mirror.torch is None and wish.torch_index is None,
        )
    _check_python(wish, build)
    tool = _tool(wish, means)
    return _Planner(wish, means, mirror, build, tool).cook()


class _Planner:
    """Writes the steps for one tool."""

    def __init__(
        self, wish: EnvironmentRequest, means: HostInstallers, mirror: Mirror | None, build: Build | None, tool: Tool
    ) -> None:
        self.wish = wish
        self.mirror = mirror
        self.build = build
        self.tool = tool
        self.notes: list[str] = []
        self.steps: list[PlanStep] = []
        self.means = means
        self.prefix = f"{self._folder()}/{wish.name}"
        self.python = f"{self.prefix}/bin/python"

    def cook(self) -> InstallPlan:
        """Write them."""
        wish, build = self.wish, self.build
        named = [package.removeprefix("pip:") for package in wish.packages if package.startswith("pip:")]
        plain = [package for package in wish.packages if not package.startswith("pip:")]
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
        if wish.pyg and build is not None:
            pages = ["--find-links", torch_wheels.pyg_page(build)]
            self._pip("pyg", "PyTorch Geometric", ["torch_geometric", *torch_wheels.pyg_packages(build)], pages)
        if wish.source_name is not None and not _is_yaml(wish.source_name):
            self._pip("requirements", posixpath.basename(wish.source_name), ["-r", self._source()])
        if named:
            self._pip("packages", " ".join(named), named)
        if build is not None:
            self._add("proof", "torch can be imported", [self.python, "-c", PROVE_TORCH])
            if build.tag != "cpu" and self.means.gpus:
                self._add("gpu", "torch counts on the GPU", [self.python, "-c", PROVE_GPU], soft=True)
        return InstallPlan(
            tool=self.tool,
            environment=self._environment(),
            steps=self.steps,
            room=self._room(),
            build=build,
            notes=self.notes,
            file=posixpath.basename(self._source()) if wish.source_name is not None else "",
        )

    # --- the tools ------------------------------------------------------------------------------------------------

    def _conda(self, packages: Sequence[str]) -> None:
        # The prefix is an environment already, an empty one: all three tools install into it, and go on in it after a
        # broken-off try; `create` would refuse, or wipe it together with the mark that it is not finished.
        where = ["-p", self.prefix, *self._channels()]
        start = self._program("install")
        source = self.wish.source_name
        python = f"python={self.wish.python or _dotted(self._chosen())}"
        if source is not None and _is_yaml(source):
            update = start if self.tool.kind == "micromamba" else [self.tool.path, "env", "update"]
            argv = [*update, "-p", self.prefix, "-f", self._source()]
            self._add("make", f"everything in {posixpath.basename(source)}", argv)
            wanted = [*([python] if self.wish.python is not None else []), "pip", *KERNEL, *packages]
            self._add("kernel-packages", "ipykernel and ipywidgets", [*start, *where, *wanted])
            return
        text = f"Python {python.partition('=')[2]}, ipykernel, ipywidgets" + "".join(f", {one}" for one in packages)
        self._add("make", text, [*start, *where, python, "pip", *KERNEL, *packages])

    def _make_venv(self) -> None:
        if self.tool.kind == "uv":
            version = self.wish.python or _dotted(self._chosen())
            # Our mark that it is not finished lies there already.
            argv = [self.tool.path, "venv", "--allow-existing", "--python", version, self.prefix]
            self._add("make", f"a virtual environment with Python {version}", argv)
            return
        wanted = self.wish.python
        fits = [one for one in self.means.pythons if one.venv and (wanted is None or _same(one.version, wanted))]
        low, high = torch_wheels.pythons(self.build) if self.build is not None else ((3, 8), (9, 99))
        fits = [one for one in fits if low <= one.minor <= high]
        if not fits:
            there = ", ".join(sorted({one.version for one in self.means.pythons if one.venv})) or "none"
            what = f"Python {wanted}" if wanted is not None else f"Python from {_dotted(low)} to {_dotted(high)}"
            raise errors.EnvironmentMissing(
                f"the host has no {what} that can make an environment",
                f"there is: {there}; uv or conda would bring its own, or install python3-venv",
            )
        best = max(fits, key=lambda one: one.minor)
        self._add("make", f"a virtual environment with Python {best.version}", [best.path, "-m", "venv", self.prefix])

    def _program(self, verb: str) -> list[str]:
        found = [self.tool.path, verb, "-y"]
        if self.tool.kind == "micromamba":
            return [self.tool.path, "-r", self.tool.root or self._own_root(), verb, "-y"]
        return [*found, "-q"]  # no progress bars: nobody watches the log draw them

    def _pip(self, key: str, text: str, packages: Sequence[str], more: Sequence[str] | None = None) -> None:
        if self.tool.kind == "uv":
            argv = [self.tool.path, "pip", "install", "--python", self.python]
        else:
            argv = [self.python, "-m", "pip", "install"]
        index = self._index() if more is None or "--find-links" in more else []
        self._add(key, text, [*argv, *packages, *index, *(more or [])])

    def _add(self, key: str, text: str, argv: Sequence[str], *, soft: bool = False) -> None:
        self.steps.append(PlanStep(key=key, text=text, argv=list(argv), soft=soft))

    # --- where from, where to -------------------------------------------------------------------------------------

    def _channels(self) -> list[str]:
        channels = list(self.wish.channels)
        if not channels and self.mirror is not None and self.mirror.conda is not None:
            channels = [f"{self.mirror.conda.rstrip('/')}/cloud/conda-forge"]
        if not channels:
            return []
        return ["--override-channels", *(word for channel in channels for word in ("-c", channel))]

    def _index(self) -> list[str]:
        return ["--index-url", self.mirror.pip] if self.mirror is not None and self.mirror.pip is not None else []

    def _torch_index(self, build: Build) -> list[str] | None:
        base = self.wish.torch_index or (self.mirror.torch if self.mirror is not None else None)
        if base is None and self._index() and build.on_pypi:
            self.notes.append(f"PyPI's own torch {build.release} is the {build.tag} build: it comes from the mirror")
            return None
        return ["--index-url", f"{check_text(base or torch_wheels.INDEX, 'address').rstrip('/')}/{build.tag}"]

    def _source(self) -> str:
        yaml = _is_yaml(self.wish.source_name or "")
        return f"{self.means.jobs}/{self.wish.name}/{'environment.yml' if yaml else 'requirements.txt'}"

    def _folder(self) -> str:
        said = self.wish.dir
        if said is not None:
            # As `up --dir`: from the home, where it is not absolute.
            below = said[1:].lstrip("/") if said[:2] in {"~", "~/"} else check_text(said, "folder")
            return posixpath.normpath(posixpath.join(self.means.home, below))
        if self.tool.kind not in CONDA:
            return f"{self.means.home}/.virtualenvs"
        if self.tool.kind == "micromamba":
            return f"{self.tool.root or self._own_root()}/envs"
        if self.tool.writable and self.tool.root is not None:
            return f"{self.tool.root}/envs"
        own = f"{self.means.home}/.conda/envs"
        self.notes.append(f"{self.tool.root}/envs is not yours to write in: it will lie in {own}")
        return own

    def _own_root(self) -> str:
        return f"{self.means.home}/micromamba"

    def _environment(self) -> Environment:
        root = self.tool.root if self.tool.kind in CONDA else None
        if self.tool.kind == "micromamba":
            root = root or self._own_root()
        found = Environment(
            name=discovery.name_of(self.prefix, root, self.means.home),
            prefix=self.prefix,
            kind=self.tool.kind,
            python=None,
            jupyter=None,
            ipykernel=None,
            torch=None,
            root=root,
            executable=self.python,
        )
        # activate.d is run by the kernel's wrapper; a root of another's is named all the same, as the probe does.
        inside = root is not None and self.prefix.startswith(f"{root}/envs/")
        return found if inside or root is None else msgspec.structs.replace(found, root=None)

    def _chosen(self) -> tuple[int, int]:
        """The Python where the user named none: the usual one, or the newest that torch's wheels are made for."""
        low, high = torch_wheels.pythons(self.build) if self.build is not None else (DEFAULT_PYTHON, DEFAULT_PYTHON)
        if self.tool.kind == "uv":
            # One that is there needs no download; uv takes it.
            there = [one.minor for one in self.means.pythons if (low if self.build else (3, 10)) <= one.minor]
            there = [one for one in there if self.build is None or one <= high]
            if there:
                return max(there)
        return min(max(DEFAULT_PYTHON, low), high)

    def _room(self) -> int:
        room = ROOM["conda" if self.tool.kind in CONDA else "pip"]
        if self.build is not None:
            room += ROOM["cpu" if self.build.tag == "cpu" else "cuda"]
        return room + (ROOM["pyg"] if self.wish.pyg else 0)


def _tool(wish: EnvironmentRequest, means: HostInstallers) -> Tool:
    """Choose the installer."""
    yaml = wish.source_name is not None and _is_yaml(wish.source_name)
    for kind in KINDS if wish.tool is None else [one for one in KINDS if one == wish.tool]:
        if yaml and kind not in CONDA:
            continue
        found = [one for one in means.tools if one.kind == kind]
        if kind == "venv":
            found = [Tool(kind="venv", path=one.path) for one in means.pythons if one.venv][:1]
        if wish.channels and kind not in CONDA:
            continue
        if found:
            # Several roots: the user's own first.
            return min(found, key=lambda one: not one.writable)
    names = ", ".join(dict.fromkeys(one.kind for one in means.tools)) or "none"
    if any(one.venv for one in means.pythons):
        names += ", venv"
    what = wish.tool or "conda, mamba, micromamba, uv, or Python with venv"
    if yaml or wish.channels:
        what = "conda, mamba or micromamba, which an environment.yml or a channel needs"
    raise errors.EnvironmentMissing(f"the host has no {what}", f"there is: {names}")


def _check_python(wish: EnvironmentRequest, build: Build | None) -> None:
    if wish.python is None or build is None:
        return
    low, high = torch_wheels.pythons(build)
    numbers = tuple(int(part) for part in wish.python.split(".")[:2])
    if not low <= numbers <= high:
        raise errors.UsageFault(
            f"torch {build.release or '(newest)'} has no wheels for Python {wish.python}",
            f"from {_dotted(low)} to {_dotted(high)}",
        )


def _bare(package: str) -> str:
    """``torchvision>=0.2`` is torchvision."""
    return re.split(r"[\s\[=<>!~;@]", package, maxsplit=1)[0].lower()


def _is_yaml(name: str) -> bool:
    return name.lower().endswith((".yml", ".yaml"))


def _same(version: str, wanted: str) -> bool:
    return version == wanted or version.startswith(f"{wanted}.")


def _dotted(numbers: tuple[int, int]) -> str:
    return f"{numbers[0]}.{numbers[1]}"
