"""One booted machine, and on it one deployment, for the tests under a real systemd."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from testing.host import Host, installed
from testing.machine import Machine, booted, install_packages


@pytest.fixture(scope="session")
def machine(program: Path, locked_venv: Path) -> Iterator[Machine]:
    install_packages("sudo", "sudo")
    # both exist before the overlay is mounted: later changes below one may not be visible in it
    with booted() as machine:
        yield machine


@pytest.fixture(scope="session")
def host(machine: Machine, program: Path) -> Iterator[Host]:
    """An installed, running deployment. Tests that break it put it back."""
    with installed(machine, program) as host:
        yield host
