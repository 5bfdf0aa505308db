"""Parts of OptiLLM that no tested version has are named in the log, and do not stop the service."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from scripts import verified
from testing.support import open_directory

from .helpers import Pair, events, guarded_pair, text_of

pytestmark = pytest.mark.slow

#: All files and functions that count, and those that are unknown when one text changes.
_SCRIPT = """
import json, sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from guard import fingerprints, verified
packages = next(Path(sys.argv[1], ".venv/lib").glob("python3.*")) / "site-packages"
strategies = sys.argv[2].split(",")
parts = fingerprints.fingerprints(packages, strategies)
without = {}
for part in parts:
    known = verified.VERIFIED.pop(part)
    without[part] = fingerprints.unknown(packages, strategies)
    verified.VERIFIED[part] = known
known = fingerprints.unknown(packages, strategies)
print(json.dumps([parts, without, known]))
"""


def test_every_part_counts(release: Path) -> None:
    python = str(release / ".venv/bin/python")
    done = subprocess.run(
        [python, "-I", "-c", _SCRIPT, str(release), "moa,bon,re2,leap,deepthink,none"],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    parts, without, known = json.loads(done.stdout)
    assert set(parts) == {
        "optillm/bon.py",
        "optillm/leap.py",
        "optillm/moa.py",
        "optillm/reread.py",
        "optillm/plugins/deepthink/__init__.py",
        "optillm/plugins/deepthink/reasoning_modules.py",
        "optillm/plugins/deepthink/self_discover.py",
        "optillm/plugins/deepthink/uncertainty_cot.py",
        "optillm/plugins/deepthink_plugin.py",
        "optillm/server.py:execute_single_approach",
        "optillm/server.py:load_plugins",
        "optillm/server.py:none_approach",
        "optillm/server.py:parse_args",
    }
    assert without == {part: [part] for part in parts}
    assert known == []


def test_the_known_texts_are_those_of_the_tested_versions() -> None:
    assert verified.FILE.read_text(encoding="utf-8") == verified.written()


@pytest.fixture
def changed(release: Path) -> Iterator[Pair]:
    """The same OptiLLM, and a guard that knows another text of one enabled strategy."""
    with open_directory() as directory:
        (directory / "work").mkdir(mode=0o755)
        (directory / ".venv").symlink_to(release / ".venv")
        shutil.copytree(release / "guard", directory / "guard")
        known = directory / "guard" / "verified.py"
        text = known.read_text()
        assert '"optillm/moa.py": ("' in text
        known.write_text(text.replace('"optillm/moa.py": ("', '"optillm/moa.py": ("0'))
        with guarded_pair(directory) as pair:
            yield pair


def test_an_unknown_part_is_named_in_the_log(changed: Pair) -> None:
    unverified = [event for event in events(changed.server) if event["event"] == "unverified"]
    assert [event["parts"] for event in unverified] == [["optillm/moa.py"]]
    assert text_of(changed.server.ask("moa-jerry-xl"))
