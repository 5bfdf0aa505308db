"""Activations whose proof is still to come: a record in the directory of the release.

It says which release the active one replaced, from the moment it is activated until it is proven.
It has a meaning only while its release is active.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from optictl import records
from optictl.host import files

_FILE = "activating.json"


def path(directory: Path) -> Path:
    """Where the record of a release is."""
    return directory / _FILE


@dataclass(frozen=True)
class Activation:
    """`replaced`: the last proven release before this one, None if there was none."""

    replaced: str | None


def of(directory: Path) -> Activation | None:
    """The activation of a release, or None if it is proven. A damaged record is one, too."""
    text = files.read(path(directory))
    return None if text is None else _parsed(text)


def _parsed(text: str) -> Activation:
    try:
        return records.parse(Activation, json.loads(text))
    except ValueError:
        return Activation(None)


def record(directory: Path, replaced: str | None) -> None:
    """Record that a release is about to take the place of another one."""
    text = json.dumps({"schema": 1, **asdict(Activation(replaced))}, indent=1)
    files.write(path(directory), text + "\n", 0o644)


def forget(directory: Path) -> None:
    """Remove the record: the release is proven."""
    files.remove(path(directory))
