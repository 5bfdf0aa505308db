"""What every step is: how a plan shows it, how it is applied and undone."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Literal

from optictl.operations.context import Context

#: What a step does to its target; the plan's colours follow it.
Effect = Literal["add", "change", "remove", "run"]


@dataclass(frozen=True)
class Description:
    """A step as a plan shows it: what is done to which target, why, and the difference that it
    makes.

    `edited`: the target holds a text that optictl did not write.
    """

    action: str
    target: str
    reason: str
    diff: str = ""
    edited: bool = False

    def as_dict(self) -> dict[str, Any]:
        """The JSON shape; `edited` only where it is true."""
        fields = asdict(self)
        if not self.edited:
            del fields["edited"]
        return fields


@dataclass(frozen=True, kw_only=True)
class Step(ABC):
    """One step of a plan.

    `action` is its word in a plan, `done` its word once it is done. `edited`: it replaces or
    removes a text that optictl did not write, which needs --force. `cleanup`: it removes what is no
    longer needed; it comes after every check.
    """

    action: ClassVar[str]
    done: ClassVar[str]
    effect: ClassVar[Effect] = "run"

    reason: str
    diff: str = ""
    edited: bool = False
    cleanup: bool = False

    @property
    @abstractmethod
    def target(self) -> str:
        """What the step is about: a path, a unit, a release."""

    def describe(self) -> Description:
        """What the plan shows."""
        return Description(self.action, self.target, self.reason, self.diff, self.edited)

    def as_dict(self) -> dict[str, Any]:
        """The JSON shape."""
        return self.describe().as_dict()

    @abstractmethod
    def apply(self, context: Context) -> None:
        """Do it.

        Raises:
            OptictlError: it failed.
        """

    def undo(self, context: Context) -> None:  # noqa: B027  most steps need none
        """Return what the step changed to `context.before`. A step without an `undo` changes
        nothing that needs one.
        """
