"""The versions of LiteLLM that the routing rules were compared with. Pure."""

from __future__ import annotations

import re

#: The oldest and the newest LiteLLM that the tests compared (`tests/integration/routing`).
OLDEST = "1.106.2"
NEWEST = "1.110.2"
#: The range, for messages and documents.
COMPARED = f"{OLDEST} to {NEWEST}"


def parse(version: str) -> tuple[int, ...] | None:
    """The first three numbers of a version. None for a text of another form."""
    match = re.match(r"v?(\d+)\.(\d+)\.(\d+)", version)
    return tuple(map(int, match.groups())) if match else None


def position(version: str) -> str | None:
    """Where a version lies: "older", "compared" or "newer". None when it cannot be parsed."""
    parsed, oldest, newest = parse(version), parse(OLDEST), parse(NEWEST)
    if parsed is None or oldest is None or newest is None:
        return None
    return "older" if parsed < oldest else "newer" if parsed > newest else "compared"
