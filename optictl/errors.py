"""Failures that a person can act on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def os_words(failure: OSError) -> str:
    """What the system says went wrong, and with which file."""
    return f"{failure.strerror or failure}: {failure.filename or ''}".rstrip(": ")


class OptictlError(Exception):
    """What went wrong, and the command or the act that mends it. Exit code 1.

    `problems`: for programs, where several things are wrong.
    """

    def __init__(
        self, what: str, remedy: str = "", detail: str = "", problems: Sequence[dict[str, Any]] = ()
    ) -> None:
        super().__init__(what)
        self.what, self.remedy, self.detail, self.problems = what, remedy, detail, problems


class RolledBack(OptictlError):
    """A step failed after something had begun, and what was in force before is in force. Exit code 4."""


class MissingFact(OptictlError):
    """Something that is asked for cannot be read on this machine now; the check engine turns it into a skip. Exit code 1."""
