"""Directories that are kept between runs: virtual environments, trees of systems."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

from uv import find_uv_bin

#: What is kept between sessions: virtual environments, keyed by what is in them.
KEPT = Path(f"/var/tmp/optictl-tests-{os.getuid()}")

LITELLM = "1.106.2"


def kept(name: str, make: Callable[[Path], None]) -> Path:
    """A directory that `make` filled, in this session or in an earlier one."""
    directory = KEPT / name
    done = directory / "complete"
    KEPT.mkdir(mode=0o755, exist_ok=True)
    with (KEPT / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # another process of this run may be building it
        if not done.exists():
            shutil.rmtree(directory, ignore_errors=True)
            directory.mkdir(mode=0o755)
            make(directory)
            done.touch()
    return directory


def kept_venv(name: str, *what: str) -> Path:
    """A venv on the system's Python with `what` and its bytecode in it; kept between sessions."""
    uv = find_uv_bin()

    def make(directory: Path) -> None:
        subprocess.run(
            [uv, "venv", "-q", "--python", "/usr/bin/python3", str(directory / ".venv")], check=True
        )
        subprocess.run(
            [
                uv,
                "pip",
                "install",
                "-q",
                "--python",
                str(directory / ".venv/bin/python"),
                "--link-mode=copy",
                "--compile-bytecode",
                *what,
            ],
            check=True,
            cwd=directory,  # in the project, uv would read there what is to be left out
        )

    return kept(name, make) / ".venv"
