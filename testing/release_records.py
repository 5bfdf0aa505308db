"""Records of releases (release.json) for tests that need no real release."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from optictl.guard import settings
from optictl.host import files
from optictl.releases import release_record
from optictl.releases.release_record import Proof, Python, ReleaseRecord

SAMPLE = ReleaseRecord(
    id="0.3.12-0123456789ab",
    optillm="0.3.12",
    profile="proxy",
    guard="3",
    flags=tuple(settings.flags()),
    lock_sha256="0" * 64,
    python=Python("/usr/bin/python3", "3.12.4"),
    built="2026-11-28T12:00:00Z",
    proof=Proof("moa", 3, 1200),
    distributions={},
    files={},
)


def write(directory: Path, **changes: Any) -> None:
    """Make a directory a complete release: the sample's record, with these fields changed."""
    files.make_directory(directory)
    release_record.write(directory, replace(SAMPLE, **changes))
