"""A planned installation, and the circumstances that its caller knows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from optictl.deployment.artefacts import Artefact
from optictl.deployment.config import Config
from optictl.deployment.manifest import Manifest
from optictl.deployment.paths import Paths
from optictl.deployment.render import Host
from optictl.operations.steps import Step
from optictl.releases.locks import ReleaseSpec
from optictl.results import Result
from optictl.takeover import table
from optictl.takeover.handmade import HandMade


@dataclass(frozen=True)
class Installation:
    """A planned installation: its steps, and what is needed to apply them.

    `problems` are what preflight found; with a failed one among them it would fail. `hand_made` is
    the service that it replaces, `table` what that changes. The steps were planned from
    `artefacts`, the files to come, `manifest`, the files that optictl wrote so far, and `host`;
    `drop_ins` are those that stay beside the service's unit.
    """

    config: Config
    paths: Paths
    want: ReleaseSpec
    steps: list[Step]
    start: bool = True
    problems: list[Result] = field(default_factory=list)
    hand_made: HandMade | None = None
    table: list[table.Row] = field(default_factory=list)
    artefacts: Sequence[Artefact] = ()
    manifest: Manifest = field(default_factory=Manifest)
    host: Host = field(default_factory=Host)
    drop_ins: Sequence[Path] = ()

    @property
    def blockers(self) -> list[Result]:
        """The problems that keep the installation from being started."""
        return [problem for problem in self.problems if problem.failed]


@dataclass(frozen=True)
class Circumstances:
    """What the caller knows and the plan cannot read.

    `python` is the interpreter to build on. `secrets_come`: the caller writes the env file and the
    proxy key before it installs, so the plan does not check them. `lock`: the lock to build from,
    which is kept once its release is proven.
    """

    python: Path | None = None
    secrets_come: bool = False
    lock: Path | None = None


#: No interpreter was named, and the secrets are checked.
PLAIN = Circumstances()
