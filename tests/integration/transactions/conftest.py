"""Small releases, and a place for a deployment of them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from optictl.host import files, uv
from optictl.host.uv import Interpreter
from optictl.operations import canary, preflight
from optictl.releases import build, interpreters, locks
from optictl.releases.release_record import Proof


@pytest.fixture(scope="module")
def empty_venv(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment with nothing in it, to be copied: a thousand are made."""
    directory = tmp_path_factory.mktemp("venv") / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(directory)], check=True)
    return directory


@pytest.fixture
def small_releases(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, empty_venv: Path) -> None:
    """A release that is built in a moment: a real interpreter, a package, a guard of two files."""
    guard = tmp_path / "guard"
    guard.mkdir()
    for name in ("__init__.py", "__main__.py"):
        shutil.copyfile(locks.GUARD / name, guard / name)
    monkeypatch.setattr(locks, "GUARD", guard)

    def make_venv(directory: Path, python: Path) -> None:
        subprocess.run(["cp", "-a", str(empty_venv), str(directory)], check=True)

    def install(directory: Path, lock: Path, *_: object) -> None:
        packages = next((directory / "lib").glob("python3.*")) / "site-packages"
        info = packages / "optillm-1.dist-info"
        files.make_directory(info)
        (packages / "optillm.py").write_text(lock.name)
        (info / "RECORD").write_text("optillm-1.dist-info/RECORD,,\n")

    monkeypatch.setattr(uv, "make_venv", make_venv)
    monkeypatch.setattr(uv, "install", install)
    monkeypatch.setattr(uv, "compile_tree", lambda *_: None)
    monkeypatch.setattr(build, "conform", lambda *_: Proof("moa", 3, 1))
    here = Interpreter(Path(sys.executable), sys.version_info[:3], None)
    monkeypatch.setattr(interpreters, "interpreter", lambda *_: here)
    monkeypatch.setattr(canary, "ask_release", lambda *_: [])
    # pytest's directories are closed to the service's user, and no service is started
    monkeypatch.setattr(preflight, "read_facts", lambda *_, **__: None)
    monkeypatch.setattr(preflight, "judge", lambda *_, **__: [])


@pytest.fixture
def place() -> Iterator[Path]:
    """In memory where that can be had: everything is written with fsync."""
    memory = Path("/dev/shm")
    path = Path(
        tempfile.mkdtemp(prefix="optictl-test-", dir=memory if os.access(memory, os.W_OK) else None)
    )
    yield path
    shutil.rmtree(path, ignore_errors=True)
