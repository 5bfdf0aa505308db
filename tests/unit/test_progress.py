"""Progress in each form: what moves, what a pipe gets, what a program gets, and silence."""

from __future__ import annotations

import io
import json
import re
import time
from typing import get_args

import pytest
from rich.console import Console

from optictl.cli import options
from optictl.errors import UnknownModel
from optictl.output.console import Screen, Terminal
from optictl.output.progress import Form
from optictl.results import detail_of

ESCAPE = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]")


def terminal(screen: Screen, columns: int = 0) -> tuple[Terminal, io.StringIO]:
    """A terminal of that width; 0 is a pipe."""
    shown, made = io.StringIO(), Terminal("install", screen=screen)
    made._out = made._err = Console(
        file=shown, width=columns or 1000, force_terminal=columns > 0, highlight=False
    )
    return made, shown


def test_the_option_has_every_form() -> None:
    assert {form.value for form in options.Progress} == set(get_args(Form))


def test_json_is_one_object_a_line() -> None:
    made, shown = terminal(Screen("json"))
    with made.progress("installing") as say:
        say("building")
    made.note("wrote /etc/x")
    first, second = map(json.loads, shown.getvalue().splitlines())
    assert first.pop("time").endswith("Z")
    assert first == {"command": "install", "event": "step", "text": "building"}
    assert (second["event"], second["text"]) == ("note", "wrote /etc/x")


def test_json_errors_are_json_too() -> None:
    made, shown = terminal(Screen("json"))
    made.fail(UnknownModel("moa-x is not there", "one of these: moa-y"))
    (line,) = map(json.loads, shown.getvalue().splitlines())
    assert (line["event"], line["code"]) == ("error", "unknown-model")
    assert (line["text"], line["remedy"]) == ("moa-x is not there", "one of these: moa-y")


def test_off_shows_no_step_and_keeps_notes() -> None:
    made, shown = terminal(Screen("off"), columns=80)
    with made.progress("installing") as say:
        say("building")
    with made.steps("comparing", 2) as step:
        step("one")
    made.note("wrote /etc/x")
    assert ESCAPE.sub("", shown.getvalue()) == "wrote /etc/x\n"


def test_quiet_shows_neither() -> None:
    made, shown = terminal(Screen(verbosity=-1), columns=80)
    with made.progress("installing") as say:
        say("building")
    made.note("wrote /etc/x")
    made.headline("part 1")
    assert shown.getvalue() == ""


def test_plain_lines_on_a_terminal() -> None:
    made, shown = terminal(Screen("plain"), columns=80)
    with made.progress("installing") as say:
        say("building")
    assert ESCAPE.sub("", shown.getvalue()) == "building\n"


@pytest.mark.parametrize("form", ["auto", "json"])
def test_a_silent_pipe_is_told_that_work_goes_on(form: Form) -> None:
    made, shown = terminal(Screen(form, silence=0.05))
    with made.progress("installing") as say:
        detail_of(say)("12 of 54 packages, 84 MB")
        until = time.monotonic() + 10
        while not shown.getvalue() and time.monotonic() < until:
            time.sleep(0.01)
    line = shown.getvalue().splitlines()[0]
    text = json.loads(line)["text"] if form == "json" else line
    assert text.startswith("still installing: 12 of 54 packages, 84 MB")


@pytest.mark.parametrize("columns", [60, 80, 120])
def test_a_detail_moves_on_one_line_and_leaves_nothing(columns: int) -> None:
    made, shown = terminal(Screen(), columns)
    with made.progress("installing") as say:
        detail_of(say)("12 of 54 packages, 84 MB")
        until = time.monotonic() + 10
        while "84 MB" not in shown.getvalue() and time.monotonic() < until:
            time.sleep(0.01)
        say("built")
    lines = [line.rstrip() for line in re.split(r"[\r\n]+", ESCAPE.sub("", shown.getvalue()))]
    assert any(line.endswith(" installing ... 12 of 54 packages, 84 MB") for line in lines)
    assert max(map(len, lines)) <= columns
    assert "built" in lines


def test_a_progress_without_a_place_for_details_takes_none() -> None:
    said: list[str] = []
    detail_of(said.append)("12 of 54 packages")
    assert said == []


def test_waiting_ends_before_anything_else_is_shown() -> None:
    made, shown = terminal(Screen(), 80)
    made.wait()
    assert "working ..." in shown.getvalue()
    made.message("a result")
    assert ESCAPE.sub("", shown.getvalue()).splitlines()[-1].endswith("a result")
    assert made._waits is None


def test_verbose_shows_the_programs_that_are_run() -> None:
    for verbosity, wanted in ((1, "ran true: exit 0\n"), (0, "")):
        made, shown = terminal(Screen(verbosity=verbosity))
        made.detail("ran true: exit 0")
        assert shown.getvalue() == wanted
