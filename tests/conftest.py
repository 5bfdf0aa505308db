"""Fixtures: a real release of OptiLLM 0.3.12 built from the shipped lock, and optictl installed from its own wheel."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from uv import find_uv_bin

from tests.support import open_directory

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def release() -> Iterator[Path]:
    """A directory with `.venv/`, `guard/` and an empty `work/`, reachable by every user.

    The venv is kept between sessions, keyed by the lock; the guard is this session's own.
    """
    lock = ROOT / "templates/locks/optillm-0.3.12-proxy.txt"
    mark = hashlib.sha256(lock.read_bytes()).hexdigest()[:12]
    place = Path(f"/var/tmp/optictl-tests-{os.getuid()}")
    place.mkdir(mode=0o755, exist_ok=True)
    directory = place / mark
    done = directory / "complete"
    uv = find_uv_bin()
    if not done.exists():
        shutil.rmtree(directory, ignore_errors=True)
        subprocess.run([uv, "venv", "-q", "--python", "/usr/bin/python3", str(directory / ".venv")], check=True)
        subprocess.run(
            [uv, "pip", "install", "-q", "--python", str(directory / ".venv/bin/python"), "--no-deps", "--require-hashes",
             "--link-mode=copy", "--compile-bytecode", "-r", str(lock)],
            check=True,
        )  # fmt: skip
        done.touch()
    with open_directory() as session:
        (session / ".venv").symlink_to(directory / ".venv")
        (session / "work").mkdir()
        shutil.copytree(ROOT / "optictl/guard", session / "guard", ignore=shutil.ignore_patterns("__pycache__"))
        yield session


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
