"""The checks that end an installation."""

from __future__ import annotations

from pathlib import Path

from optictl.checks import catalog
from optictl.deployment.paths import Paths
from optictl.errors import MissingFact
from optictl.facts.deployment import Deployment
from optictl.results import Result


def check(paths: Paths, config_path: Path) -> list[Result]:
    """Every check that applies: those of the live process only where one serves the port."""
    deployment = Deployment(paths, config_path)
    checks = catalog.select(())
    if not _is_live(deployment):
        checks = [c for c in checks if not c.live]
    # the build has just proven that it starts
    return catalog.run([c for c in checks if c.id != "release.starts"], deployment)


def _is_live(deployment: Deployment) -> bool:
    try:
        deployment.live  # noqa: B018
    except MissingFact:
        return False
    return True
