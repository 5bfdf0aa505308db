"""The order of OptiLLM's versions. Pure."""

from __future__ import annotations


def version_order(version: str) -> list[int]:
    """The key that sorts versions, the oldest first. What is not a number counts as 0."""
    return [int(part) if part.isdigit() else 0 for part in version.split(".")]
