"""The figures of docs/explanation/performance.md, from the results that the benchmarks wrote."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import results
from benchmarks.figures import number, ratio_text

_ROOT = Path(__file__).resolve().parent.parent
PAGE = _ROOT / "docs/explanation/performance.md"
_BENCHMARKS = _ROOT / "benchmarks"
#: The programs of LOAD.md.
_GUARDED, _TWO, _LIMITED, _BARE = "guarded", "guarded, 2 workers", "guarded, 64 at a time", "bare"
_FORKS = 50


@dataclass(frozen=True)
class Line:
    """A line of the page's table: a row of results.json in the words of the page."""

    label: str
    part: str
    what: str
    #: The row's `against`, where several rows have the same `what`, and its name in the table.
    against: str
    alternative: str


_FULL = "full install"
_SAME = "OptiLLM alone, same closure"
_TYPER = "Typer hello-world"
_LINES = (
    Line("Installed, on disk", "install", "on disk", _FULL, _FULL),
    Line("Downloaded", "install", "downloaded", _FULL, _FULL),
    Line("Packages", "install", "packages", _FULL, _FULL),
    Line("Memory at rest (RSS)", "start", "RSS at rest", f"{_FULL}, bytecode written", _FULL),
    Line(
        "Start to first 200",
        "start",
        "start to first 200",
        f"{_FULL}, bytecode written",
        f"{_FULL}, with bytecode",
    ),
    Line(
        "Start to first 200",
        "start",
        "start to first 200",
        f"{_FULL}, bytecode not writable",
        f"{_FULL}, cannot write bytecode",
    ),
    *(
        Line(
            f"{label}, `{strategy}` ({calls})",
            "serve",
            f"{strategy} ({calls}): {what}",
            "bare optillm, same closure",
            _SAME,
        )
        for label, what in (
            ("Added latency, p50", "added latency, p50"),
            ("Requests/s at 8 clients", "requests/s at 8 clients"),
            ("CPU per request", "CPU per request"),
        )
        for strategy, calls in (("re2", "1 upstream call"), ("moa", "3 upstream calls"))
    ),
    Line(
        "`optictl check`, whole, warm",
        "check",
        "`optictl check`, warm: wall time",
        "a second",
        "one second",
    ),
    Line(
        "A request while checks run, p50",
        "check",
        "`bon` through the service, with checks beside it: p50",
        "without",
        "without checks",
    ),
    *(
        Line(f"`{command}`", "cli", f"`{command}`: wall time", _TYPER, _TYPER)
        for command in ("optictl --version", "optictl render-unit", "optictl check --only config")
    ),
)


def parts() -> dict[str, str]:
    """Marker in the page -> its text."""
    return {
        "figures": figures(results.read(_BENCHMARKS)),
        "load": load(_read("LOAD.md")),
        "strategies": strategies(_read("STRATEGIES.md")),
        "effect": effect(_read("EFFECT.md")),
        "restarts": restarts(_read("RESTARTS.md")),
        "fleet": fleet(_read("FLEET.md")),
    }


def figures(measured: dict[str, Any]) -> str:
    """The table of medians.

    Raises:
        ValueError: results.json has no such row, or not exactly one.
    """
    lines = ["| | optictl | Alternative | Ratio | Goal |", "|---|---|---|---|---|"]
    for line in _LINES:
        row = _row(measured, line)
        goal = row["expected"] + (", not met" if row["met"] is False else "")
        unit = {"number": "", "1/s": ""}.get(row["unit"], f" {row['unit']}")
        ours, other = (
            f"{number(row[side]['median'])}{unit}" for side in ("optictl", "alternative")
        )
        cells = [line.label, ours, f"{line.alternative}: {other}", ratio_text(row["ratio"]), goal]
        lines.append(f"| {' | '.join(cells)} |".replace("|  |", "| |"))
    return "\n".join(lines)


def _row(measured: dict[str, Any], line: Line) -> dict[str, Any]:
    rows = [
        row
        for row in measured.get(line.part, {}).get("rows", ())
        if (row["what"], row["against"]) == (line.what, line.against)
    ]
    if len(rows) != 1:
        raise ValueError(f"results.json: not one row {line.what!r} against {line.against!r}")
    row: dict[str, Any] = rows[0]
    return row


def load(text: str) -> str:
    """Answers per second, and the delay of /health at the default limit."""
    rows = list(_rows(text))
    rates = {
        program: max(_float(row["answers/s"]) for row in rows if _has(row, program, "answers/s"))
        for program in (_GUARDED, _TWO, _BARE)
    }
    limited = [row for row in rows if _has(row, _LIMITED, "worst ms")]
    few, many = ([row for row in limited if row["clients"] == clients] for clients in ("64", "256"))
    worst = [_float(row["worst ms"]) for row in many]
    return (
        "A strategy with one call reaches "
        f"{number(rates[_GUARDED])} answers/s, and {number(rates[_TWO])} with `workers: 2`;\n"
        f"OptiLLM alone reaches {number(rates[_BARE])}. At the default limit of 64 requests "
        "with 64 clients, `/health`\n"
        f"never took longer than {number(max(_float(row['worst ms']) for row in few))} ms. "
        "With 256 clients 95 % took at most "
        f"{number(max(_float(row['/health p95 ms']) for row in many))} ms;\n"
        f"the slowest one of a run took {number(min(worst))} to {number(max(worst))} ms, while all "
        "clients connected."
    )


def _has(row: dict[str, str], program: str, column: str) -> bool:
    return row.get("program") == program and column in row


def strategies(text: str) -> str:
    """How long clients wait, and what many requests at the same time take.

    Raises:
        ValueError: STRATEGIES.md has no such table.
    """
    rows = list(_rows(text))
    waits, crowds = ([row for row in rows if key in row] for key in ("goal", "calls at once"))
    if not waits or not crowds:
        raise ValueError("STRATEGIES.md has no figures")
    lines = ["| | Guarded | OptiLLM alone | Goal |", "|---|---|---|---|"]
    for row in waits:
        label = row["what"].removesuffix(", s")
        unit = " s" if label != row["what"] else ""
        figures = (_median(row[side], unit) for side in ("guarded", "bare"))
        goal = row["goal"] + (", not met" if "no" in row["met"] else "")
        lines.append(f"| {' | '.join((label, *figures, goal))} |")
    most = {
        program: [
            max(int(row[column].replace(",", "")) for row in crowds if row["program"] == program)
            for column in ("RSS", "threads")
        ]
        for program in ("guarded", "bare")
    }
    (ours, threads), (alone, of_alone) = most["guarded"], most["bare"]
    return "\n".join(
        [
            *lines,
            "",
            f"With {max(int(row['answered']) for row in crowds)} requests of a strategy at once, "
            f"the service takes at most {number(ours)} MiB and {threads} threads;",
            f"OptiLLM alone takes {number(alone)} MiB and {of_alone} threads.",
        ]
    )


def _median(figure: str, unit: str) -> str:
    """The median of a figure with its range, and its unit."""
    value = figure.split(" (")[0]
    return f"{value}{unit}" if value[:1].isdigit() else value


def effect(text: str) -> str:
    """Each strategy: requests with effect, and right answers beside the plain model.

    Raises:
        ValueError: EFFECT.md has no row of the plain model.
    """
    rows = list(_rows(text))
    shares = {(row["strategy"], row["fixes"]): row["had effect"] for row in rows if "fixes" in row}
    models = {row["model"]: row for row in rows if "model" in row}
    if "plain" not in models:
        raise ValueError("EFFECT.md has no row of the plain model")
    head = "| | With effect, fixes off | fixes on | Right | Plain model as often | Tokens |"
    lines = [head, "|---|---|---|---|---|---|"]
    lines.append(
        f"| plain model | | | {models['plain']['right']} | | {models['plain']['tokens']} |"
    )
    for strategy in dict.fromkeys(strategy for strategy, _ in shares):
        own, often = models[f"{strategy}, fixes on"], models[f"{strategy}, plain as often"]
        cells = [shares[strategy, "off"], shares[strategy, "on"], own["right"], often["right"]]
        lines.append(f"| `{strategy}` | {' | '.join(cells)} | {own['tokens']} |")
    return "\n".join(lines)


def restarts(text: str) -> str:
    """The total of all runs."""
    (total,) = (row for row in _rows(text) if row["date"] == "all")
    lost = sum(
        int(count)
        for column, count in total.items()
        if column.split(" (")[0] in ("refused", "dropped", "not 200")
    )
    outcome = (
        "no request was refused,\ndropped or answered with an error"
        if not lost
        else f"{lost:,} requests were refused,\ndropped or answered with an error"
    )
    return (
        f"In {int(total['restarts']):,} restarts, under {int(total['GET ok']):,} short requests "
        f"and {int(total['strategies ok']):,} strategies, {outcome}. "
        f"The slowest short request took {number(float(total['worst s']))} s."
    )


def fleet(text: str) -> str:
    """The forecast for many hosts.

    Raises:
        ValueError: FLEET.md has no forecast.
    """
    rows = list(_rows(text))
    sizes = sorted({int(row["hosts"]) for row in rows if "hosts" in row})
    forecast = [row for row in rows if row.get("`--forks`") == str(_FORKS)]
    hosts, hours = (
        re.search(r"^## ([\d,]+) hosts", text, re.M),
        re.search(r"take ([\d.]+) h\.", text),
    )
    if len(forecast) != 1 or not hosts or not hours:
        raise ValueError("FLEET.md has no forecast")
    return (
        f"Roll-outs over {', '.join(map(str, sizes[:-1]))} and {sizes[-1]} simulated hosts. "
        f"They estimate {forecast[0]['first roll-out, min']} minutes\n"
        f"for {hosts[1]} hosts at {_FORKS} at a time, and {hours[1]} hours one after the other."
    )


def _rows(text: str) -> Iterator[dict[str, str]]:
    """The rows of every table, by column. A column that repeats a name has its number behind it."""
    head: list[str] = []
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")] if line[:1] == "|" else []
        if not cells:
            head = []
        elif not head:
            head = [
                f"{name} ({cells[:place].count(name) + 1})" if name in cells[:place] else name
                for place, name in enumerate(cells)
            ]
        elif not set("".join(cells)) <= {"-", ":"}:
            yield dict(zip(head, cells, strict=True))


def _float(text: str) -> float:
    return float(text.replace(",", ""))


def _read(name: str) -> str:
    return (_BENCHMARKS / name).read_text(encoding="utf-8")
