"""How a plan is shown, counted, and told by an exit code."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from optictl.deployment import paths
from optictl.deployment.artefacts import Artefact
from optictl.deployment.config import Config
from optictl.operations.installation import Installation
from optictl.operations.steps import CreateFile, Remove, ReplaceFile, Step
from optictl.output.console import Terminal
from optictl.output.plans import Plan, Removal
from optictl.results import Result

NEW = CreateFile(
    Artefact(Path("/etc/new"), "a\nb\n", 0o644),
    reason="it is missing",
    diff="--- /dev/null\n+++ /etc/new\n@@ -0,0 +1,2 @@\n+a\n+b\n",
)
CHANGED = ReplaceFile(
    Artefact(Path("/etc/old"), "a\n", 0o644),
    reason="it differs",
    diff="--- /etc/old\n+++ /etc/old\n@@ -1 +1 @@\n-b\n+a\n",
)
GONE = Remove(Path("/etc/gone"), reason="nothing uses it")
BLOCKER = Result("preflight.port", "title", "fail", found="port 4020 is in use", remedy="kill 5")
NOTE = Result("preflight.key", "title", "warn", found="no key")


def shown(*steps: Step, problems: tuple[Result, ...] = (), is_full: bool = False) -> list[str]:
    out, terminal = io.StringIO(), Terminal()
    plan = Plan(planned(*steps, problems=problems), is_full=is_full)
    terminal._out = terminal._err = Console(file=out, width=1000)
    terminal.finish(plan)
    return out.getvalue().splitlines()


def planned(*steps: Step, problems: tuple[Result, ...] = ()) -> Installation:
    given = Installation(Config(), paths.system(), None, list(steps))  # type: ignore[arg-type]
    return replace(given, problems=list(problems))


def test_a_new_file_is_one_line_and_a_changed_one_its_diff() -> None:
    assert shown(NEW, CHANGED, GONE) == [
        "create  /etc/new (it is missing; 2 lines)",
        "replace /etc/old (it differs)",
        *CHANGED.diff.splitlines(),
        "remove  /etc/gone (nothing uses it)",
        "",
        "Plan: 1 to add, 1 to change, 1 to remove.",
    ]


def test_full_shows_new_files_too() -> None:
    assert shown(NEW, is_full=True)[:2] == ["create  /etc/new (it is missing)", "--- /dev/null"]


def test_what_blocks_it_comes_first_and_is_counted_last() -> None:
    lines = shown(NEW, problems=(BLOCKER, NOTE))
    assert lines[0] == "blocked port 4020 is in use"
    assert lines[-1] == "Plan: 1 to add; blocked by 1 problem."


@pytest.mark.parametrize(
    ("steps", "problems", "code", "detailed"),
    [
        ((), (), 0, 0),
        ((NEW,), (), 0, 2),
        ((NEW,), (NOTE,), 0, 2),
        ((NEW,), (BLOCKER,), 1, 1),
    ],
)
def test_the_exit_code_tells_whether_there_is_something_to_do(
    steps: tuple[Step, ...], problems: tuple[Result, ...], code: int, detailed: int
) -> None:
    installation = planned(*steps, problems=problems)
    assert Plan(installation).exit_code == code
    assert Plan(installation, is_detailed=True).exit_code == detailed


def test_so_does_that_of_a_removal() -> None:
    assert Removal([GONE]).exit_code == Removal([], is_detailed=True).exit_code == 0
    assert Removal([GONE], is_detailed=True).exit_code == 2
