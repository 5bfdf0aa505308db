"""Plans and what becomes of them: the steps, the diffs, what stands in the way."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from optictl.results import Result

if TYPE_CHECKING:
    from optictl.operations.steps import Effect, Step
    from optictl.takeover.table import Row as TakeoverRow
from optictl.output.console import STATUS_STYLE, note, one_line, open_console, spelled

#: The colour of a step, by what it does.
_COLOUR: dict[Effect, str] = {"add": "green", "change": "yellow", "remove": "red", "run": "cyan"}


def problems(found: Sequence[Result]) -> None:
    """What preflight found: what is wrong and the command that fixes it, the blocking ones first."""
    from rich.markup import escape

    console = open_console()
    for r in spelled(found):
        word = "blocked" if r.failed else "note"
        console.print(
            f"[{STATUS_STYLE[r.status]}]{word:<7}[/] {escape(one_line(r.found))}", soft_wrap=True
        )
        if r.remedy:
            console.print(f"        fix: {escape(one_line(r.remedy))}", soft_wrap=True)
    if found:
        console.print()


def takeover(unit: str, rows: Sequence[TakeoverRow], *, forced: bool) -> None:
    """What changes when a service that was written by hand is replaced."""
    from rich.markup import escape
    from rich.table import Table

    console = open_console()
    console.print(
        f"[bold]{escape(unit)} was written by hand. With optictl it changes:[/]", soft_wrap=True
    )
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for title in ("", "now", "becomes"):
        table.add_column(title, no_wrap=not title, overflow="fold")
    for row in rows:
        style = "" if row.changes else "dim"
        table.add_row(escape(row.what), escape(row.now), escape(row.becomes), style=style)
    console.print(table)
    if not forced:
        console.print(
            "[bold yellow]--force is needed[/] to replace it; a backup is kept, and it comes back if anything fails"
        )
    console.print()


def steps(planned: Sequence[Step]) -> None:
    """A plan: each step with its reason, then its diff."""
    from rich.markup import escape
    from rich.syntax import Syntax

    console = open_console()
    for step in planned:
        shown, style = step.describe(), _COLOUR[step.effect]
        edited = " [bold red](edited)[/]" if shown.edited else ""
        console.print(
            f"[{style}]{shown.action:<7}[/] {escape(shown.target)}{edited} [dim]({escape(shown.reason)})[/dim]"
        )
        if shown.diff.startswith("---"):
            if console.is_terminal:
                console.print(
                    Syntax(shown.diff, "diff", background_color="default", word_wrap=True)
                )
            else:
                console.print(shown.diff, markup=False, soft_wrap=True, end="")
        elif shown.diff:
            console.print(f"        {shown.diff}", style="dim", markup=False)


def done(step: Step) -> None:
    """One applied step."""
    note(f"{step.done} {step.target}")
