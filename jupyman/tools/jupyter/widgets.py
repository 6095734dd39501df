"""The two halves of Jupyter widgets (a progress bar of tqdm is one), and the versions that fit together.

ipywidgets belongs to the environment of the kernel; without it tqdm prints "IProgress not found". The package that
draws widgets belongs to the environment of the server: jupyterlab_widgets for JupyterLab and notebook 7,
widgetsnbextension for notebook 6.
Both must be of one generation, else the page shows "Error displaying widget". By their own metadata, ipywidgets
7.8.5 requires ``jupyterlab-widgets<3,>=1.0.0`` and ``widgetsnbextension~=3.6.10``, ipywidgets 8.0.0 requires
``jupyterlab-widgets~=3.0`` and ``widgetsnbextension~=4.0``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

Generation = Literal[7, 8]
Package = Literal["ipywidgets", "jupyterlab_widgets", "widgetsnbextension"]

# The first number of a version. JupyterLab reads its extension's package.json, whose numbers differ from those of the
# Python package that brings it: jupyterlab_widgets 1.0.0 to 1.1.11 have 3.0.0 to 3.1.11 there, and 3.0.0 to 3.0.17 have
# 5.0.0 to 5.0.16.
_IPYWIDGETS: dict[int, Generation] = {7: 7, 8: 8}
_LAB: dict[int, Generation] = {3: 7, 5: 8}
_CLASSIC: dict[int, Generation] = {3: 7, 4: 8}
_REQUIREMENTS: dict[tuple[Package, Generation], str] = {
    ("ipywidgets", 7): "ipywidgets>=7,<8",
    ("ipywidgets", 8): "ipywidgets>=8,<9",
    ("jupyterlab_widgets", 7): "jupyterlab_widgets>=1,<3",
    ("jupyterlab_widgets", 8): "jupyterlab_widgets>=3,<4",
    ("widgetsnbextension", 7): "widgetsnbextension>=3,<4",
    ("widgetsnbextension", 8): "widgetsnbextension>=4,<5",
}
_OLDEST = (3, 7)  # Python for ipywidgets 8 (its metadata)


@dataclass(frozen=True)
class WidgetPart:
    """One half of the widgets, as found.

    Attributes:
        package: its name.
        version: as reported; None when it is missing.
        generation: None when it is missing, or its version is not in our tables.
    """

    package: Package
    version: str | None
    generation: Generation | None

    @property
    def strange(self) -> bool:
        """Whether it is installed, with a version that is not in our tables."""
        return self.version is not None and self.generation is None


def in_kernel(version: str | None) -> WidgetPart:
    """Read the version of ipywidgets that a kernel has; None: it has none."""
    return WidgetPart("ipywidgets", version, _generation(version, _IPYWIDGETS))


def in_lab(version: str | None) -> WidgetPart:
    """Read the version in the package.json of JupyterLab's extension; None: it is not there."""
    return WidgetPart("jupyterlab_widgets", version, _generation(version, _LAB))


def in_classic(version: str | None) -> WidgetPart:
    """Read the version of widgetsnbextension; None: it is not there."""
    return WidgetPart("widgetsnbextension", version, _generation(version, _CLASSIC))


def requirement(package: Package, generation: Generation) -> str:
    """Return the requirement of a generation, for pip, conda and uv."""
    return _REQUIREMENTS[package, generation]


def agreed(kernel: WidgetPart, front: WidgetPart, python: str | None) -> Generation | None:
    """Return the generation that both halves should have.

    Args:
        kernel: the kernel's half.
        front: the server's. The kernel follows it, because all kernels share the server.
        python: version of the kernel's Python.

    Returns:
        The generation; None when the version of one half is not in our tables.
    """
    if kernel.strange or front.strange:
        return None
    newest: Generation = 8 if python is None or _numbers(python) >= _OLDEST else 7
    if front.generation is None:
        return kernel.generation or newest
    return min(front.generation, newest)


def _generation(version: str | None, known: dict[int, Generation]) -> Generation | None:
    numbers = _numbers(version or "")
    return known.get(numbers[0]) if numbers else None


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"[0-9]{1,6}", version)[:2])
