"""What requests did: traces and comparisons."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from optictl.output.figures import number, short

if TYPE_CHECKING:
    from optictl.requests.compare.summary import Row
    from optictl.requests.tracing import Trace
from optictl.output.console import (
    STATUS_STYLE,
    envelope,
    message,
    note,
    one_line,
    open_console,
    printable,
)


def compared(
    rows: Sequence[Row], file: str, budget: int | None, more: str | None, output: str
) -> bool:
    """Strategies beside their plain models; True when no request failed.

    `file` holds the answers. Where `budget` (tokens) ended it, `more` is the command that goes on with a larger one.
    """
    failed, left_out = sum(r.failed for r in rows), sum(r.left_out for r in rows)
    tokens = sum(r.tokens for r in rows)
    if output == "json":
        facts: dict[str, Any] = {
            "file": file,
            "tokens": tokens,
            "budget_tokens": budget,
            "left_out": left_out,
            "failed": failed,
        }
        envelope("compare", [r.as_dict() for r in rows], not failed, **facts)
        return not failed
    for base_model in dict.fromkeys(r.subject.base_model for r in rows):
        _compared(base_model, [r for r in rows if r.subject.base_model == base_model])
    for r in rows:
        if r.failed:
            message(
                f"\n{r.subject.model}: {r.failed} requests failed, the last one with: {one_line(r.error)}"
            )
    if failed:
        message(f"What failed counts for nothing, and is asked again with --resume {file}")
    if more:
        asked = sum(r.answered + r.failed for r in rows)
        message(
            f"\nLeft out: {left_out} of {asked + left_out} requests: one more may pass the budget of {budget} tokens"
        )
    if budget is not None and tokens > budget:
        message(
            f"Passed the budget by {tokens - budget} tokens: a request took more than any before it."
        )
    if more:
        message(f"More: {more}")
    note(f"every answer is in {file}")
    return not failed


def _compared(base_model: str, rows: Sequence[Row]) -> None:
    from rich.markup import escape
    from rich.table import Table

    from optictl.requests.compare import summary

    console = open_console()
    priced = any(r.cost is not None for r in rows)
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(escape(base_model), overflow="fold")
    for title in (
        "right",
        "95 %",
        "calls",
        "tokens",
        "p50 s",
        "p95 s",
        *(["cost"] if priced else []),
    ):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    styles = {"better": "green", "worse": "red", "within noise": "dim", "": ""}
    for r in rows:
        low, high = r.interval
        verdict = r.beside.verdict if r.beside else ""
        cost = [number(r.cost, ".4f")] if priced else []
        share = f"{100 * low:.0f}-{100 * high:.0f}" if r.answered else "-"
        figures = (f"{r.right}/{r.answered}", share, str(r.calls), short(r.tokens))
        words = (*figures, number(r.p50), number(r.p95), *cost)
        style = styles[verdict]
        table.add_row(
            escape(r.subject.strategy or "(plain)"),
            *words,
            f"[{style}]{verdict}[/]" if style else verdict,
        )
    console.print(table)
    console.print()
    for r in rows:
        if text := summary.sentence(r):
            console.print(text, markup=False)


def waterfall(model: str, trace: Trace) -> None:
    """One request, each of its calls as a bar where it was in time; prompts and answers below, where they are in it."""
    from rich.markup import escape
    from rich.table import Table

    from optictl.requests import tracing

    console = open_console()
    state = f"[{STATUS_STYLE['pass' if trace.status == 200 else 'fail']}]{escape(f'{trace.status} {trace.code}'.rstrip())}[/]"
    tokens = f"{trace.prompt_tokens} + {trace.completion_tokens} tokens"
    at_once = f", {trace.at_once} at once" if trace.at_once > 1 else ""
    console.print(
        f"\n[bold]{escape(model)}[/]  {state}  {len(trace.calls)} calls{at_once}, {tokens}, {trace.seconds:.2f} s"
    )
    wide = max([len(c.purpose) for c in trace.calls], default=0)
    width = max(12, min(console.width, 120) - wide - 45)
    form = ".3f" if trace.span < 1 else ".2f" if trace.span < 100 else ".0f"
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for title in (
        "call",
        "0 s".ljust(width - 8) + f"{trace.span:{form}} s".rjust(8),
        "at",
        "s",
        "in",
        "out",
        "status",
    ):
        table.add_column(
            title, justify="right" if title in ("at", "s", "in", "out") else "left", no_wrap=True
        )
    full = "━" if console.encoding.startswith("utf") else "="
    for call in trace.calls:
        seconds = trace.lasted(call)
        before, length = tracing.bar(call.start, seconds, trace.span, width)
        style = STATUS_STYLE["fail"] if call.failed else "cyan"
        table.add_row(
            escape(call.purpose),
            f"{' ' * before}[{style}]{full * length}[/]",
            f"{call.start:{form}}",
            "open" if call.seconds is None else f"{seconds:{form}}",
            short(call.prompt_tokens),
            short(call.completion_tokens),
            f"[{style}]{escape(call.outcome)}[/]" if call.failed else call.outcome,
        )
    console.print(table)
    for call in trace.calls if trace.messages is not None else ():
        console.print(f"\n[bold]{escape(call.purpose)}[/] [dim]at {call.start:{form}} s[/]")
        texts = [(str(one.get("role")), one.get("content")) for one in call.messages or ()]
        for who, text in [*texts, *(("answer", text) for text in call.answers or ())]:
            lines = "\n".join(map(printable, str(text).splitlines()))
            console.print(f"[dim]{escape(who)}:[/] {escape(lines)}", soft_wrap=True)
