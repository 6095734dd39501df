"""Which halves of a widget fit, and what is to be installed where they do not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jupyman.tools.jupyter import widgets


@pytest.mark.parametrize(
    ("half", "generation", "strange"),
    [
        (widgets.in_kernel("8.1.9"), 8, False),
        (widgets.in_kernel("7.6.0"), 7, False),
        (widgets.in_kernel(None), None, False),
        (widgets.in_kernel("9.0.0a1"), None, True),
        (widgets.in_kernel("6.0.1"), None, True),
        # package.json of jupyterlab_widgets 3.0.17, 3.0.0, 1.1.11 and 1.0.0, read from the wheels
        (widgets.in_lab("5.0.16"), 8, False),
        (widgets.in_lab("5.0.0"), 8, False),
        (widgets.in_lab("3.1.11"), 7, False),
        (widgets.in_lab("3.0.0"), 7, False),
        (widgets.in_lab(""), None, True),
        (widgets.in_classic("4.0.16"), 8, False),
        (widgets.in_classic("3.6.10"), 7, False),
        (widgets.in_classic(None), None, False),
    ],
)
def test_generations(half: widgets.WidgetPart, generation: int | None, strange: bool) -> None:
    assert (half.generation, half.strange) == (generation, strange)


@pytest.mark.parametrize(
    ("kernel", "front", "python", "agreed"),
    [
        (None, None, "3.12.1", 8),
        (None, None, "3.6.15", 7),
        (None, "5.0.16", "3.7.0", 8),
        (None, "5.0.16", "3.6.15", 7),  # ipywidgets 8 needs Python 3.7
        (None, "3.1.11", "3.12.1", 7),
        ("8.1.9", None, "3.12.1", 8),
        ("7.8.5", None, "3.12.1", 7),
        ("7.8.5", "5.0.16", "3.12.1", 8),  # the kernel follows the server
        ("8.1.9", "3.1.11", "3.12.1", 7),
        ("8.1.9", "5.0.16", None, 8),
        ("9.0.0", "5.0.16", "3.12.1", None),
        ("8.1.9", "7.0.0", "3.12.1", None),
    ],
)
def test_what_both_should_be(kernel: str | None, front: str | None, python: str | None, agreed: int | None) -> None:
    assert widgets.agreed(widgets.in_kernel(kernel), widgets.in_lab(front), python) == agreed


def test_requirements_are_pairs() -> None:
    assert widgets.requirement("ipywidgets", 8) == "ipywidgets>=8,<9"
    assert widgets.requirement("jupyterlab_widgets", 8) == "jupyterlab_widgets>=3,<4"
    assert widgets.requirement("jupyterlab_widgets", 7) == "jupyterlab_widgets>=1,<3"
    assert widgets.requirement("widgetsnbextension", 7) == "widgetsnbextension>=3,<4"


@given(st.text(), st.text())
def test_any_version_is_read(version: str, python: str) -> None:
    kernel, front = widgets.in_kernel(version), widgets.in_lab(version)
    assert widgets.agreed(kernel, front, python) in {7, 8, None}
