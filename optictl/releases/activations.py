"""Activations whose proof is still to come: a record in the directory of the release.

It says which release the active one replaced, from the moment it is activated until it is proven.
It has a meaning only while its release is active.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from optictl.releases.notes import Note


@dataclass(frozen=True)
class Activation:
    """`replaced`: the last proven release before this one, None if there was none."""

    replaced: str | None


_NOTE = Note("activating.json", Activation, damaged=Activation(None))
#: Where the record of a release is.
path = _NOTE.path


def of(directory: Path) -> Activation | None:
    """The activation of a release, or None if it is proven. A damaged record is one, too."""
    return _NOTE.of(directory)


def record(directory: Path, replaced: str | None) -> None:
    """Record that a release is about to take the place of another one."""
    _NOTE.write(directory, Activation(replaced))


def forget(directory: Path) -> None:
    """Remove the record: the release is proven."""
    _NOTE.forget(directory)
