"""A note: one fact about a release, in a small JSON file in its directory."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Generic, TypeVar

from optictl import records
from optictl.host import files

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

T = TypeVar("T", bound="DataclassInstance")


@dataclass(frozen=True)
class Note(Generic[T]):
    """A kind of note. `file`: its name. `damaged`: what a note that cannot be read says."""

    file: str
    fact: type[T]
    damaged: T

    def path(self, directory: Path) -> Path:
        """Where the note of a release is."""
        return directory / self.file

    def of(self, directory: Path) -> T | None:
        """The note of a release, or None."""
        text = files.read(self.path(directory))
        if text is None:
            return None
        try:
            return records.parse(self.fact, json.loads(text))
        except ValueError:
            return self.damaged

    def write(self, directory: Path, fact: T) -> None:
        """Write the note of a release, in the place of an earlier one."""
        text = json.dumps({"schema": 1, **asdict(fact)}, indent=1)
        files.write(self.path(directory), text + "\n", 0o644)

    def forget(self, directory: Path) -> None:
        """Remove the note of a release, if it has one."""
        if files.file_facts(self.path(directory)).kind != "missing":
            files.remove(self.path(directory))
