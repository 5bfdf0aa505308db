"""status, logs and top."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from optictl.output.console import (
    STATUS_STYLE,
    Report,
    Terminal,
    one_line,
    printable,
    wrapped,
)
from optictl.output.envelope import SCHEMA
from optictl.output.figures import memory, number, span
from optictl.output.tables import Table, broken

if TYPE_CHECKING:
    from rich.console import Group
    from rich.text import Text

    from optictl.deployment.paths import Paths
    from optictl.observe.logs import Entry
    from optictl.observe.status import Status
    from optictl.observe.top.model import InFlight, Rates, Screen
    from optictl.observe.top.run import Show


@dataclass
class StatusReport(Report):
    """One screen about a deployment."""

    status: Status

    @property
    def ok(self) -> bool:  # type: ignore[override]
        return self.status.good

    def results(self, terminal: Terminal) -> list[dict[str, Any]]:
        return [replace(self.status, next=terminal.spell(self.status.next)).as_dict()]

    def show(self, terminal: Terminal) -> None:
        from rich.markup import escape
        from rich.text import Text

        status = self.status
        tiers = (
            Text(f"{id.removeprefix('health.')} {tier}", STATUS_STYLE[tier])
            for id, tier in status.tiers.items()
        )
        rows = [(name, Text(text)) for name, text in _rows(status).items()]
        titles = ["units", *[""] * len(status.units)]
        rows += zip(titles, map(Text, _unit_lines(status)), strict=False)
        rows.append(("health", Text("  ").join(tiers)))
        rows.append(("problem", Text(status.problem, "bold red")))
        for name, text in rows:
            if text:
                wrapped(terminal.out, f"[dim]{name:<8}[/]  ", text)
        if status.next:
            # a command that is broken into lines cannot be pasted
            following = escape(terminal.spell(status.next))
            terminal.out.print(f"[dim]{'next':<8}[/]  {following}", soft_wrap=True)


def _rows(status: Status) -> dict[str, str]:
    return {
        "state": f"{status.state}, since {status.since}" if status.since else status.state,
        "doing": status.doing,
        "process": str(status.main_pid or ""),
        "release": _release(status),
        "restarts": str(status.restarts) if status.state else "",
        "memory": "" if status.memory is None else f"{status.memory / 2**20:.0f} MiB",
        "drop-ins": " ".join(status.drop_ins),
    }


def _unit_lines(status: Status) -> list[str]:
    """A line for each unit but the service, whose state is above."""
    width = max((len(unit.name) for unit in status.units), default=0)
    lines = []
    for unit in status.units[1:]:
        more = f": {unit.doing}" if unit.doing else ""
        lines.append(f"{unit.name:<{width}}  {unit.state}{more}")
    return lines


def _release(status: Status) -> str:
    verdict = status.verification
    return f"{status.release} ({verdict.words})" if verdict else status.release


def logs(terminal: Terminal, paths: Paths, entries: Iterable[Entry]) -> None:
    """The journal's entries of the deployment at `paths`, each as it comes.

    In columns for people, a JSON object a line for programs.
    """
    if terminal.form == "text":
        _log_titles(terminal)
    is_empty = True
    for entry in entries:
        is_empty = False
        if terminal.form == "json":
            terminal.line(json.dumps(entry.as_dict(), ensure_ascii=False))
        else:
            _log(terminal, entry, paths.short_unit(entry.unit))
    if is_empty:
        terminal.note("no journal entry matches")


def _log(terminal: Terminal, entry: Entry, unit: str) -> None:
    """A request in columns, another entry as its time and text.

    `unit`: the short name of its unit, "" for the service.
    """
    from optictl.observe import logs

    when = time.strftime("%m-%d %H:%M:%S", time.localtime(entry.seconds))
    cells = logs.cells(entry)
    if cells is not None:
        text = logs.line((*cells[:-1], " ".join(filter(None, (cells[-1], unit and f"[{unit}]")))))
    elif "event" in entry.event:
        words = "  ".join(
            f"{name}={value}" for name, value in entry.event.items() if name != "event"
        )
        text = f"{entry.event['event']:<8} {words}"
    else:
        text = entry.text
    if cells is None and unit:
        text = f"[{unit}] {text}"
    style = "red" if entry.bad else "yellow" if entry.effect == "none" else ""
    terminal.out.print(f"{when} {printable(text)}", style=style, markup=False, soft_wrap=True)


def _log_titles(terminal: Terminal) -> None:
    """The titles of the columns, for people; grep and awk do without."""
    from optictl.observe import logs

    if terminal.out.is_terminal:
        titles = logs.line(title for title, _ in logs.COLUMNS)
        terminal.out.print(f"{'time':<14} {titles}", style="bold", soft_wrap=True)


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S%z")


@contextmanager
def top(terminal: Terminal, name: str, interval: float) -> Iterator[Show]:
    """Shows screens: on a terminal's whole screen, in a pipe as a line, or as a JSON object.

    Only a terminal shows one again that is not fresh.
    """
    console = terminal.out
    if terminal.form == "json":
        yield _when_fresh(
            lambda screen: terminal.line(
                json.dumps(
                    {"schema": SCHEMA, "time": _now(), **screen.as_dict()}, ensure_ascii=False
                )
            )
        )
    elif not console.is_terminal:
        yield _when_fresh(lambda screen: terminal.line(_top_line(screen)))
    else:
        from rich.live import Live

        with Live(console=console, screen=True, auto_refresh=False) as live:
            yield lambda screen, mode: live.update(
                _top_help(console.width)
                if mode.help
                else _top_screen(screen, name, interval, mode.paused, *console.size),
                refresh=True,
            )


def _when_fresh(write: Callable[[Screen], None]) -> Show:
    return lambda screen, mode: write(screen) if mode.fresh else None


#: What the screen of top says, for its help.
_TOP_HELP = (
    ("p", "pauses and continues; the service goes on"),
    ("?", "shows this help, and leaves it"),
    ("q", "quits"),
    ("", ""),
    ("run, wait", "requests that run a strategy, of at most limits.max_in_flight; and the queue"),
    ("refused", "requests that the guard refused before a call went upstream"),
    ("p50, p95", "half, and 95 %, of the upstream calls took at most this long. ~: an estimate"),
    ("", "from the buckets of a histogram. >: longer than its last bucket"),
    ("calls", "upstream calls, of all requests of a strategy"),
    ("tokens", "prompt and completion tokens that the upstream reported"),
    ("no effect", "requests no better than a plain call, of the last ones that were judged"),
    ("restarts", "automatic restarts of all units since they were started"),
    ("-", "not known, or not known yet: rates need two snapshots"),
)


def _top_help(width: int) -> Group:
    from rich.console import Group
    from rich.text import Text

    indent = max(len(name) for name, _ in _TOP_HELP) + 2
    lines = []
    for name, words in _TOP_HELP:
        first, *others = broken(Text(words), max(20, width - indent)) or [Text()]
        lines.append(Text(f"{name:<{indent}}", "bold") + first)
        lines += [Text(" " * indent) + other for other in others]
    return Group(*lines)


def _estimate(seconds: float | None, last: float | None) -> str:
    """A quantile with its mark: an estimate, or longer than the last bucket."""
    if seconds is None:
        return "-"
    return f"{'>' if seconds == last else '~'}{seconds:.2f} s"


def _top_line(screen: Screen) -> str:
    total = screen.total
    figures = {
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
        "no_effect": _no_effect(total),
        # estimates: from the buckets of a histogram
        "est_call_p50_s": number(screen.p50, ".3f"),
        "est_call_p95_s": number(screen.p95, ".3f"),
        "restarts": "-" if screen.restarts is None else str(screen.restarts),
        "memory_mib": number(None if screen.memory is None else screen.memory / 2**20, ".0f"),
    }
    if screen.noted:
        states = {unit.name: unit.state.replace(" ", "") for unit in screen.units}
        figures["units"] = ",".join(f"{name}:{states[name]}" for name in screen.noted)
    line = f"{_now()} {' '.join(f'{name}={value}' for name, value in figures.items())}"
    return f"{line} problem={json.dumps(one_line(screen.problem))}" if screen.problem else line


def _top_screen(
    screen: Screen, name: str, interval: float, paused: bool, width: int, height: int
) -> Group:
    from rich.console import Group
    from rich.text import Text

    head = [line for text in _head(screen, name) for line in broken(text, width)]
    # the strategies leave room for what is in flight: the busiest are shown
    busiest = sorted(screen.rates, key=lambda r: (-r.in_flight, -(r.requests or 0)))
    rates, _ = _most(
        lambda count: _rates([*(r for r in screen.rates if r in busiest[:count]), screen.total]),
        max(1, len(busiest)),
        height // 3 + 2,
        width,
    )
    foot = broken(_foot(screen, interval, paused), width)
    # two empty lines, and one that says how many are left out
    room = height - len(head) - rates.lines(width) - len(foot) - 3
    waiting, shown = _most(
        lambda count: _in_flight(screen.in_flight[:count]), len(screen.in_flight), room, width
    )
    more = len(screen.in_flight) - shown
    left_out = Text(f"and {more} more" if more > 0 else "")
    tables = (rates.fitted(width), Text(""), waiting.fitted(width))
    return Group(*head, Text(""), *tables, left_out, *foot)


def _most(table: Callable[[int], Table], rows: int, lines: int, width: int) -> tuple[Table, int]:
    """The table with as many of its rows as fit these lines, at least one; and how many."""
    shown = min(rows, max(1, lines))
    while True:
        made = table(shown)
        needed = made.lines(width)
        if shown <= 1 or needed <= lines:
            return made, shown
        shown = max(1, min(shown - 1, shown * lines // needed))


def _head(screen: Screen, name: str) -> list[Text]:
    from rich.markup import escape
    from rich.text import Text

    ready = f"[{STATUS_STYLE['pass']}]ready[/]" if screen.ready else "[bold red]not ready[/]"
    restarts = "" if screen.restarts is None else f"; restarts {screen.restarts}"
    workers = (
        f"; workers {screen.workers} of {screen.workers_wanted}"
        if (screen.workers_wanted or 1) > 1
        else ""
    )
    most = "" if screen.max_in_flight is None else f" of {screen.max_in_flight}"
    queued = "" if screen.queued is None else f"{screen.queued} wait, "
    lines = [
        f"[bold]{escape(name)}[/]  {escape(screen.state)}, {ready}"
        f"  up {span(screen.uptime)}  memory {memory(screen.memory)}",
        f"requests: {screen.total.in_flight}{most} run,"
        f" {queued}refused {number(screen.refused)}/min{restarts}",
        f"[bold red]{escape(one_line(screen.problem))}[/]"
        if screen.problem
        else f"upstream: p50 {_estimate(screen.p50, screen.last_bucket)},"
        f" p95 {_estimate(screen.p95, screen.last_bucket)};"
        f" failed {number(screen.upstream_failed)} calls/min{workers}",
        *(f"[yellow]{escape(one_line(line))}[/]" for line in _noted(screen)),
    ]
    return [Text.from_markup(line) for line in lines]


def _noted(screen: Screen) -> list[str]:
    """A line for each unit that a person must see."""
    return [
        f"{unit.name}  {unit.state}{f': {unit.doing}' if unit.doing else ''}"
        for unit in screen.units
        if unit.name in screen.noted
    ]


def _rates(rows: list[Rates]) -> Table:
    """The rates of strategies; the last row is their sum."""
    from rich.markup import escape

    titles = ("in flight", "requests", "failed", "calls", "tokens", "no effect")
    table = Table("per minute", *titles, numbers=titles)
    for rates in rows:
        figures = (rates.requests, rates.failed, rates.calls)
        table.add(
            escape(rates.strategy),
            str(rates.in_flight),
            *map(number, figures),
            number(rates.tokens, ".0f"),
            _no_effect(rates),
            style="bold" if rates is rows[-1] else "",
        )
    return table


def _no_effect(rates: Rates) -> str:
    """Requests without effect, of the last ones that were judged."""
    return "-" if rates.judged is None else f"{rates.degraded}/{rates.judged}"


def _in_flight(requests: Iterable[InFlight]) -> Table:
    from rich.markup import escape

    titles = ("age", "calls", "waiting", "trace")
    table = Table("in flight", *titles, numbers=titles[:3])
    for each in requests:
        figures = (span(each.age), str(each.calls), str(each.waiting))
        table.add(escape(each.model), *figures, escape(each.trace[:8]))
    return table


def _foot(screen: Screen, interval: float, paused: bool) -> Text:
    from rich.text import Text

    last = (
        "[reverse] paused [/]  p continues"
        if paused
        else f"every {interval:g} s, rates over {screen.seconds:.0f} s  p pauses"
    )
    return Text.from_markup(f"[dim]{last}  ? help  q quits[/]")
