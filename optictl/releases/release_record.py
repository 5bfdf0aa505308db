"""release.json: what a release consists of, and the proof that it starts and runs a strategy.

A build writes it last. A release without a valid one is incomplete: it is never started, and the
next installation replaces it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

from pydantic import Field

from optictl import records
from optictl.host import files

FILE = "release.json"
_SCHEMA = 1


@dataclass(frozen=True)
class Distribution:
    """An installed Python package: its version, and the digest of its list of files (RECORD)."""

    version: str
    record_sha256: str


@dataclass(frozen=True)
class Python:
    """The interpreter of a release.

    `path`: where it was at the build. `version`: such as "3.12.4".
    """

    path: str
    version: Annotated[str, Field(pattern=r"^\d+\.\d+")]

    @property
    def minor(self) -> tuple[int, ...]:
        """Its major and minor version."""
        return tuple(map(int, self.version.split(".")[:2]))


@dataclass(frozen=True)
class Proof:
    """What a release did when it was proven."""

    strategy: str
    upstream_calls: int
    latency_ms: int


@dataclass(frozen=True)
class Conformance:
    """The outcome of a conformance run on this machine. `at`: when, in UTC."""

    passed: bool
    at: str


@dataclass(frozen=True)
class ReleaseRecord:
    """The content of release.json.

    `id`: see `ReleaseSpec`. `guard`: the version of the guard; `flags`: those that it knows.
    `built`: a time in UTC. `files`: path below the release -> digest, for those that optictl added.
    `conformance`: None where no conformance run took place.
    """

    id: str
    optillm: str
    profile: str
    guard: str
    flags: tuple[str, ...]
    lock_sha256: str
    python: Python
    built: str
    proof: Proof
    distributions: Mapping[str, Distribution]
    files: Mapping[str, str]
    conformance: Conformance | None = None


def read(directory: Path) -> ReleaseRecord | None:
    """The record of a release; None if it is missing or damaged: the release is incomplete."""
    try:
        return records.parse(ReleaseRecord, json.loads((directory / FILE).read_text()))
    except (OSError, ValueError):
        return None


def write(directory: Path, record: ReleaseRecord) -> None:
    """Write the record of a release, which completes it."""
    data = {"schema": _SCHEMA, **asdict(record)}
    files.write(directory / FILE, json.dumps(data, indent=1) + "\n", 0o644)
