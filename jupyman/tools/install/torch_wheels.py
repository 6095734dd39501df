"""The torch to install: its release and build, the index of its wheels, and the Pythons and PyG wheels that fit.

Sources: PyTorch's RELEASE.md (builds, Pythons); PyPI's own metadata, read with ``pip --dry-run --report`` (which build
PyPI serves for Linux); PyG's docs/source/install/installation.rst of 2026-08-17 (wheels of its extensions).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from jupyman import errors
from jupyman.model import Driver, Gpu
from jupyman.tools.gpu import torch_cuda

INDEX = "https://download.pytorch.org/whl"
PYG_INDEX = "https://data.pyg.org/whl"
Release = tuple[int, int]

# release and build of the wheel on PyPI: what a mirror of PyPI can serve.
ON_PYPI: dict[Release, str] = {
    (2, 4): "cu121",
    (2, 5): "cu124",
    (2, 6): "cu124",
    (2, 7): "cu126",
    (2, 8): "cu128",
    (2, 9): "cu128",
    (2, 10): "cu128",
    (2, 11): "cu130",
    (2, 12): "cu130",
    (2, 13): "cu130",
    (2, 14): "cu130",
}
# From this release on, the oldest and the newest Python that have wheels.
PYTHONS: tuple[tuple[Release, Release, Release], ...] = (
    ((2, 9), (3, 10), (3, 14)),
    ((2, 6), (3, 9), (3, 13)),
    ((2, 2), (3, 8), (3, 12)),
    ((2, 0), (3, 8), (3, 11)),
)
# PyG's compiled extensions: the builds of each torch release.
PYG: dict[Release, frozenset[str]] = {
    (2, 0): frozenset({"cpu", "cu117", "cu118"}),
    (2, 1): frozenset({"cpu", "cu118", "cu121"}),
    (2, 2): frozenset({"cpu", "cu118", "cu121"}),
    (2, 3): frozenset({"cpu", "cu118", "cu121"}),
    (2, 4): frozenset({"cpu", "cu118", "cu121", "cu124"}),
    (2, 5): frozenset({"cpu", "cu118", "cu121", "cu124"}),
    (2, 6): frozenset({"cpu", "cu118", "cu124", "cu126"}),
    (2, 7): frozenset({"cpu", "cu118", "cu126", "cu128"}),
    (2, 8): frozenset({"cpu", "cu126", "cu128", "cu129"}),
    (2, 9): frozenset({"cpu", "cu126", "cu128", "cu130"}),
    (2, 10): frozenset({"cpu", "cu126", "cu128", "cu130"}),
    (2, 11): frozenset({"cpu", "cu126", "cu128", "cu130"}),
    (2, 12): frozenset({"cpu", "cu126", "cu130", "cu132"}),
}
# Since then torch_cluster and torch_spline_conv are part of pyg_lib (PyG's installation page, "pyg-lib>=0.6.0").
PYG_MERGED: Release = (2, 9)
_SPEC = re.compile(r"(?P<release>[0-9]{1,2}\.[0-9]{1,2}(?:\.[0-9]{1,2})?)(?:\+(?P<tag>cpu|cu[0-9]{3}))?")
_TAG = re.compile(r"cpu|cu[0-9]{3}")
_DOTTED = re.compile(r"([0-9]{2})\.([0-9])")


@dataclass(frozen=True)
class Build:
    """A build of torch; `release` None: the newest that its index has."""

    tag: str
    release: str | None
    why: str

    @property
    def numbers(self) -> Release | None:
        """Major and minor of the release."""
        found = torch_cuda.version(self.release)
        return (found[0], found[1]) if found is not None and len(found) > 1 else None

    @property
    def spec(self) -> str:
        """The requirement for pip; a release of two numbers means the newest of its line."""
        if self.release is None:
            return "torch"
        return f"torch=={self.release}" + ("" if self.release.count(".") == 2 else ".*")

    @property
    def on_pypi(self) -> bool:
        """Whether PyPI's own wheel of that release is this build."""
        return self.numbers is not None and ON_PYPI.get(self.numbers) == self.tag


def parse(torch: str | None, cuda: str | None) -> tuple[str | None, str | None]:
    """Read ``--torch`` and ``--cuda``.

    Args:
        torch: ``auto``, ``2.5.1``, ``2.5``, ``2.5.1+cu121``.
        cuda: ``cu121``, ``12.1``, ``cpu``.

    Returns:
        The release and the tag; None for what was not given.

    Raises:
        UsageFault: they cannot be read, or contradict each other.
    """
    release = tag = None
    if torch not in {None, "auto"}:
        found = _SPEC.fullmatch(torch or "")
        if found is None:
            raise errors.UsageFault(
                f"{torch!r} is not a release of torch", "write --torch, --torch 2.5.1 or 2.5.1+cu121"
            )
        release, tag = found["release"], found["tag"]
    if cuda is not None:
        dotted = _DOTTED.fullmatch(cuda)
        wanted = f"cu{dotted[1]}{dotted[2]}" if dotted is not None else cuda
        if not _TAG.fullmatch(wanted):
            hint = "write --cuda cu124, --cuda 12.4 or --cuda cpu"
            raise errors.UsageFault(f"{cuda!r} is not a CUDA build of torch", hint)
        if tag is not None and tag != wanted:
            raise errors.UsageFault(f"two builds of torch: {tag} and {wanted}", "name one")
        tag = wanted
    return release, tag


def choose(
    torch: str | None, cuda: str | None, driver: Driver | None, gpus: Sequence[Gpu], *, pyg: bool, pypi: bool
) -> Build:
    """Choose the build for a host.

    Args:
        torch: as `parse`.
        cuda: as `parse`.
        driver: of the host.
        gpus: of the host.
        pyg: only a build that PyG has wheels for.
        pypi: prefer a release that PyPI itself serves in this build, because only those are on its mirrors.

    Raises:
        UsageFault: nothing fits, or PyG has no wheels for the request.
    """
    release, tag = parse(torch, cuda)
    wanted = Build(tag or "", release, "").numbers
    why = "as requested"
    if tag is None and driver is None:
        tag, why = "cpu", "no NVIDIA driver was seen; --cuda chooses another build"
    if tag is None:
        tag = torch_cuda.best_build(driver, gpus, wanted)
        seen = f"driver {driver.version or 'of CUDA ' + str(driver.cuda)}" if driver is not None else ""
        names = sorted({gpu.name for gpu in gpus if gpu.name})
        why = f"for {seen}" + (f" and {', '.join(names[:2])}" if names else "")
        if tag is None:
            what = f"torch {release}" if release is not None else "torch"
            text = f"no build of {what} fits {seen}" + (f" and {', '.join(names[:2])}" if names else "")
            raise errors.UsageFault(text, "leave the release out, or say --cuda cpu")
    build = Build(tag, release or _release(tag, pyg=pyg, pypi=pypi), why)
    if pyg and (build.numbers is None or tag not in PYG.get(build.numbers, frozenset())):
        there = sorted(f"{a}.{b}" for (a, b), tags in PYG.items() if tag in tags)
        hint = f"its releases for {tag}: {', '.join(there)}" if there else "choose another build with --cuda"
        raise errors.UsageFault(f"PyG has no wheels for torch {build.release or ''}+{tag}", hint)
    return build


def pythons(build: Build) -> tuple[Release, Release]:
    """Return the oldest and the newest Python that have wheels of a build."""
    numbers = build.numbers or (99, 0)
    return next(((low, high) for first, low, high in PYTHONS if numbers >= first), PYTHONS[-1][1:])


def pyg_page(build: Build) -> str:
    """Return the page with PyG's extensions for a build; they are built for the first patch release."""
    major, minor = build.numbers or (0, 0)
    return f"{PYG_INDEX}/torch-{major}.{minor}.0+{build.tag}.html"


def pyg_packages(build: Build) -> list[str]:
    """Return PyG's compiled extensions for a build."""
    found = ["pyg_lib", "torch_scatter", "torch_sparse"]
    if (build.numbers or (0, 0)) < PYG_MERGED:
        found += ["torch_cluster", "torch_spline_conv"]
    return found


def _release(tag: str, *, pyg: bool, pypi: bool) -> str | None:
    """Return the newest release of a build that fits the conditions; None: the newest in its index."""
    fits = [numbers for numbers, tags in PYG.items() if tag in tags] if pyg else None
    served = [numbers for numbers, its in ON_PYPI.items() if its == tag] if pypi else None
    both = [numbers for numbers in fits or () if served is not None and numbers in served]
    candidates = both or fits or served
    if candidates:
        # On a mirror of PyPI the release must be named; the index of a build has only its own releases.
        return ".".join(map(str, max(candidates)))
    last = next((row[5] for row in torch_cuda.BUILDS if row[0] == tag), None)
    return ".".join(map(str, last)) if last is not None else None
