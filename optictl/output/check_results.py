"""Results of checks, once and round by round."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from optictl.results import SEVERITY, Result, good, roots, summary

if TYPE_CHECKING:
    from rich.console import Console

    from optictl.checks.watch import Round
from optictl.output.console import STATUS_STYLE, envelope, one_line, open_console, spelled


def results(command: str, found: Sequence[Result], output: str, *, quiet: bool = False) -> bool:
    """Print results; True when none failed. `quiet` leaves out the passed ones (text only)."""
    ok = good(found)
    found = spelled(found)
    if output == "json":
        envelope(command, [r.as_dict() for r in found], ok, summary=one_line(summary(found)))
        return ok
    from rich.markup import escape
    from rich.table import Table

    console = open_console()
    shown = [r for r in found if not (quiet and r.status == "pass")]
    wide = max((len(r.id) for r in shown), default=0)
    if not console.is_terminal:
        # for grep and awk: one line each, however long, and nothing behind it
        for r in shown:
            console.print(
                f"{r.status:<5} {r.id:<{wide}}  {one_line(r.found)}", markup=False, soft_wrap=True
            )
        shown = []
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    reasons: dict[str, str] = {}
    for r in shown:
        words = one_line(r.found)
        told = reasons.setdefault(words, r.id) if r.status == "skip" else r.id
        table.add_row(
            f"[{STATUS_STYLE[r.status]}]{r.status}[/]",
            r.id,
            escape(words) if told == r.id else f"[dim]as {told}[/]",
        )
    if table.row_count:
        console.print(table)
    first = roots(found)
    explained = [r for r in found if r.failed and r not in first]
    for r in [*first, *explained, *(r for r in found if r.status == "warn")]:
        _explain(console, r)
    counts = [
        f"{n} {status}"
        for status in reversed(SEVERITY)
        if (n := sum(r.status == status for r in found))
    ]
    console.print(f"\n[{'bold green' if ok else 'bold red'}]{escape(one_line(summary(found)))}[/]")
    console.print(f"[dim]({', '.join(counts)})[/dim]")
    return ok


def round_of_checks(one: Round, output: str, *, quiet: bool = False) -> None:
    """What a round of `check --watch` has to say: the first one whole, then what changed, each line with its time."""
    if one.told and output == "json":
        told = (
            {"error": {"what": one.error}}
            if one.error
            else {"summary": one_line(summary(one.found))}
        )
        at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(one.at))
        changed = [r.as_dict() for r in spelled(one.changed)]
        envelope("check", changed, one.good, indent=None, time=at, **told)
    elif one.told and one.first and not one.error:
        results("check", one.found, output, quiet=quiet)
    elif one.told:
        _news(one)
    sys.stdout.flush()  # a reader behind a pipe is told now


def _news(one: Round) -> None:
    from rich.markup import escape

    console, at = open_console(), time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(one.at))

    def say(status: str, text: str) -> None:
        console.print(
            f"[dim]{at}[/] [{STATUS_STYLE[status]}]{status:<5}[/] {escape(one_line(text))}"
        )

    if one.error:
        say("error", one.error)
        return
    for r in one.changed:
        say(r.status, f"{r.id}: {r.found}")
    say("pass" if one.good else "fail", summary(spelled(one.found)))


def _explain(console: Console, r: Result) -> None:
    from rich.markup import escape
    from rich.padding import Padding

    console.print(f"\n[{STATUS_STYLE[r.status]}]{r.id}[/] {escape(r.title)}")
    told = {name: getattr(r, name) for name in ("expected", "found", "cause", "remedy")}
    if r.failed and r.root_cause not in ("", r.id):
        told["remedy"] = f"see {r.root_cause}, of which it is a consequence"
    for name, text in told.items():
        if text:
            console.print(
                Padding(f"[dim]{name:<9}[/dim]{escape(one_line(text))}", (0, 0, 0, 2), expand=False)
            )
