"""The only code that prints: words and tables for people, one JSON envelope for programs.

Results go to stdout, everything else to stderr. Where stdout is no terminal there is no
colour and no line is cut.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from optictl.deployment.invocation import Invocation
from optictl.results import SEVERITY, Result, good, roots, summary

if TYPE_CHECKING:
    from rich.console import Console, Group

    from optictl.checks.watch import Round
    from optictl.deployment.config import ConfigError
    from optictl.errors import OptictlError
    from optictl.observe.logs import Entry
    from optictl.observe.status import Status
    from optictl.observe.top.model import Screen
    from optictl.operations.plan import Change
    from optictl.operations.upgrade import Resolution
    from optictl.releases.store import Facts
    from optictl.requests.compare.summary import Row
    from optictl.requests.tracing import Trace
    from optictl.takeover.table import Row as TakeoverRow

SCHEMA = 1
STATUS_STYLE = {"pass": "green", "warn": "yellow", "fail": "bold red", "skip": "dim", "error": "bold magenta"}
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
#: A pipe gets lines as long as they are.
_PIPE_WIDTH = 1000

recording: Console | None = None
"""Set by the script that draws the README's picture: everything is printed there."""

invocation = Invocation()
"""How the commands in everything that is printed here have to be typed; the command line sets it."""


def open_console(stderr: bool = False) -> Console:
    from rich.console import Console

    if recording is not None:
        return recording
    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() or os.environ.get("COLUMNS") else _PIPE_WIDTH
    return Console(stderr=stderr, highlight=False, width=width, soft_wrap=width is not None)


def raw(text: str) -> None:
    """An artefact, byte for byte, to stdout."""
    sys.stdout.write(text)


def failure(command: str, what: str, remedy: str, problems: Sequence[dict[str, Any]] = ()) -> None:
    """The envelope of a command that could not do its work: no results, and why."""
    error = {"what": what, "remedy": invocation.spell(remedy), **({"problems": list(problems)} if problems else {})}
    envelope(command, [], False, error=error)


def envelope(command: str, results: Sequence[dict[str, Any]], ok: bool, indent: int | None = 2, **more: Any) -> None:
    """The versioned JSON envelope, alone on stdout; on one line with `indent=None`."""
    data = {"schema": SCHEMA, "command": command, "status": "ok" if ok else "failed", "results": list(results), **more}
    sys.stdout.write(json.dumps(data, indent=indent, ensure_ascii=False) + "\n")


def note(text: str) -> None:
    """One line of what is going on, to stderr."""
    from rich.markup import escape

    open_console(stderr=True).print(f"[dim]{escape(text)}[/dim]")


def headline(text: str) -> None:
    """The title of a part of a longer command."""
    from rich.markup import escape

    open_console(stderr=recording is None).print(f"\n[bold]{escape(text)}[/bold]")


@contextmanager
def progress(title: str) -> Iterator[Callable[[str], None]]:
    """A spinner that says what is being done; in a pipe, a line each."""
    console = open_console(stderr=True)
    if not console.is_terminal or recording is not None:
        yield note
        return
    from rich.markup import escape

    with console.status(f"{escape(title)} ...") as status:

        def say(text: str) -> None:
            console.print(f"[dim]{escape(text)}[/dim]")
            status.update(f"{escape(text)} ...")

        yield say


@contextmanager
def steps(title: str, done: int, total: int) -> Iterator[Callable[[str], None]]:
    """A bar that grows by one with every text that is said; nothing in a pipe."""
    console = open_console(stderr=True)
    if not console.is_terminal or recording is not None:
        yield lambda _: None
        return
    from rich.markup import escape
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    columns = (
        BarColumn(20),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.description}"),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task(escape(title), total=total, completed=done)
        yield lambda text: progress.update(task, advance=1, description=escape(one_line(text)))


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
            console.print(f"{r.status:<5} {r.id:<{wide}}  {one_line(r.found)}", markup=False, soft_wrap=True)
        shown = []
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    reasons: dict[str, str] = {}
    for r in shown:
        words = one_line(r.found)
        told = reasons.setdefault(words, r.id) if r.status == "skip" else r.id
        table.add_row(f"[{STATUS_STYLE[r.status]}]{r.status}[/]", r.id, escape(words) if told == r.id else f"[dim]as {told}[/]")
    if table.row_count:
        console.print(table)
    first = roots(found)
    explained = [r for r in found if r.red and r not in first]
    for r in [*first, *explained, *(r for r in found if r.status == "warn")]:
        _explain(console, r)
    counts = [f"{n} {status}" for status in reversed(SEVERITY) if (n := sum(r.status == status for r in found))]
    console.print(f"\n[{'bold green' if ok else 'bold red'}]{escape(one_line(summary(found)))}[/]")
    console.print(f"[dim]({', '.join(counts)})[/dim]")
    return ok


def spelled(found: Sequence[Result]) -> list[Result]:
    """The same with remedies that can be pasted."""
    spell = invocation.spell
    return [replace(r, remedy=spell(r.remedy), found=spell(r.found)) for r in found]


def round_of_checks(one: Round, output: str, *, quiet: bool = False) -> None:
    """What a round of `check --watch` has to say: the first one whole, then what changed, each line with its time."""
    if one.told and output == "json":
        told = {"error": {"what": one.error}} if one.error else {"summary": one_line(summary(one.found))}
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
        console.print(f"[dim]{at}[/] [{STATUS_STYLE[status]}]{status:<5}[/] {escape(one_line(text))}")

    if one.error:
        say("error", one.error)
        return
    for r in one.changed:
        say(r.status, f"{r.id}: {r.found}")
    say("pass" if one.good else "fail", summary(spelled(one.found)))


def one_line(text: str) -> str:
    """What a server said, on one line and without what a terminal would obey."""
    return " ".join(printable(text).split())


def printable(text: str) -> str:
    """A text without what a terminal would obey."""
    return "".join(c if c.isprintable() else " " for c in text)


def _explain(console: Console, r: Result) -> None:
    from rich.markup import escape
    from rich.padding import Padding

    console.print(f"\n[{STATUS_STYLE[r.status]}]{r.id}[/] {escape(r.title)}")
    told = {name: getattr(r, name) for name in ("expected", "found", "cause", "remedy")}
    if r.red and r.root_cause not in ("", r.id):
        told["remedy"] = f"see {r.root_cause}, of which it is a consequence"
    for name, text in told.items():
        if text:
            console.print(Padding(f"[dim]{name:<9}[/dim]{escape(one_line(text))}", (0, 0, 0, 2), expand=False))


def problems(found: Sequence[Result]) -> None:
    """What preflight found: what is wrong and the command that fixes it, the blocking ones first."""
    from rich.markup import escape

    console = open_console()
    for r in spelled(found):
        word = "blocked" if r.red else "note"
        console.print(f"[{STATUS_STYLE[r.status]}]{word:<7}[/] {escape(one_line(r.found))}", soft_wrap=True)
        if r.remedy:
            console.print(f"        fix: {escape(one_line(r.remedy))}", soft_wrap=True)
    if found:
        console.print()


def takeover(unit: str, rows: Sequence[TakeoverRow], *, forced: bool) -> None:
    """What changes when a service that was written by hand is replaced."""
    from rich.markup import escape
    from rich.table import Table

    console = open_console()
    console.print(f"[bold]{escape(unit)} was written by hand. With optictl it changes:[/]", soft_wrap=True)
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for title in ("", "now", "becomes"):
        table.add_column(title, no_wrap=not title, overflow="fold")
    for row in rows:
        style = "" if row.changes else "dim"
        table.add_row(escape(row.what), escape(row.now), escape(row.becomes), style=style)
    console.print(table)
    if not forced:
        console.print("[bold yellow]--force is needed[/] to replace it; a backup is kept, and it comes back if anything fails")
    console.print()


def changes(planned: Sequence[Change]) -> None:
    """A plan: each change with its reason, then its diff."""
    from rich.markup import escape
    from rich.syntax import Syntax

    console = open_console()
    for change in planned:
        style = _ACTION.get(change.action, "cyan")
        edited = " [bold red](edited)[/]" if change.edited else ""
        console.print(f"[{style}]{change.action:<7}[/] {escape(change.target)}{edited} [dim]({escape(change.reason)})[/dim]")
        if change.diff.startswith("---"):
            if console.is_terminal:
                console.print(Syntax(change.diff, "diff", background_color="default", word_wrap=True))
            else:
                console.print(change.diff, markup=False, soft_wrap=True, end="")
        elif change.diff:
            console.print(f"        {change.diff}", style="dim", markup=False)


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
        return [str(data["upstream_calls"]), str(data["tokens"]["total"]), f"{data['latency_ms'] / 1000:.2f}"]

    for r in new:
        table.add_row(f"[{STATUS_STYLE[r.status]}]{r.status}[/]", escape(r.id), *figures(r), *figures(before.get(r.id)))
    console.print(table)


def compared(rows: Sequence[Row], file: str, budget: int | None, more: str | None, output: str) -> bool:
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
            message(f"\n{r.subject.model}: {r.failed} requests failed, the last one with: {one_line(r.error)}")
    if failed:
        message(f"What failed counts for nothing, and is asked again with --resume {file}")
    if more:
        asked = sum(r.answered + r.failed for r in rows)
        message(f"\nLeft out: {left_out} of {asked + left_out} requests: one more may pass the budget of {budget} tokens")
    if budget is not None and tokens > budget:
        message(f"Passed the budget by {tokens - budget} tokens: a request took more than any before it.")
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
    for title in ("right", "95 %", "calls", "tokens", "p50 s", "p95 s", *(["cost"] if priced else [])):
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
        table.add_row(escape(r.subject.strategy or "(plain)"), *words, f"[{style}]{verdict}[/]" if style else verdict)
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
    console.print(f"\n[bold]{escape(model)}[/]  {state}  {len(trace.calls)} calls{at_once}, {tokens}, {trace.seconds:.2f} s")
    wide = max([len(c.purpose) for c in trace.calls], default=0)
    width = max(12, min(console.width, 120) - wide - 45)
    form = ".3f" if trace.span < 1 else ".2f" if trace.span < 100 else ".0f"
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for title in ("call", "0 s".ljust(width - 8) + f"{trace.span:{form}} s".rjust(8), "at", "s", "in", "out", "status"):
        table.add_column(title, justify="right" if title in ("at", "s", "in", "out") else "left", no_wrap=True)
    full = "━" if console.encoding.startswith("utf") else "="
    for call in trace.calls:
        seconds = trace.lasted(call)
        before, length = tracing.bar(call.start, seconds, trace.span, width)
        style = STATUS_STYLE["fail"] if call.failed else "cyan"
        table.add_row(
            escape(call.purpose), f"{' ' * before}[{style}]{full * length}[/]", f"{call.start:{form}}",
            "open" if call.seconds is None else f"{seconds:{form}}", short(call.prompt_tokens), short(call.completion_tokens),
            f"[{style}]{escape(call.outcome)}[/]" if call.failed else call.outcome,
        )  # fmt: skip
    console.print(table)
    for call in trace.calls if trace.messages is not None else ():
        console.print(f"\n[bold]{escape(call.purpose)}[/] [dim]at {call.start:{form}} s[/]")
        texts = [(str(one.get("role")), one.get("content")) for one in call.messages or ()]
        for who, text in [*texts, *(("answer", text) for text in call.answers or ())]:
            lines = "\n".join(map(printable, str(text).splitlines()))
            console.print(f"[dim]{escape(who)}:[/] {escape(lines)}", soft_wrap=True)


def short(value: float) -> str:
    """A number in at most five signs: 950, 12.3k, 4.56M."""
    for scale, sign in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if value >= scale:
            return f"{value / (1e3 if sign == 'k' else scale):.3g}{sign}"
    return f"{value:.0f}"


def releases(found: Sequence[Facts]) -> None:
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
        style = {"in force": "green", "half-built": "yellow"}.get(one.state, "")
        words = (one.profile, one.closure, one.built[:16].replace("T", " "), f"{one.size / 1e6:.0f}")
        table.add_row(escape(one.name), f"[{style}]{one.state}[/]" if style else one.state, *map(escape, words))
    open_console().print(table)


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


def status(seen: Status) -> None:
    """One screen about a deployment."""
    from rich.markup import escape
    from rich.table import Table

    console = open_console()
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    memory = "" if seen.memory is None else f"{seen.memory / 2**20:.0f} MiB"
    tiers = "  ".join(f"[{STATUS_STYLE[status]}]{id.removeprefix('health.')} {status}[/]" for id, status in seen.tiers.items())
    rows = {
        "state": escape(f"{seen.state}, since {seen.since}" if seen.since else seen.state),
        "doing": escape(seen.doing),
        "process": str(seen.main_pid or ""),
        "release": escape(seen.release),
        "restarts": str(seen.restarts) if seen.state else "",
        "memory": memory,
        "drop-ins": escape(" ".join(seen.drop_ins)),
        "health": tiers,
        "problem": f"[bold red]{escape(seen.problem)}[/]" if seen.problem else "",
        "next": escape(seen.next),
    }
    for name, text in rows.items():
        if text:
            table.add_row(name, text)
    console.print(table)


def fleet(command: str, found: Sequence[Result], headline: str, again: str, output: str, *, ok: bool) -> None:
    """What became of each host, in one table; `again` is the command that continues, or ""."""
    found, again = spelled(found), invocation.spell(again)
    if output == "json":
        more: dict[str, Any] = {"continue": again} if again else {}
        envelope(command, [r.as_dict() for r in found], ok, summary=headline, **more)
        return
    from rich.markup import escape
    from rich.table import Table

    console = open_console()
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    for fold in (False, False, True):
        table.add_column(no_wrap=not fold, overflow="fold")
    for r in found:
        if diff := (r.data or {}).get("diff"):
            console.print(f"[bold]{escape(r.id)}[/]")
            console.print(diff, markup=False, end="", soft_wrap=True)
    wide = max((len(r.id) for r in found), default=0)
    for r in found:
        words = [one_line(r.found), *([f"mend: {one_line(r.remedy)}"] if r.remedy else [])]
        if not console.is_terminal:  # for grep and awk
            console.print(f"{r.status:<5} {r.id:<{wide}}  {'; '.join(words)}", markup=False, soft_wrap=True)
        table.add_row(f"[{STATUS_STYLE[r.status]}]{r.status}[/]", escape(r.id), escape("\n".join(words)))
    if console.is_terminal:
        console.print(table)
    console.print(f"\n[{'bold green' if ok else 'bold red'}]{escape(headline)}[/]")
    if again:
        console.print(f"[dim]continue:[/] {escape(again)}", soft_wrap=True)


def log(entry: Entry, output: str) -> None:
    """One entry of the journal: a request in columns, another one as its time and text, or a line of JSON."""
    if output == "json":
        sys.stdout.write(json.dumps(entry.as_dict(), ensure_ascii=False) + "\n")
        sys.stdout.flush()
        return
    import time

    from optictl.observe import logs

    when = time.strftime("%m-%d %H:%M:%S", time.localtime(entry.seconds))
    cells = logs.cells(entry)
    if cells is not None:
        text = logs.line(cells)
    elif "event" in entry.event:
        words = "  ".join(f"{name}={value}" for name, value in entry.event.items() if name != "event")
        text = f"{entry.event['event']:<8} {words}"
    else:
        text = entry.text
    open_console().print(f"{when} {printable(text)}", style="red" if entry.bad else "", markup=False, soft_wrap=True)


def log_titles() -> None:
    """What the columns of `log` are, for people; grep and awk do without."""
    from optictl.observe import logs

    console = open_console()
    if console.is_terminal:
        console.print(f"{'time':<14} {logs.line(title for title, _ in logs.COLUMNS)}", style="bold", soft_wrap=True)


@contextmanager
def top(name: str, interval: float, output: str) -> Iterator[Callable[[Screen, bool], None]]:
    """Shows a screen, and whether it is paused: on a terminal's whole screen, in a pipe as a line, or as a JSON object."""
    console = open_console()
    if output == "json":
        yield lambda screen, _: print_now(json.dumps({"schema": SCHEMA, "time": now(), **screen.as_dict()}, ensure_ascii=False))
    elif not console.is_terminal:
        yield lambda screen, _: print_now(_top_line(screen))
    else:
        from rich.live import Live

        with Live(console=console, screen=True, auto_refresh=False) as live:
            yield lambda screen, paused: live.update(_top_screen(screen, name, interval, paused, *console.size), refresh=True)


def print_now(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def now() -> str:
    import time

    return time.strftime("%Y-%m-%dT%H:%M:%S%z")


def number(value: float | None, form: str = ".1f") -> str:
    return "-" if value is None else format(value, form)


def span(seconds: float | None) -> str:
    """A length of time in two words: 3 d 4 h, 5 min 6 s."""
    if seconds is None:
        return "-"
    whole = int(seconds)
    for unit, size, below, smaller in (("d", 86400, "h", 3600), ("h", 3600, "min", 60), ("min", 60, "s", 1)):
        if whole >= size:
            return f"{whole // size} {unit} {whole % size // smaller} {below}"
    return f"{whole} s"


def memory(size: float | None) -> str:
    return "-" if size is None else f"{size / 2**20:.0f} MiB"


def _top_line(screen: Screen) -> str:
    total = screen.total
    facts = {
        "state": screen.state.replace(" ", ""),
        "ready": "yes" if screen.ready else "no",
        "uptime_s": number(screen.uptime, ".0f"),
        "in_flight": str(total.in_flight),
        "queued": "-" if screen.queued is None else str(screen.queued),
        "requests/min": number(total.requests),
        "failed/min": number(total.failed),
        "refused/min": number(screen.refused),
        "calls/min": number(total.calls),
        "tokens/min": number(total.tokens, ".0f"),
        "call_p50_s": number(screen.p50, ".3f"),
        "call_p95_s": number(screen.p95, ".3f"),
        "restarts": "-" if screen.restarts is None else str(screen.restarts),
        "memory_mib": number(None if screen.memory is None else screen.memory / 2**20, ".0f"),
    }
    line = f"{now()} {' '.join(f'{name}={value}' for name, value in facts.items())}"
    return f"{line} problem={json.dumps(one_line(screen.problem))}" if screen.problem else line


def _top_screen(screen: Screen, name: str, interval: float, paused: bool, width: int, height: int) -> Group:
    from rich.console import Group
    from rich.markup import escape
    from rich.table import Table
    from rich.text import Text

    ready = "[green]ready[/]" if screen.ready else "[bold red]not ready[/]"
    restarts = "" if screen.restarts is None else f"; restarts {screen.restarts}"
    workers = f"; workers {screen.workers} of {screen.workers_wanted}" if (screen.workers_wanted or 1) > 1 else ""
    most = "" if screen.max_in_flight is None else f" of {screen.max_in_flight}"
    queued = "" if screen.queued is None else f"{screen.queued} wait for their turn, "
    head = [
        f"[bold]{escape(name)}[/]  {escape(screen.state)}, {ready}  up {span(screen.uptime)}  memory {memory(screen.memory)}",
        f"requests: {screen.total.in_flight}{most} run, {queued}refused {number(screen.refused)}/min{restarts}",
        f"[bold red]{escape(one_line(screen.problem))}[/]" if screen.problem else
        f"upstream: p50 {number(screen.p50, '.2f')} s, p95 {number(screen.p95, '.2f')} s; "
        f"failed {number(screen.upstream_failed)} calls/min{workers}",
        "",
    ]  # fmt: skip
    rates = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    rates.add_column("per minute", no_wrap=True)
    for title in ("in flight", "requests", "failed", "calls", "tokens"):
        rates.add_column(title, justify="right", no_wrap=True)
    # the strategies leave room for what is in flight: the busiest are shown
    busiest = sorted(screen.rates, key=lambda r: (-r.in_flight, -(r.requests or 0)))[: max(1, height // 3)]
    for one in (*(r for r in screen.rates if r in busiest), screen.total):
        figures = (number(one.requests), number(one.failed), number(one.calls), number(one.tokens, ".0f"))
        rates.add_row(escape(one.strategy), str(one.in_flight), *figures, style="bold" if one is screen.total else "")
    room = max(1, height - len(head) - len(busiest) - 6)
    waiting = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    # a long name is cut, and never a figure
    waiting.add_column("in flight", no_wrap=True, max_width=max(12, width - len("  23 h 59 min  calls  waiting  feedface  ")))
    for title in ("age", "calls", "waiting", "trace"):
        waiting.add_column(title, justify="left" if title == "trace" else "right", no_wrap=True)
    for each in screen.in_flight[:room]:
        waiting.add_row(escape(each.model), span(each.age), str(each.calls), str(each.waiting), escape(each.trace[:8]))
    more = len(screen.in_flight) - room
    last = "[reverse] paused [/]  p goes on" if paused else f"every {interval:g} s, rates over {screen.seconds:.0f} s  p pauses"
    foot = [f"and {more} more" if more > 0 else "", f"[dim]{last}  q quits[/]"]
    lines = [Text.from_markup(line, overflow="ellipsis") for line in (*head, *foot)]
    for text in lines:
        text.no_wrap = True
    return Group(*lines[: len(head)], rates, Text(""), waiting, *lines[len(head) :])


def message(text: str) -> None:
    """A line of a command's result for people, to stdout."""
    open_console().print(invocation.spell(text), markup=False, soft_wrap=True)


def example(command: str) -> None:
    """A command to copy, never wrapped by us."""
    open_console().print(invocation.spell(command), markup=False, soft_wrap=True, style="cyan")


def error(problem: OptictlError) -> None:
    """What went wrong, what was said, and what mends it, to stderr."""
    from rich.markup import escape

    console = open_console(stderr=True)
    console.print(f"[bold red]error[/]  {escape(problem.what)}")
    if problem.detail:
        console.print(escape(problem.detail), style="dim", soft_wrap=True)
    if problem.remedy:
        # a command that is broken into lines cannot be pasted
        console.print(f"[bold]fix[/]    {escape(invocation.spell(problem.remedy))}", soft_wrap=True)


def config_error(invalid: ConfigError, remedy: str) -> None:
    """Every problem of a configuration, with its place, to stderr."""
    from rich.markup import escape

    console = open_console(stderr=True)
    console.print(f"[bold red]error[/]  the configuration {escape(invalid.source)} cannot be used:")
    for problem in invalid.problems:
        console.print(f"       {escape(str(problem))}")
    console.print(f"[bold]fix[/]    {escape(invocation.spell(remedy))}")


def unexpected(failure: BaseException) -> None:
    """A defect of optictl itself, without its traceback."""
    from rich.markup import escape

    console = open_console(stderr=True)
    console.print(f"[bold red]error[/]  internal error (please report it): {escape(str(failure))}")
    console.print("[bold]fix[/]    run it again as optictl --debug COMMAND ... and report the traceback")
