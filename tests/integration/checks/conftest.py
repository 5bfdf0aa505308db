"""One installed deployment for all tests of the checks."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from testing import deployments
from testing.deployments import InstalledDeployment
from testing.support import open_directory


@pytest.fixture(scope="session")
def installed(locked_venv: Path) -> Iterator[InstalledDeployment]:
    with open_directory() as root:
        yield deployments.make(root, locked_venv)


@pytest.fixture
def deployment(installed: InstalledDeployment) -> InstalledDeployment:
    """The installed deployment with the operator's files as they should be."""
    installed.reset()
    return installed
