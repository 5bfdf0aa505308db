"""Standard streams that are closed, full, left by their reader, or in a locale without UTF-8."""

from __future__ import annotations

import subprocess
from functools import partial
from pathlib import Path

import pytest

from tests.integration.cli.helpers import OPTICTL, Outcome, configured, environment, together


def shell(line: str, home: Path, **variables: str) -> Outcome:
    """Run a line of a shell; `optictl` in it is the installed one."""
    done = subprocess.run(
        ["bash", "-c", line],
        env=environment(home, {"PATH": f"{OPTICTL.parent}:/usr/bin:/bin", **variables}),
        cwd=home,
        capture_output=True,
        check=False,
        timeout=60,
    )
    return Outcome(done.returncode, done.stdout.decode(), done.stderr.decode())


COMMANDS = ("check --only config --root root", "--help", "render unit", "check --list", "--version")


@pytest.fixture(autouse=True)
def _root(tmp_path: Path) -> None:
    configured(tmp_path / "root")


@pytest.mark.parametrize("where", [">&-", "> /dev/full"])
def test_an_output_that_cannot_be_written_is_said_once(where: str, tmp_path: Path) -> None:
    lines = [f"optictl {command} {where}" for command in COMMANDS]
    for line, outcome in together({n: partial(shell, n, tmp_path) for n in lines}).items():
        assert outcome.code == 1, line
        error, fix = outcome.err.splitlines()
        assert error.startswith("error  the standard output cannot be written: "), line
        assert fix.startswith("fix    "), line


@pytest.mark.parametrize("where", ["2>&-", "2> /dev/full"])
def test_an_error_stream_that_cannot_be_written_changes_nothing(where: str, tmp_path: Path) -> None:
    lines = [f"optictl {command} {where}" for command in COMMANDS]
    for line, outcome in together({n: partial(shell, n, tmp_path) for n in lines}).items():
        assert outcome.code == 0, line
        assert outcome.out, line


def test_a_reader_that_leaves_gets_its_line_and_no_traceback(tmp_path: Path) -> None:
    lines = [f"optictl {command} | head -1" for command in COMMANDS]
    for line, outcome in together({n: partial(shell, n, tmp_path) for n in lines}).items():
        assert (outcome.code, outcome.err) == (0, ""), line
        assert len(outcome.out.splitlines()) == 1, line


def test_everything_is_utf_8_in_any_locale(tmp_path: Path) -> None:
    root = configured(tmp_path / "wurzel-ü", "model: jerry-xl  # größer als ß\n")
    locales = [
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
        {"LANG": "C", "PYTHONUTF8": "0"},
        {"LC_ALL": "C", "PYTHONIOENCODING": "ascii"},
    ]
    line = f"optictl check --only config.valid --root {root}; optictl smoke mü→x --root {root}"
    runs = {str(n): partial(shell, line, tmp_path, **v) for n, v in enumerate(locales)}
    for outcome in together(runs).values():
        assert f"{root}/etc/optillm-proxy/optictl.yaml is valid" in outcome.out
        assert outcome.err.startswith("error  mü→x is not an enabled strategy on a base model")
