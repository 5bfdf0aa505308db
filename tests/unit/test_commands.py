"""Commands parse, call and hand on: their functions are short, and are added in one way."""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import typer

from optictl.cli import app
from optictl.cli import options as shared


def commands(group: typer.Typer, above: str = "") -> Iterator[tuple[str, Callable[..., Any]]]:
    """Each command's words, and the function that `options.command` made a command of."""
    for one in group.registered_commands:
        assert one.callback is not None
        function = inspect.getclosurevars(one.callback).nonlocals["function"]
        yield f"{above}{one.name}", function
    for inner in group.registered_groups:
        assert inner.typer_instance is not None
        yield from commands(inner.typer_instance, f"{above}{inner.name} ")


def lines_of_body(function: Callable[..., Any]) -> int:
    """From the first statement behind the docstring to the last."""
    (made,) = ast.parse(textwrap.dedent(inspect.getsource(function))).body
    assert isinstance(made, ast.FunctionDef)
    statements = made.body[1:] if ast.get_docstring(made) else made.body
    return (statements[-1].end_lineno or 0) - statements[0].lineno + 1


def test_every_command_has_a_body_under_20_lines() -> None:
    lines = {words: lines_of_body(function) for words, function in commands(app)}
    assert len(lines) > 30
    assert {words: count for words, count in lines.items() if count >= 20} == {}


def test_a_long_body_is_counted() -> None:
    """The test above is worth something."""

    def of_three() -> None:
        """Not counted."""
        one = 1

        print(one)

    assert lines_of_body(of_three) == 3


def test_a_paragraph_of_a_help_text_is_one_line() -> None:
    """The terminal's width breaks it, not the width of the source."""
    helps = {words: function.__doc__ or "" for words, function in commands(app)}
    assert any("\n    Costs tokens." in text for text in helps.values())
    for one in app.registered_commands:
        assert one.callback is not None
        text = one.callback.__doc__ or ""
        assert "\n" not in text.replace("\n\n", ""), one.name
        assert text.split() == (helps[one.name or ""]).split()


@pytest.mark.parametrize("words", ["smoke", "install", "upgrade", "compare"])
def test_a_command_about_a_deployment_has_its_options(words: str) -> None:
    command = typer.main.get_command(app).commands[words]  # type: ignore[attr-defined]
    names = {parameter.name for parameter in command.params}
    assert names >= {parameter.name for parameter in shared.DEPLOYMENT_AND_OUTPUT}
