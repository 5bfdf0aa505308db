"""What every test of the command line has around it."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def _enterable(tmp_path: Path) -> None:
    """Other users may enter the test's directory: as root, the service there has another user."""
    for directory in (tmp_path, *tmp_path.parents):
        if directory.name.startswith(("pytest", "test", "popen")):
            directory.chmod(directory.stat().st_mode | 0o011)
