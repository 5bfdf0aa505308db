"""optictl installed from its own wheel, as a user has it, in a place that every user can reach."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from uv import find_uv_bin

from tests.support import open_directory

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def program() -> Iterator[Path]:
    """The `optictl` of a wheel built from this checkout, in a venv on the system's Python."""
    uv = find_uv_bin()
    with open_directory() as directory:
        subprocess.run([uv, "build", "-q", "--wheel", "--out-dir", str(directory / "dist"), str(ROOT)], check=True)
        subprocess.run([uv, "venv", "-q", "--python", "/usr/bin/python3", str(directory / "venv")], check=True)
        wheel = next((directory / "dist").glob("*.whl"))
        python = directory / "venv/bin/python"
        subprocess.run([uv, "pip", "install", "-q", "--link-mode=copy", "--python", str(python), str(wheel)], check=True)
        yield directory / "venv/bin/optictl"


@pytest.fixture
def place() -> Iterator[Path]:
    """An empty directory that every user may enter."""
    with open_directory() as directory:
        yield directory


@pytest.fixture(scope="session")
def plain_environment() -> dict[str, str]:
    """The caller's environment without what could choose a deployment or an answer."""
    return {k: v for k, v in os.environ.items() if not k.startswith(("OPTICTL_", "XDG_", "VIRTUAL_ENV"))}
