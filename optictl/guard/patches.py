"""Patches for defects in OptiLLM. Each is small and names its defect and the affected versions.

The wheel is not changed: a patch replaces a name in a loaded module. Most defects are in parts of
OptiLLM that the guard does not use: the guard calls strategies directly.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType, SimpleNamespace
from typing import Any


@dataclass(frozen=True)
class Patch:
    """`apply(server)` fixes `defect` in these `versions` of OptiLLM: (first, last)."""

    defect: str
    versions: tuple[str, str]
    apply: Callable[[ModuleType], None]


def _readable_arguments(server: ModuleType) -> None:
    """Read an argument with a union as its type as text.

    `parse_args` creates an argument for every field of CePO's configuration, with the annotation of
    the field as its type. One annotation is `Optional[str]`. In 3.14 that is a union, which is not
    callable, and argparse refuses it. Other fields do not change.
    """

    def fields(configuration: Any) -> list[Any]:
        return [
            SimpleNamespace(name=field.name, type=field.type if callable(field.type) else str)
            for field in dataclasses.fields(configuration)
        ]

    server.fields = fields  # type: ignore[attr-defined]


PATCHES = (
    Patch(
        "parse_args fails on Python 3.14: a type annotation is not callable",
        ("0.3.12", "0.4.0"),
        _readable_arguments,
    ),
)


def apply(server: ModuleType) -> None:
    """Apply every patch. Call this before OptiLLM parses its arguments."""
    for patch in PATCHES:
        patch.apply(server)
