"""A comparison as a self-contained HTML page: no network, and no script but its own. Pure.

Horizontal places are percentages of the width of a drawing, so that texts keep their size on every
screen; vertical places are pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from optictl.deployment import render
from optictl.requests.compare import summary
from optictl.requests.compare.questions import Question
from optictl.requests.compare.summary import Record, Row

#: Pixels from one bar to the next, and above the first one.
_STEP, _ABOVE = 42, 16
#: Pixels: the places of 100 % and of 0 % in the plot.
_TOP, _BOTTOM = 20, 290
#: Percent: the places of the cheapest and of the most expensive mark in the plot.
_LEFT, _RIGHT = 9.0, 94.0


@dataclass(frozen=True)
class Origin:
    """What is needed to repeat a comparison.

    `facts`: (name, value): models, versions, prices. `header`: the first line of the results file.
    """

    command: str = ""
    facts: tuple[tuple[str, str], ...] = ()
    header: str = ""


@dataclass(frozen=True)
class Bar:
    """A bar from the left edge to `end`, with `words`.

    It has a whisker from `low` to `high` if they differ.
    """

    label: str
    y: int
    end: float
    low: float
    high: float
    words: str
    plain: bool


@dataclass(frozen=True)
class Chart:
    """Bars below each other. `ticks` are (place on the axis, label)."""

    title: str
    height: int
    bars: list[Bar]
    ticks: list[tuple[float, str]]


@dataclass(frozen=True)
class Point:
    """A mark of the plot. `low` and `high` are the ends of its interval; `high` is above."""

    number: int
    label: str
    words: str
    x: float
    y: float
    low: float
    high: float
    kind: Literal["plain", "better", "worse", "noise"]


@dataclass(frozen=True)
class Plot:
    """Accuracy against cost. `rows` and `columns` are (place, label) of the two axes.

    `baselines`: the accuracy of each plain model.
    """

    title: str
    points: list[Point]
    rows: list[tuple[float, str]]
    columns: list[tuple[float, str]]
    baselines: list[float]


def _place(value: float, whole: float) -> float:
    return round(100 * min(1.0, value / whole), 2) if whole else 0.0


def _chart(
    title: str,
    rows: Sequence[Row],
    values: Sequence[tuple[float, float, float, str]],
    whole: float,
    unit: str,
) -> Chart:
    """`values` are (value, low, high, words) of each row; the axis goes from 0 to `whole`."""
    bars = [
        Bar(
            r.subject.label,
            _ABOVE + _STEP * i,
            _place(value, whole),
            _place(low, whole),
            _place(high, whole),
            words,
            not r.subject.strategy,
        )
        for i, (r, (value, low, high, words)) in enumerate(zip(rows, values, strict=True))
    ]
    ticks = [(25.0 * quarter, f"{whole * quarter / 4:.4g}{unit}") for quarter in range(5)]
    return Chart(title, _ABOVE + _STEP * len(rows) + 10, bars, ticks)


def charts(rows: Sequence[Row]) -> list[Chart]:
    """Right answers with intervals; tokens and seconds (p50, whisker to p95) per question."""
    shares = [
        (r.right / r.answered if r.answered else 0.0, *r.interval, f"{r.right}/{r.answered}")
        for r in rows
    ]
    seconds = [(r.p50 or 0.0, r.p95 or 0.0) for r in rows]
    tokens = [_tokens(r) for r in rows]
    return [
        _chart(
            "Right answers, percent, with 95 % intervals",
            rows,
            [(100 * v, 100 * a, 100 * b, w) for v, a, b, w in shares],
            100,
            " %",
        ),
        _chart(
            "Tokens per question",
            rows,
            [(t, t, t, f"{t:.0f}") for t in tokens],
            _round_up(max(tokens, default=0)),
            "",
        ),
        _chart(
            "Seconds per question: median, and 95th percentile",
            rows,
            [(half, half, most, f"{half:.1f} / {most:.1f}") for half, most in seconds],
            _round_up(max((most for _, most in seconds), default=0)),
            " s",
        ),
    ]


def _tokens(row: Row) -> float:
    """Tokens per answered question."""
    return row.tokens / row.answered if row.answered else 0.0


def _round_up(value: float) -> float:
    """The next 1, 2, 4 or 8 times a power of ten; quarters of the axis are round numbers."""
    scale = 1e-6
    while scale * 8 < value:
        scale *= 10
    return next((scale * step for step in (1, 2, 4, 8) if scale * step >= value), scale)


def plot(rows: Sequence[Row], *, priced: bool) -> Plot:
    """Accuracy against cost: the price of a question where prices are known, else its tokens."""
    answered = [row for row in rows if row.answered]
    priced = priced and all(row.cost is not None for row in answered)
    costs = [_cost(row) if priced else _tokens(row) for row in answered]
    whole = _round_up(max(costs, default=0.0))
    points = [
        _point(number, row, cost, whole, priced=priced)
        for number, (row, cost) in enumerate(zip(answered, costs, strict=True), start=1)
    ]
    unit = "cost of a question" if priced else "tokens per question"
    return Plot(
        f"Accuracy (right answers) against {unit}",
        points,
        [(_height(quarter / 4), f"{25 * quarter} %") for quarter in range(5)],
        [(_across(quarter / 4), f"{whole * quarter / 4:.4g}") for quarter in range(5)],
        [_height(row.right / row.answered) for row in answered if _is_baseline(row)],
    )


def _is_baseline(row: Row) -> bool:
    return not row.subject.strategy and row.subject.samples == 1


def _cost(row: Row) -> float:
    return (row.cost or 0.0) / row.answered


def _point(number: int, row: Row, cost: float, whole: float, *, priced: bool) -> Point:
    low, high = row.interval
    share = row.right / row.answered
    spent = f"{_cost(row):.2g} a question, " if priced else ""
    words = (
        f"{row.right} of {row.answered} right ({100 * low:.0f} to {100 * high:.0f} %), "
        f"{spent}{_tokens(row):.0f} tokens a question"
    )
    verdict = row.beside.verdict if row.beside else ""
    if verdict:
        words += f"; {verdict}"
    kind: Literal["plain", "better", "worse", "noise"] = "noise"
    if not row.subject.strategy:
        kind = "plain"
    elif verdict == "better" or verdict == "worse":
        kind = verdict
    x = _across(cost / whole if whole else 0.0)
    places = (_height(share), _height(low), _height(high))
    return Point(number, row.subject.label, words, x, *places, kind)


def _across(share: float) -> float:
    return round(_LEFT + (_RIGHT - _LEFT) * min(1.0, share), 2)


def _height(share: float) -> float:
    return round(_BOTTOM - (_BOTTOM - _TOP) * share, 1)


def render_page(
    rows: Sequence[Row],
    questions: Sequence[Question],
    records: Sequence[Record],
    *,
    content: bool,
    priced: bool,
    when: str,
    origin: Origin = Origin(),
) -> str:
    """The page. It shows questions and answers only with `content`."""
    by_question = [
        {record.question: record for record in summary.answers(row.subject, questions, records)}
        for row in rows
    ]
    shown = records if content else [replace(record, answer=None) for record in records]
    return render.page(
        "compare.html.j2",
        rows=rows,
        verdict=summary.verdict(rows),
        plot=plot(rows, priced=priced),
        charts=charts(rows),
        sentences=[text for row in rows for text in summary.sentences(row)],
        questions=questions,
        answers={
            q.id: [(r, of.get(q.id)) for r, of in zip(rows, by_question, strict=True)]
            for q in questions
        },
        content=content,
        priced=priced,
        when=when,
        origin=origin,
        data=[origin.header, *(record.line() for record in shown)] if origin.header else [],
        script=render.script("sort.js.j2"),
    )
