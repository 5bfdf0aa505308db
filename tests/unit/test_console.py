"""The way to the screen: no spinner beside a result, no word split, one envelope a run."""

from __future__ import annotations

import io
import json
import re

import pytest
from rich.console import Console

from optictl.errors import NoSpace, OptictlError
from optictl.output.check_results import Results
from optictl.output.console import Report, Terminal, wrapped
from optictl.results import Result

ESCAPE = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]")
SPINNER = re.compile("[⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏]")
PATH = "/opt/optillm-proxy/releases/0.3.12-0123456789ab/lib/python3.12/site-packages/optillm"


def screen(columns: int) -> tuple[Terminal, io.StringIO]:
    """Both streams of a run on one terminal."""
    shown, terminal = io.StringIO(), Terminal()
    terminal._out, terminal._err = (
        Console(file=shown, width=columns, force_terminal=True, highlight=False) for _ in "12"
    )
    return terminal, shown


def lines(shown: io.StringIO) -> list[str]:
    return re.split(r"[\r\n]+", ESCAPE.sub("", shown.getvalue()))


@pytest.mark.parametrize("columns", [60, 80, 120])
def test_no_line_holds_a_spinner_and_a_result(columns: int) -> None:
    terminal, shown = screen(columns)
    with terminal.progress("installing") as say:
        say("building")
        terminal.message("the head of a table")
        say("checking")
        terminal.example("curl -si http://127.0.0.1:4020/v1/models")
        terminal.note("created /etc/x")
        terminal.finish(Results([Result("a", "title", "pass", found="fine")]))
    drawn = [line for line in lines(shown) if SPINNER.search(line)]
    assert drawn
    assert [
        line for line in drawn if not re.fullmatch(r". \w+ \.\.\.( \d+ s)?", line.strip())
    ] == []
    assert "curl -si http://127.0.0.1:4020/v1/models" in lines(shown)


def test_a_spinner_repeats_no_line_above_it() -> None:
    terminal, shown = screen(80)
    with terminal.progress("installing") as say:
        say("building the release in /opt/optillm-proxy")
    assert sum("building the release" in line for line in lines(shown)) == 1


@pytest.mark.parametrize("columns", [60, 80, 120])
def test_a_step_beside_a_bar_is_not_cut(columns: int) -> None:
    terminal, shown = screen(columns)
    with terminal.steps("comparing", 600) as say:
        say("self_consistency-jerry-xl: right")
    assert any("self_consistency-jerry-xl: right" in line for line in lines(shown))


def test_a_pipe_gets_a_line_for_each_step() -> None:
    shown, terminal = io.StringIO(), Terminal()
    terminal._err = Console(file=shown, width=1000)
    with terminal.steps("comparing", 3) as say:
        say("jerry-xl: right")
        assert shown.getvalue() == "1 of 3: jerry-xl: right\n"
        say("moa-jerry-xl: \x1b[2Jtimed out")
    assert shown.getvalue().splitlines()[1:] == ["2 of 3: moa-jerry-xl: [2Jtimed out"]


def test_only_one_live_display_runs() -> None:
    terminal, shown = screen(80)
    with terminal.progress("outer"), terminal.progress("inner") as say:
        say("within")
    assert "inner ..." not in shown.getvalue()
    assert "within" in shown.getvalue()


@pytest.mark.parametrize("columns", [60, 80, 120])
def test_no_path_and_no_command_is_split(columns: int) -> None:
    terminal, shown = screen(columns)
    command = f"optictl install --root {PATH} --name optillm-proxy-two --user"
    failed = Result(
        "release.in-force",
        "A title",
        "fail",
        expected=f"{PATH} is there, and so are all the others that it needs",
        found=f"{PATH} does not exist",
        cause=f"{PATH} was removed",
        remedy=command,
    )
    terminal.finish(Results([failed]))
    terminal.error(OptictlError(f"cannot read {PATH} now", command, f"a tool said {PATH}"))
    text = ESCAPE.sub("", shown.getvalue())
    assert text.count(PATH) == 7
    assert text.count(command) == 2


def test_a_pipe_gets_a_line_for_each_text() -> None:
    shown = io.StringIO()
    wrapped(Console(file=shown, width=1000), "head ", "word " * 300 + "end")
    assert shown.getvalue().count("\n") == 1


def test_a_failure_after_the_results_adds_no_second_envelope(
    capsys: pytest.CaptureFixture[str],
) -> None:
    terminal = Terminal("smoke", "json")
    terminal.finish(Report())
    assert terminal.fail(NoSpace("full", "df -h")) == 1
    out = capsys.readouterr().out
    assert json.loads(out)["command"] == "smoke"
