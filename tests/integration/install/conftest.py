"""Places and environments for the tests of installation."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from testing.support import open_directory


@pytest.fixture
def place() -> Iterator[Path]:
    """An empty directory that every user may enter."""
    with open_directory() as directory:
        yield directory


@pytest.fixture(scope="session")
def plain_environment() -> dict[str, str]:
    """The caller's environment without what could choose a deployment or an answer."""
    return {
        k: v for k, v in os.environ.items() if not k.startswith(("OPTICTL_", "XDG_", "VIRTUAL_ENV"))
    }
