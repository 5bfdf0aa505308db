"""OptiLLM's argument parser under Python 3.14, whose argparse refuses `Optional[str]`."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

#: `str | None` is on every Python what `Optional[str]` is on 3.14.
_SCRIPT = """
import sys
sys.path.insert(0, sys.argv.pop(1))
correct = sys.argv.pop(1) == "patched"
import optillm.server as server
from guard import patches
field = server.CepoConfig.__dataclass_fields__["rating_model"]
assert str(field.type) in ("typing.Optional[str]", "str | None"), field.type
field.type = str | None
if correct:
    patches.apply(server)
sys.argv += ["--cepo_rating_model", "judge", "--cepo_planning_n", "7"]
arguments = server.parse_args()
print(arguments.cepo_rating_model, arguments.cepo_planning_n + 1)
"""


def _parsed(release: Path, how: str) -> subprocess.CompletedProcess[str]:
    command = [release / ".venv/bin/python", "-c", _SCRIPT, release, how]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd="/")


def test_bare_refuses_its_own_argument(release: Path) -> None:
    """If OptiLLM passes a callable, the patch is not needed any more."""
    bare = _parsed(release, "bare")
    assert bare.returncode == 1
    assert "str | None is not callable" in bare.stderr


def test_patched_reads_it_and_leaves_the_other_types(release: Path) -> None:
    patched = _parsed(release, "patched")
    assert patched.stderr == ""
    assert patched.stdout == "judge 8\n"
