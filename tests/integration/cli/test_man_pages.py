"""The man pages render without a warning."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from testing.support import ROOT


@pytest.mark.skipif(shutil.which("groff") is None, reason="groff is not installed")
@pytest.mark.parametrize("page", sorted((ROOT / "man").iterdir()), ids=lambda path: path.name)
def test_groff_renders_it_without_a_warning(page: Path) -> None:
    command = ["groff", "-ww", "-man", "-Tutf8", str(page)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert len(done.stdout.splitlines()) > 100
