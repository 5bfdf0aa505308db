"""Help pages.

Typer's tables cut names where a terminal is narrow; there a list takes their place.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from typer.core import TyperCommand, TyperGroup

if TYPE_CHECKING:
    from rich.text import Text

#: The columns that Typer's tables need for the longest option.
TABLE_WIDTH = 80


class _Fitting:
    """Typer's help page, or a list where the terminal is too narrow for it."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        if not _print_list(self, ctx):  # type: ignore[arg-type]
            super().format_help(ctx, formatter)  # type: ignore[misc]


class Command(_Fitting, TyperCommand):
    """A command whose help page fits any terminal."""


class Group(_Fitting, TyperGroup):
    """A group of commands whose help page fits any terminal."""


def _print_list(command: Command | Group, context: Any) -> bool:
    """Print the help page as a list, if the terminal is too narrow for tables."""
    from optictl.output.console import Terminal
    from optictl.output.tables import broken

    console = Terminal().out
    if console.width >= TABLE_WIDTH:
        return False
    for indent, text in _paragraphs(command, context):
        for line in broken(text, console.width - indent) or [text]:
            console.print(" " * indent, line, sep="", soft_wrap=True)
    return True


def _paragraphs(command: Command | Group, context: Any) -> Iterator[tuple[int, Text]]:
    """What a help page says, each text with its indentation."""
    from rich.text import Text

    usage = " ".join([context.command_path, *command.collect_usage_pieces(context)])
    yield 0, Text(f"Usage: {usage}")
    for paragraph in (command.help or "").split("\n\n"):
        yield from ((0, Text()), (0, Text.from_markup(paragraph)))
    yield from ((0, Text()), (0, Text("Options", "bold")))
    records = (parameter.get_help_record(context) for parameter in command.get_params(context))
    for names, text in filter(None, records):
        # "[env var: NAME]" is no markup
        yield from ((2, Text(names, "cyan")), (6, Text(text)))
    if isinstance(command, Group):
        yield from ((0, Text()), (0, Text("Commands", "bold")))
        for name, inner in command.commands.items():
            first = (inner.help or "").split("\n\n")[0]
            yield from ((2, Text(name, "cyan")), (6, Text.from_markup(first)))
    if command.epilog:
        yield from ((0, Text()), (0, Text.from_markup(command.epilog)))
