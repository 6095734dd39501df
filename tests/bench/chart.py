"""A bar chart as SVG, by hand: no plotting library is worth a dependency for this."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from pathlib import Path

LEFT, RIGHT, ROW, GAP, HEAD, LABEL = 190, 70, 18, 26, 24, 12
WIDTH = 760
COLOURS = {True: "#d9662b", False: "#7b8794"}


def draw(path: Path, title: str, groups: Mapping[str, Mapping[str, float]], ours: str) -> None:
    """Write horizontal bars, one group below the other; a line marks 1.

    Args:
        path: of the SVG.
        title: above everything.
        groups: by heading, by label: the value.
        ours: the label that stands out.
    """
    most = max((value for group in groups.values() for value in group.values()), default=1.0)
    scale = (WIDTH - LEFT - RIGHT) / max(most, 1.0)
    parts: list[str] = []

    def text(x: float, y: float, words: str, more: str = "") -> None:
        parts.append(f'<text x="{x:.0f}" y="{y:.0f}" font-size="{LABEL}"{more}>{escape(words)}</text>')

    y = 20.0
    text(8, y, title, ' font-weight="bold"')
    for heading, group in groups.items():
        y += HEAD
        text(8, y, heading, ' font-weight="bold"')
        top = y + 6
        for label, value in group.items():
            y += ROW
            length, colour = max(1.0, value * scale), COLOURS[label == ours]
            parts.append(f'<rect x="{LEFT}" y="{y - 11:.0f}" width="{length:.0f}" height="13" fill="{colour}"/>')
            text(LEFT - 8, y, label, ' text-anchor="end"')
            text(LEFT + length + 5, y, f"{value:.2f}")
        at = LEFT + scale
        parts.append(f'<line x1="{at:.0f}" y1="{top:.0f}" x2="{at:.0f}" y2="{y + 5:.0f}" stroke="#222"/>')
        y += GAP - ROW
    size = f'viewBox="0 0 {WIDTH} {y + 12:.0f}" width="{WIDTH}" height="{y + 12:.0f}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif">'
    background = '<rect width="100%" height="100%" fill="#ffffff"/>'
    path.write_text("\n".join([head, background, *parts, "</svg>", ""]), encoding="utf-8")
