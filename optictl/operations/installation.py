"""A planned installation, and what the caller says about its circumstances."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from optictl.deployment.config import Config
from optictl.deployment.paths import Paths
from optictl.operations.plan import Change
from optictl.releases.locks import Wanted
from optictl.results import Result
from optictl.takeover import table
from optictl.takeover.handmade import HandMade


@dataclass(frozen=True)
class Installation:
    """A planned installation: the changes, and what is needed to apply them.

    `problems` are what preflight found; with a failed one among them it would fail. `hand_made` is the service that it
    replaces, `table` what that changes.
    """

    config: Config
    paths: Paths
    want: Wanted
    changes: list[Change]
    start: bool = True
    problems: list[Result] = field(default_factory=list)
    hand_made: HandMade | None = None
    table: list[table.Row] = field(default_factory=list)

    @property
    def blockers(self) -> list[Result]:
        """The problems with which nothing is begun."""
        return [problem for problem in self.problems if problem.failed]


@dataclass(frozen=True)
class Circumstances:
    """What the caller of a plan says. `python` is the interpreter to build on; `secrets_come`: the caller writes the
    env file and the proxy key before it installs, so that the plan does not judge them."""

    python: Path | None = None
    secrets_come: bool = False


#: No interpreter was named, and the secrets are judged.
PLAIN = Circumstances()
