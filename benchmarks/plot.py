"""Small line charts in a self-contained SVG file. Both axes are logarithmic."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from jinja2 import Environment

from benchmarks.figures import number

_WIDTH, _HEIGHT, _COLUMNS = 250, 170, 3
_LEFT, _TOP, _RIGHT, _BOTTOM = 44, 26, 12, 28
_COLOURS = ("#2f6fb3", "#c4622d", "#4a9a5a", "#8a5fb0")
#: The lowest y: a logarithm needs a positive number.
_LEAST = 0.01
_SVG = """\
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {{ width }} {{ height }}"
 font-family="system-ui, sans-serif" font-size="10">
<rect width="100%" height="100%" fill="#fff"/>
{% for name, colour in legend %}
<rect x="{{ 44 + 130 * loop.index0 }}" y="8" width="14" height="4" fill="{{ colour }}"/>
<text x="{{ 62 + 130 * loop.index0 }}" y="14">{{ name }}</text>
{% endfor %}
{% for chart in charts %}
<g transform="translate({{ chart.x }} {{ chart.y }})">
<text x="{{ left }}" y="16" font-weight="bold">{{ chart.title }}</text>
{% for x, words in chart.across %}
<line x1="{{ x }}" x2="{{ x }}" y1="{{ top }}" y2="{{ floor }}" stroke="#e3e5e8"/>
<text x="{{ x }}" y="{{ floor + 13 }}" text-anchor="middle" fill="#667">{{ words }}</text>
{% endfor %}
{% for y, words in chart.up %}
<line x1="{{ left }}" x2="{{ end }}" y1="{{ y }}" y2="{{ y }}" stroke="#e3e5e8"/>
<text x="{{ left - 4 }}" y="{{ y + 3 }}" text-anchor="end" fill="#667">{{ words }}</text>
{% endfor %}
{% for points, colour in chart.lines %}
<polyline points="{{ points }}" fill="none" stroke="{{ colour }}" stroke-width="1.8"/>
{% endfor %}
</g>
{% endfor %}
</svg>
"""


@dataclass(frozen=True)
class Chart:
    """A chart: line name -> points (x, y). x must be above 0; a y below 0.01 is drawn as 0.01."""

    title: str
    lines: Mapping[str, Sequence[tuple[float, float]]]


def _scale(low: float, high: float, start: float, end: float) -> tuple[float, float]:
    """(a, b) of a * log10(value) + b, which maps `low` to `start` and `high` to `end`."""
    span = math.log10(high / low) or 1.0
    return (end - start) / span, start - (end - start) / span * math.log10(low)


def _placed(chart: Chart, index: int) -> dict[str, object]:
    points = [point for line in chart.lines.values() for point in line]
    right, floor = _WIDTH - _RIGHT, _HEIGHT - _BOTTOM
    xs, ys = [x for x, _ in points], [max(y, _LEAST) for _, y in points]
    low, high = 10 ** math.floor(math.log10(min(ys))), 10 ** math.ceil(math.log10(max(*ys, 2.0)))
    ax, bx = _scale(min(xs), max(xs), _LEFT, right)
    ay, by = _scale(low, high, floor, _TOP)

    def x_of(value: float) -> float:
        return round(ax * math.log10(value) + bx, 1)

    def y_of(value: float) -> float:
        return round(ay * math.log10(max(value, _LEAST)) + by, 1)

    powers = range(round(math.log10(low)), round(math.log10(high)) + 1)
    return {
        "title": chart.title,
        "x": _WIDTH * (index % _COLUMNS),
        "y": 20 + _HEIGHT * (index // _COLUMNS),
        "across": [(x_of(x), f"{x:g}") for x in sorted(set(xs)) if x in (1, 4, 16, 64, 256)],
        "up": [(y_of(10**power), number(10.0**power)) for power in powers],
        "lines": [
            (" ".join(f"{x_of(x)},{y_of(y)}" for x, y in line), colour)
            for line, colour in zip(chart.lines.values(), _COLOURS, strict=False)
        ],
    }


def draw(charts: Sequence[Chart]) -> str:
    """The charts as SVG, three in a row."""
    rows = math.ceil(len(charts) / _COLUMNS)
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(_SVG).render(
        width=_WIDTH * _COLUMNS,
        height=20 + _HEIGHT * rows,
        left=_LEFT,
        top=_TOP,
        floor=_HEIGHT - _BOTTOM,
        end=_WIDTH - _RIGHT,
        legend=list(zip(charts[0].lines, _COLOURS, strict=False)),
        charts=[_placed(chart, index) for index, chart in enumerate(charts)],
    )
