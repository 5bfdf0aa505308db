"""What became of each host of a fleet."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from optictl.results import Result

if TYPE_CHECKING:
    pass
from optictl.output import console
from optictl.output.console import STATUS_STYLE, envelope, one_line, open_console, spelled


def fleet(
    command: str, found: Sequence[Result], headline: str, again: str, output: str, *, ok: bool
) -> None:
    """What became of each host, in one table; `again` is the command that continues, or ""."""
    found, again = spelled(found), console.invocation.spell(again)
    if output == "json":
        more: dict[str, Any] = {"continue": again} if again else {}
        envelope(command, [r.as_dict() for r in found], ok, summary=headline, **more)
        return
    from rich.markup import escape
    from rich.table import Table

    table_console = open_console()
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    for fold in (False, False, True):
        table.add_column(no_wrap=not fold, overflow="fold")
    for r in found:
        if diff := (r.data or {}).get("diff"):
            table_console.print(f"[bold]{escape(r.id)}[/]")
            table_console.print(diff, markup=False, end="", soft_wrap=True)
    wide = max((len(r.id) for r in found), default=0)
    for r in found:
        words = [one_line(r.found), *([f"mend: {one_line(r.remedy)}"] if r.remedy else [])]
        if not table_console.is_terminal:  # for grep and awk
            table_console.print(
                f"{r.status:<5} {r.id:<{wide}}  {'; '.join(words)}", markup=False, soft_wrap=True
            )
        table.add_row(
            f"[{STATUS_STYLE[r.status]}]{r.status}[/]", escape(r.id), escape("\n".join(words))
        )
    if table_console.is_terminal:
        table_console.print(table)
    table_console.print(f"\n[{'bold green' if ok else 'bold red'}]{escape(headline)}[/]")
    if again:
        table_console.print(f"[dim]continue:[/] {escape(again)}", soft_wrap=True)
