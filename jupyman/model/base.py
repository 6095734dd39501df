"""The base class of the structs that cross the API, are stored on disk, and are printed by ``--json``."""

from __future__ import annotations

import msgspec


class Noun(msgspec.Struct, frozen=True, kw_only=True):
    """Immutable and built by keyword.

    Times are RFC 3339 UTC strings, sizes are bytes, ports are integers. An unknown value is None, never 0 or "".
    """
