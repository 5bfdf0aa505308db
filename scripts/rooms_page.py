"""The picture of the rooms in docs/explanation/architecture.md, from the layers of a test."""

from __future__ import annotations

import ast
from pathlib import Path

import optictl
from testing.layers import LAYERS

PAGE = Path(__file__).resolve().parent.parent / "docs/explanation/architecture.md"
_PACKAGE = Path(optictl.__file__).resolve().parent
_COLLECTION = "The Ansible collection: a role, modules, playbooks."


def _says(room: str) -> str:
    """The first sentence of a room's docstring."""
    place = _PACKAGE if room == "optictl" else _PACKAGE / room
    source = place / "__init__.py" if place.is_dir() else place.with_suffix(".py")
    if not source.is_file():
        return _COLLECTION
    text = ast.get_docstring(ast.parse(source.read_text(encoding="utf-8"))) or ""
    return " ".join(text.split("\n\n")[0].split())


def picture() -> str:
    """A line for each room, the highest layer first; a blank line between layers."""
    width = max(len(room) for layer in LAYERS for room in layer) + 1
    layers = [
        "\n".join(f"{_name(room):<{width + 1}}{_says(room)}" for room in sorted(layer))
        for layer in reversed(LAYERS)
    ]
    return "```text\n" + "\n\n".join(layers) + "\n```"


def _name(room: str) -> str:
    return f"{room}/" if (_PACKAGE / room).is_dir() else room
