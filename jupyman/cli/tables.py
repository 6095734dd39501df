"""Tables that several verbs print."""

from __future__ import annotations

from collections.abc import Iterable

from jupyman.cli import terminal
from jupyman.model import Environment


def environments(found: Iterable[Environment]) -> str:
    """Lay out environments as a table."""
    rows = []
    for env in found:
        build = "-"
        if env.torch is not None:
            build = f"{env.torch.version} ({f'CUDA {env.torch.cuda}' if env.torch.cuda else 'CPU'})"
        rows.append(
            (
                env.name or "-",
                env.kind if env.state == "ready" else f"{env.kind}, {env.state}",
                env.python or "?",
                env.jupyter or "-",
                env.ipykernel or "-",
                build,
                env.prefix,
            )
        )
    return terminal.table(("ENV", "KIND", "PYTHON", "JUPYTER", "IPYKERNEL", "TORCH", "PREFIX"), rows)
