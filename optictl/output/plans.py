"""Plans and what becomes of them: the steps, the diffs, what stands in the way."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from optictl.results import Result

if TYPE_CHECKING:
    from optictl.operations.plan import Change
    from optictl.takeover.table import Row as TakeoverRow
from optictl.output.console import STATUS_STYLE, note, one_line, open_console, spelled

_ACTION = {
    "create": "green",
    "build": "green",
    "replace": "yellow",
    "mode": "yellow",
    "owner": "yellow",
    "remove": "red",
    "stop": "red",
    "disable": "red",
}


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


def changes(planned: Sequence[Change]) -> None:
    """A plan: each change with its reason, then its diff."""
    from rich.markup import escape
    from rich.syntax import Syntax

    console = open_console()
    for change in planned:
        style = _ACTION.get(change.action, "cyan")
        edited = " [bold red](edited)[/]" if change.edited else ""
        console.print(
            f"[{style}]{change.action:<7}[/] {escape(change.target)}{edited} [dim]({escape(change.reason)})[/dim]"
        )
        if change.diff.startswith("---"):
            if console.is_terminal:
                console.print(
                    Syntax(change.diff, "diff", background_color="default", word_wrap=True)
                )
            else:
                console.print(change.diff, markup=False, soft_wrap=True, end="")
        elif change.diff:
            console.print(f"        {change.diff}", style="dim", markup=False)


def done(change: Change) -> None:
    """One applied change."""
    words = {
        "create": "created",
        "replace": "replaced",
        "mode": "mode set on",
        "owner": "owner set on",
        "build": "built and proven",
        "switch": "activated",
        "reload": "reloaded",
        "enable": "enabled",
        "disable": "disabled",
        "start": "started",
        "restart": "restarted",
        "stop": "stopped",
        "canary": "proven against the live upstream:",
        "trial": "started once in its sandbox:",
        "aside": "moved aside",
        "handover": "handed over to the new process of",
        "restore": "restored",
        "sibling": "ready:",
        "configure": "edited",
        "remove": "removed",
    }
    note(f"{words[change.action]} {change.target}")
