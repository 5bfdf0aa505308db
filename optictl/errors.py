"""Failures that a person can act on."""

from __future__ import annotations


def os_words(failure: OSError) -> str:
    """What the system says went wrong, and with which file."""
    return f"{failure.strerror or failure}: {failure.filename or ''}".rstrip(": ")


class OptictlError(Exception):
    """What went wrong, and the command or the act that mends it. Exit code 1."""

    def __init__(self, what: str, remedy: str = "", detail: str = "") -> None:
        super().__init__(what)
        self.what, self.remedy, self.detail = what, remedy, detail


class RolledBack(OptictlError):
    """A step failed after something had begun, and what was in force before is in force. Exit code 4."""
