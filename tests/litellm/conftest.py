"""Fixtures: a real LiteLLM proxy, installed once into a venv of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from uv import find_uv_bin

VERSION = "1.106.2"


@pytest.fixture(scope="session")
def litellm_program() -> Path:
    """The `litellm` program of a venv that is kept between sessions, keyed by LiteLLM's version.

    Its bytecode is compiled because the tests run it as a user who may not write there.
    """
    directory = Path(f"/var/tmp/optictl-tests-{os.getuid()}") / f"litellm-{VERSION}"
    program = directory / ".venv/bin/litellm"
    done = directory / "complete"
    if not done.exists():
        shutil.rmtree(directory, ignore_errors=True)
        directory.parent.mkdir(mode=0o755, exist_ok=True)
        uv = find_uv_bin()
        python = str(directory / ".venv/bin/python")
        subprocess.run([uv, "venv", "-q", "--python", "/usr/bin/python3", str(directory / ".venv")], check=True)
        subprocess.run(
            [uv, "pip", "install", "-q", "--python", python, "--link-mode=copy", "--compile-bytecode",
             f"litellm[proxy]=={VERSION}"],
            check=True,
            cwd=directory,  # in the project, uv would read there that litellm is to be left out
        )  # fmt: skip
        assert program.exists()
        done.touch()
    return program
