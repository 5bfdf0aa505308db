"""Directories that are kept between runs: virtual environments, trees of systems."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

from uv import find_uv_bin

from optictl.demo import model

#: What is kept between sessions: virtual environments, keyed by what is in them.
KEPT = Path(f"/var/tmp/optictl-tests-{os.getuid()}")

#: The LiteLLM of the tests: the newest that can be installed. OPTICTL_TEST_LITELLM names another.
LITELLM = os.environ.get("OPTICTL_TEST_LITELLM", "1.110.2")


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


def litellm_venv(version: str = LITELLM) -> Path:
    """A venv with this LiteLLM and its proxy; kept between sessions."""
    overrides = Path(__file__).with_name("litellm-overrides.txt")
    options = ["--override", str(overrides)] if _needs_overrides(version) else []
    return kept_venv(f"litellm-{version}", *options, f"litellm[proxy]=={version}")


def _needs_overrides(version: str) -> bool:
    """Whether LiteLLM's own pins cannot be installed: from 1.108.8 on they are not published."""
    return tuple(map(int, version.split("."))) >= (1, 108, 8)


def model_directory() -> Path:
    """The real model of `optictl demo --model`, installed as the demonstration does it."""

    def make(directory: Path) -> None:
        model.install(directory / "model", Path("/usr/bin/python3"), lambda _: None)

    return kept(f"model-{model.digest()}", make) / "model"
