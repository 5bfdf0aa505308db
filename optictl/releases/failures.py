"""Why a release failed: a record in its directory, from its roll-back until it serves again."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from optictl import records
from optictl.host import files

_FILE = "failed.json"


@dataclass(frozen=True)
class Failure:
    """A release that was rolled back. `time` is in UTC, such as 2026-11-28T09:30:00Z."""

    reason: str
    time: str

    def __str__(self) -> str:
        return f"{self.time[:16].replace('T', ' ')} UTC: {self.reason}"


def of(directory: Path) -> Failure | None:
    """The failure of a release, or None. A damaged record is one, too."""
    text = files.read(directory / _FILE)
    return None if text is None else _parsed(text)


def _parsed(text: str) -> Failure:
    try:
        return records.parse(Failure, json.loads(text))
    except ValueError:
        return Failure("its record is damaged", "")


def record(directory: Path, reason: str) -> None:
    """Record that a release failed now."""
    failure = Failure(reason, time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()))
    text = json.dumps({"schema": 1, **asdict(failure)}, indent=1)
    files.write(directory / _FILE, text + "\n", 0o644)


def forget(directory: Path) -> None:
    """Remove the record: the release served, whatever failed before."""
    if files.file_facts(directory / _FILE).kind != "missing":
        files.remove(directory / _FILE)
