"""A comparison as a self-contained HTML page: no scripts, no network. Pure.

Lengths are in the units of the SVG viewBox.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from optictl.deployment import render
from optictl.requests.compare import summary
from optictl.requests.compare.questions import Question
from optictl.requests.compare.summary import Record, Row

WIDTH = 720
_LEFT, _RIGHT = 190, 90
_STEP = 30


@dataclass(frozen=True)
class Bar:
    """A bar from the left edge to `end`, followed by `words`.

    It has a whisker from `low` to `high` if they differ.
    """

    label: str
    y: float
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


def _place(value: float, whole: float) -> float:
    return round(_LEFT + (WIDTH - _LEFT - _RIGHT) * (value / whole if whole else 0), 1)


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
            26 + _STEP * i,
            _place(value, whole),
            _place(low, whole),
            _place(high, whole),
            words,
            not r.subject.strategy,
        )
        for i, (r, (value, low, high, words)) in enumerate(zip(rows, values, strict=True))
    ]
    ticks = [
        (_place(whole * quarter / 4, whole), f"{whole * quarter / 4:.4g}{unit}")
        for quarter in range(5)
    ]
    return Chart(title, 40 + _STEP * len(rows) + 12, bars, ticks)


def charts(rows: Sequence[Row]) -> list[Chart]:
    """Right answers with intervals; tokens and seconds (p50, whisker to p95) per question."""
    shares = [
        (r.right / r.answered if r.answered else 0.0, *r.interval, f"{r.right}/{r.answered}")
        for r in rows
    ]
    seconds = [(r.p50 or 0.0, r.p95 or 0.0) for r in rows]
    tokens = [t if r.answered and (t := r.tokens / r.answered) else 0.0 for r in rows]
    return [
        _chart(
            "Right answers, percent",
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


def _round_up(value: float) -> float:
    """The next 1, 2, 4 or 8 times a power of ten; quarters of the axis are round numbers."""
    scale = 1e-3
    while scale * 8 < value:
        scale *= 10
    return next((scale * step for step in (1, 2, 4, 8) if scale * step >= value), scale)


def render_page(
    rows: Sequence[Row],
    questions: Sequence[Question],
    records: Sequence[Record],
    *,
    content: bool,
    priced: bool,
    when: str,
) -> str:
    """The page. It shows questions and answers only with `content`."""
    by_question = [
        {record.question: record for record in summary.answers(row.subject, questions, records)}
        for row in rows
    ]
    return render.page(
        "compare.html.j2",
        rows=rows,
        charts=charts(rows),
        width=WIDTH,
        left=_LEFT,
        sentences=[text for row in rows for text in summary.sentences(row)],
        questions=questions,
        answers={
            q.id: [(r, of.get(q.id)) for r, of in zip(rows, by_question, strict=True)]
            for q in questions
        },
        content=content,
        priced=priced,
        when=when,
    )
