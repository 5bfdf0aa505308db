"""What stood where the deployment stands now: the files and the state of a service that was written by hand. Pure.

It lies in `etc/before/`: state.json, and beside it the files under their own names with a number in front.
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
    """A file that went aside: where it stood, its mode and owner, and its name in the directory of the record."""

    path: str
    mode: int
    uid: int
    gid: int
    name: str


@dataclass(frozen=True)
class Record:
    """`enabled` is systemd's word for how the unit starts at boot, `active`: it ran. `since` is when it was replaced."""

    unit: str
    enabled: str
    active: bool
    since: str
    files: tuple[KeptFile, ...]

    def dump(self) -> str:
        return json.dumps({"schema": SCHEMA, **asdict(self)}, indent=1) + "\n"


def kept_name(number: int, path: Path) -> str:
    """The name of a kept file: drop-ins of two directories may be called the same."""
    return f"{number}-{path.name}"


def parse(text: str | None) -> Record | None:
    """The text of a state.json -> Record; None where there is none or it is broken."""
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
