"""The record of a replaced hand-made service: its files and its state. Pure.

It is in the directory `before` of the configuration: state.json, and the files, each with a number
before its name.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

SCHEMA = 1
STATE = "state.json"
#: UnitFileState values with which a unit starts at boot.
ENABLED = ("enabled", "enabled-runtime", "linked", "linked-runtime")


@dataclass(frozen=True)
class KeptFile:
    """A kept file: its old path, mode and owner, and its name in the directory of the record."""

    path: str
    mode: int
    uid: int
    gid: int
    name: str


@dataclass(frozen=True)
class Record:
    """A replaced service.

    `enabled`: its UnitFileState. `active`: it ran. `since`: when replaced.
    """

    unit: str
    enabled: str
    active: bool
    since: str
    files: tuple[KeptFile, ...]

    def dump(self) -> str:
        """The text of state.json."""
        return json.dumps({"schema": SCHEMA, **asdict(self)}, indent=1) + "\n"


def kept_name(number: int, path: Path) -> str:
    """The name of a kept file. The number distinguishes drop-ins of two directories."""
    return f"{number}-{path.name}"


def parse(text: str | None) -> Record | None:
    """The record in the text of a state.json. None without a text, or when it is not valid."""
    try:
        data: Mapping[str, Any] = json.loads(text or "")
        kept: Sequence[Mapping[str, Any]] = data["files"]
        files = tuple(
            KeptFile(str(f["path"]), int(f["mode"]), int(f["uid"]), int(f["gid"]), str(f["name"]))
            for f in kept
        )
        unit, enabled = str(data["unit"]), str(data["enabled"])
        return Record(unit, enabled, bool(data["active"]), str(data["since"]), files)
    except (ValueError, KeyError, TypeError):
        return None
