"""Why a release failed: a record in its directory, from its roll-back until it serves again."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from optictl import records
from optictl.releases.notes import Note


@dataclass(frozen=True)
class Failure:
    """A release that was rolled back. `time` is in UTC, such as 2026-11-28T09:30:00Z."""

    reason: str
    time: str

    def __str__(self) -> str:
        return f"{self.time[:16].replace('T', ' ')} UTC: {self.reason}"


_NOTE = Note("failed.json", Failure, damaged=Failure("its record is damaged", ""))


def of(directory: Path) -> Failure | None:
    """The failure of a release, or None. A damaged record is one, too."""
    return _NOTE.of(directory)


def record(directory: Path, reason: str) -> None:
    """Record that a release failed now."""
    _NOTE.write(directory, Failure(reason, records.utc_now()))


def forget(directory: Path) -> None:
    """Remove the record: the release served, whatever failed before."""
    _NOTE.forget(directory)
