"""The state of each host of a fleet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from optictl.output.console import STATUS_STYLE, Report, Terminal, one_line, wrapped
from optictl.results import Result


@dataclass
class Hosts(Report):
    """What happened on each host. `again` is the command that continues, or ""."""

    items: Sequence[Result]
    headline: str
    code: int
    again: str = ""

    @property
    def ok(self) -> bool:  # type: ignore[override]
        return self.code == 0

    @property
    def exit_code(self) -> int:
        return self.code

    def results(self, terminal: Terminal) -> list[dict[str, Any]]:
        return [r.as_dict() for r in terminal.spelled(self.items)]

    def more(self, terminal: Terminal) -> dict[str, Any]:
        again = {"continue": terminal.spell(self.again)} if self.again else {}
        return {"summary": self.headline, **again}

    def show(self, terminal: Terminal) -> None:
        from rich.markup import escape

        spelled, console = terminal.spelled(self.items), terminal.out
        for r in spelled:
            if diff := (r.data or {}).get("diff"):
                console.print(f"[bold]{escape(r.id)}[/]", soft_wrap=True)
                console.print(diff, markup=False, end="", soft_wrap=True)
        width = max((len(r.id) for r in spelled), default=0)
        for r in spelled:
            head = f"[{STATUS_STYLE[r.status]}]{r.status:<5}[/] {escape(r.id):<{width}}  "
            fix = f"fix: {one_line(r.remedy)}" if r.remedy else ""
            if not console.is_terminal:  # one line for each host, for grep and awk
                words = "; ".join(filter(None, [one_line(r.found), fix]))
                console.print(f"{head}{escape(words)}", soft_wrap=True)
                continue
            wrapped(console, head, one_line(r.found))
            if fix:
                console.print(f"{' ' * (width + 8)}{escape(fix)}", soft_wrap=True)
        console.print()
        wrapped(console, "", self.headline, style="bold green" if self.ok else "bold red")
        if self.again:
            again = escape(terminal.spell(self.again))
            console.print(f"[dim]continue:[/] {again}", soft_wrap=True)
