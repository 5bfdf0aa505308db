"""No line wider than the terminal, no colour where it is switched off, no traceback for people."""

from __future__ import annotations

import os
import re
import subprocess
from functools import partial
from pathlib import Path

import pytest

from tests.integration.cli.helpers import (
    ESCAPE,
    OPTICTL,
    configured,
    environment,
    fits,
    in_terminal,
    optictl,
    together,
)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return configured(tmp_path / "root")


COMMANDS = [["check"], ["install", "--dry-run"], ["smoke", "nosuch"], ["run"], ["init"]]


class TestWidth:
    @pytest.mark.parametrize("columns", [80, 120])
    def test_check_fits(self, columns: int, root: Path, tmp_path: Path) -> None:
        outcome = in_terminal("check", "--root", root, home=tmp_path, columns=columns)
        assert outcome.code == 1
        assert [line for line in outcome.lines if not fits(line, columns)] == []
        assert any(line.startswith("fail  env.upstream-key") for line in outcome.lines)
        # a reason is told once
        (first,) = [line for line in outcome.lines if line.startswith("skip  routing.no-loop")]
        assert "as routing.no-loop" not in first
        assert any(
            re.fullmatch(r"skip  routing\.prefixed +as routing\.no-loop *", line)
            for line in outcome.lines
        )

    def test_help_fits_a_narrow_terminal(self, tmp_path: Path) -> None:
        outcome = in_terminal("install", "--help", home=tmp_path, columns=60)
        assert outcome.code == 0
        assert max(map(len, outcome.lines)) <= 60

    def test_a_problem_of_the_configuration_fits(self, tmp_path: Path) -> None:
        root = configured(tmp_path / "root", "listen: {port: 0}\nstrategies: [moe]\nmodle: x\n")
        outcome = in_terminal("render-unit", "--root", root, home=tmp_path, columns=80)
        assert outcome.code == 78
        assert [line for line in outcome.lines if not fits(line, 80)] == []

    def test_a_pipe_gets_lines_as_long_as_they_are(self, root: Path, tmp_path: Path) -> None:
        """grep and awk see a check's result on one line, without padding."""
        for line in optictl("check", "--root", root, home=tmp_path).out.splitlines():
            assert line == line.rstrip()
            assert not line.startswith("            ")


class TestColour:
    def test_a_pipe_gets_none(self, root: Path, tmp_path: Path) -> None:
        lines = [
            [*words, "--root", str(root)] for words in (*COMMANDS, ["check", "--only", "nosuch"])
        ]
        variables = {"TERM": "xterm-256color"}
        runs = [
            partial(optictl, *words, home=tmp_path, variables=variables)
            for words in (*lines, ["--help"], ["nosuch"])
        ]
        for outcome in together({str(i): run for i, run in enumerate(runs)}).values():
            assert outcome.out + outcome.err
            assert "\x1b" not in outcome.out + outcome.err

    def test_no_color_is_obeyed_in_a_terminal(self, root: Path, tmp_path: Path) -> None:
        for words in COMMANDS:
            outcome = in_terminal(
                *words, "--root", root, home=tmp_path, columns=100, variables={"NO_COLOR": "1"}
            )
            signs = [match.group(0) for match in ESCAPE.finditer(outcome.out)]
            codes = {
                int(code)
                for sign in signs
                if sign.endswith("m")
                for code in re.findall(r"\d+", sign)
            }
            assert not [code for code in codes if 30 <= code <= 48 or 90 <= code <= 107], words

    def test_a_terminal_gets_some(self, root: Path, tmp_path: Path) -> None:
        """The test above is worth something."""
        assert "\x1b[" in in_terminal("check", "--root", root, home=tmp_path, columns=100).out


@pytest.fixture
def defect(tmp_path: Path) -> dict[str, str]:
    """Variables under which `render-unit` has a defect."""
    (tmp_path / "sitecustomize.py").write_text(
        "from optictl.deployment import render\n"
        "def broken(*_): raise RuntimeError('injected [bold]defect')\nrender.unit = broken\n"
    )
    return {"PYTHONPATH": str(tmp_path)}


class TestDefects:
    def test_a_person_sees_no_traceback(self, defect: dict[str, str], tmp_path: Path) -> None:
        outcome = optictl("render-unit", "--root", tmp_path, home=tmp_path, variables=defect)
        assert (outcome.code, outcome.out) == (1, "")
        assert "internal error (please report it): injected [bold]defect" in outcome.err
        assert "Traceback" not in outcome.err
        assert "optictl --debug" in outcome.err

    @pytest.mark.parametrize("how", ["flag", "variable"])
    def test_with_debug_they_do(self, how: str, defect: dict[str, str], tmp_path: Path) -> None:
        flag = ["--debug"] if how == "flag" else []
        variables = defect if how == "flag" else {**defect, "OPTICTL_DEBUG": "1"}
        outcome = optictl(
            *flag, "render-unit", "--root", tmp_path, home=tmp_path, variables=variables
        )
        assert outcome.code == 1
        assert "Traceback (most recent call last)" in outcome.err
        assert outcome.err.rstrip().endswith("RuntimeError: injected [bold]defect")


class TestReadersThatLeave:
    @pytest.mark.parametrize(
        "arguments", [["config", "schema"], ["render-env"], ["check", "--list"]], ids=" ".join
    )
    def test_a_closed_pipe_is_no_traceback(self, arguments: list[str], tmp_path: Path) -> None:
        """`optictl ... | head -1`, when head has gone before a line was written."""
        reader, writer = os.pipe()
        os.close(reader)
        done = subprocess.run(
            [OPTICTL, *arguments],
            stdout=writer,
            stderr=subprocess.PIPE,
            text=True,
            env=environment(tmp_path),
            cwd=tmp_path,
        )
        os.close(writer)
        assert done.stderr == ""
        assert done.returncode in (0, 1, 141)
