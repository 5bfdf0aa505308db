"""How the command line ends: the exit code, whatever a command raises."""

from __future__ import annotations

from typing import Any

import pytest
import typer

from optictl.cli import ending
from optictl.errors import InternalError
from optictl.output.console import Terminal


@pytest.mark.parametrize(
    ("raised", "code"),
    [(KeyboardInterrupt(), 130), (typer.Abort(), 130), (BrokenPipeError(), 1), (SystemExit(3), 3)],
)
def test_what_ends_a_command_is_its_exit_code(raised: BaseException, code: int) -> None:
    def app(**_: Any) -> int:
        raise raised

    assert ending.run(app, []) == code


@pytest.mark.parametrize(("returned", "code"), [(0, 0), (4, 4), (None, 0)])
def test_a_commands_own_code_is_kept(returned: int | None, code: int) -> None:
    assert ending.run(lambda **_: returned, []) == code


def test_a_fault_of_optictl_is_raised_with_debug_only() -> None:
    fault = ZeroDivisionError("x")
    assert ending.failed(Terminal(), fault, debug=False) == InternalError("x").exit_code
    with pytest.raises(ZeroDivisionError):
        ending.failed(Terminal(), fault, debug=True)


@pytest.mark.parametrize(
    ("said", "plain"),
    [
        (
            "Invalid value for '--watch': Input should be greater than or equal to 1",
            "Invalid value for '--watch': must be at least 1",
        ),
        (
            "Invalid value for '-n': Input should be a valid integer, unable to parse string as an"
            " integer",
            "Invalid value for '-n': must be a whole number",
        ),
        (
            "Invalid value for '-o': Value error, 'xml' is not one of 'text', 'json'.",
            "Invalid value for '-o': 'xml' is not one of 'text', 'json'.",
        ),
    ],
)
def test_a_wrong_value_is_told_in_plain_words(said: str, plain: str) -> None:
    assert ending.in_plain_words(said) == plain
