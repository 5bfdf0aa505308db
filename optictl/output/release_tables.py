"""Releases, new locks and what a canary did."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from optictl.results import Result

if TYPE_CHECKING:
    from optictl.operations.resolve import Resolution
    from optictl.releases.store import StoredRelease
from optictl.output.console import STATUS_STYLE, message, open_console


def resolution(found: Resolution) -> None:
    """A new lock: what it changes in the closure, and in what the guard relies on."""
    from rich.markup import escape

    console = open_console()
    console.print("[bold]the closure[/]")
    for line in found.closure:
        console.print(f"  {escape(line)}", soft_wrap=True)
    console.print("[bold]what the guard relies on[/]")
    for name, diff in found.internals.items():
        note = "not known to the guard" if name in found.unknown else "known to the guard"
        console.print(f"  {escape(name)} changed ({note})", soft_wrap=True)
        if name in found.unknown:
            console.print(diff, markup=False, style="dim", soft_wrap=True)
    if not found.internals:
        console.print("  nothing changed")
    if found.unknown:
        console.print("[bold yellow]The guard will refuse to run on it.[/]")


def comparison(new: Sequence[Result], current: Sequence[Result]) -> None:
    """What each strategy did in a new release, beside the one in force."""
    from rich.markup import escape
    from rich.table import Table

    console = open_console()
    before = {r.id: r for r in current}
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for title in ("", "model", "calls", "tokens", "s", "before", "tokens", "s"):
        table.add_column(title, justify="left" if title in ("", "model") else "right", no_wrap=True)

    def figures(result: Result | None) -> list[str]:
        data = (result.data if result else None) or {}
        if not data:
            return ["", "", ""]
        return [
            str(data["upstream_calls"]),
            str(data["tokens"]["total"]),
            f"{data['latency_ms'] / 1000:.2f}",
        ]

    for r in new:
        table.add_row(
            f"[{STATUS_STYLE[r.status]}]{r.status}[/]",
            escape(r.id),
            *figures(r),
            *figures(before.get(r.id)),
        )
    console.print(table)


def releases(found: Sequence[StoredRelease]) -> None:
    """The releases on the disk."""
    from rich.markup import escape
    from rich.table import Table

    if not found:
        message("No release is installed.")
        return
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for title in ("release", "state", "profile", "closure", "built", "MB"):
        table.add_column(title, justify="right" if title == "MB" else "left", no_wrap=True)
    for one in found:
        style = {"active": "green", "half-built": "yellow"}.get(one.state, "")
        words = (
            one.profile,
            one.closure,
            one.built[:16].replace("T", " "),
            f"{one.size / 1e6:.0f}",
        )
        table.add_row(
            escape(one.name),
            f"[{style}]{one.state}[/]" if style else one.state,
            *map(escape, words),
        )
    open_console().print(table)
