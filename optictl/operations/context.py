"""What the steps of one run share: the deployment, its state before the run, and what steps
leave for later ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from optictl.deployment.config import Config
from optictl.deployment.paths import Paths
from optictl.deployment.render import Host
from optictl.host.systemd import Unit
from optictl.operations import previous_service
from optictl.operations.canary import Canary
from optictl.results import Progress
from optictl.takeover.handmade import HandMade


@dataclass(frozen=True)
class StateBefore:
    """What was active before the first step changed anything.

    `texts`: each file that a start of the service reads, None where it was missing; `modes` are
    theirs. `runs`: the service ran on its socket. `units`: how systemd knew each unit; empty where
    systemd does not manage the deployment. `previous_release` is what `rollback` returned to.
    """

    release: str | None
    texts: Mapping[Path, str | None]
    modes: Mapping[Path, int]
    runs: bool
    units: Mapping[str, Unit]
    previous_release: str | None = None


@dataclass
class Context:
    """What the steps of one run share.

    `config` is the configuration that the plan leads to. `host` are the facts that its units depend
    on, `drop_ins` the drop-ins that stay beside the service's unit. `python` and `wheelhouse` are
    those that the caller named for a build. `hand_made` is the service that the deployment
    replaces, `hand_made_files` its files. A sealed trial that serves for later steps is in
    `trials`, on `trial_port`.
    """

    config: Config
    paths: Paths
    say: Progress
    host: Host = field(default_factory=Host)
    drop_ins: Sequence[Path] = ()
    python: Path | None = None
    wheelhouse: Path | None = None
    canary: Canary | None = None
    before: StateBefore | None = None
    hand_made: HandMade | None = None
    hand_made_files: frozenset[Path] = frozenset()
    trials: ExitStack = field(default_factory=ExitStack)
    trial_port: int = 0
    _hand_made_is_kept: bool = False

    def keep_hand_made_service(self) -> None:
        """Copy the files of the service that was written by hand, before the first step that
        changes one of them.
        """
        if self.hand_made is not None and not self._hand_made_is_kept:
            previous_service.keep(self.hand_made, self.paths, map(str, self.hand_made_files))
            self._hand_made_is_kept = True
