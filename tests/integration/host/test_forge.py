"""The files of the forge: workflows, issue forms and updates, by their published schemas."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from testing.support import ROOT

FORGE = ROOT / ".github"
WORKFLOWS = sorted((FORGE / "workflows").glob("*.yml"))
#: Schema -> the files that it judges.
FILES = {
    "vendor.github-workflows": WORKFLOWS,
    "vendor.dependabot": [FORGE / "dependabot.yml"],
    "vendor.github-issue-config": [FORGE / "ISSUE_TEMPLATE/config.yml"],
    "vendor.github-issue-forms": [
        p for p in sorted((FORGE / "ISSUE_TEMPLATE").glob("*.yml")) if p.name != "config.yml"
    ],
}


def judged(schema: str, *files: Path) -> subprocess.CompletedProcess[str]:
    """What check-jsonschema says; it brings the schemas and needs no network."""
    program = Path(sys.executable).with_name("check-jsonschema")
    command = [program, "--builtin-schema", schema, *files]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("schema", FILES)
def test_each_file_fits_its_schema(schema: str) -> None:
    assert FILES[schema]
    done = judged(schema, *FILES[schema])
    assert done.returncode == 0, done.stdout


def test_every_file_of_the_forge_is_judged() -> None:
    judged_files = {path for files in FILES.values() for path in files}
    assert set(FORGE.rglob("*.yml")) == judged_files


def test_a_wrong_key_is_seen(tmp_path: Path) -> None:
    wrong = tmp_path / "ci.yml"
    wrong.write_text(WORKFLOWS[0].read_text().replace("runs-on:", "run-on:"))
    assert judged("vendor.github-workflows", wrong).returncode == 1


def steps(path: Path) -> list[dict[str, Any]]:
    jobs = yaml.safe_load(path.read_text())["jobs"].values()
    return [step for job in jobs for step in job["steps"]]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_actions_are_pinned_and_may_read_only(path: Path) -> None:
    lines = re.findall(r"uses: (.+)$", path.read_text(), re.M)
    assert [line for line in lines if not re.fullmatch(r"\S+@[0-9a-f]{40} # v[\d.]+", line)] == []
    workflow = yaml.safe_load(path.read_text())
    assert workflow["permissions"] == {"contents": "read"}
    assert all("timeout-minutes" in job for job in workflow["jobs"].values())


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_no_step_puts_text_of_others_into_a_command(path: Path) -> None:
    """A title or a branch in `${{ }}` would be run by the shell."""
    assert [step["run"] for step in steps(path) if "${{" in step.get("run", "")] == []


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_what_the_steps_run_exists(path: Path) -> None:
    text = "\n".join(step.get("run", "") for step in steps(path))
    named = [
        *re.findall(r"(?:scripts|\.ci|tests)/[\w./]+", text),
        *(f"{name.replace('.', '/')}.py" for name in re.findall(r"-m (scripts\.\w+)", text)),
    ]
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_the_pythons_are_the_supported_ones() -> None:
    workflow = yaml.safe_load((FORGE / "workflows/ci.yml").read_text())
    pythons = workflow["jobs"]["quick"]["strategy"]["matrix"]["python"]
    assert pythons == [f"3.{minor}" for minor in range(10, 15)]
