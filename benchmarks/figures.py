"""Figures and rows: medians with their range, and the ratio to the alternative."""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

NOT_MEASURED = "not measured"


def number(value: float) -> str:
    """A number with three significant digits, without an exponent."""
    if value == int(value) and abs(value) < 1000:
        return str(int(value))
    digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2
    return f"{value:,.{digits}f}"


@dataclass(frozen=True)
class Figure:
    """The measurements of one side, one value per run."""

    runs: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.runs)

    def __str__(self) -> str:
        if len(self.runs) == 1:
            return f"{number(self.median)} (1 run)"
        return f"{number(self.median)} ({number(min(self.runs))} to {number(max(self.runs))})"

    def as_dict(self) -> dict[str, Any]:
        return {
            "median": self.median,
            "min": min(self.runs),
            "max": max(self.runs),
            "runs": list(self.runs),
        }


def figure(runs: Iterable[float | None]) -> Figure | None:
    """A figure. None when a value is missing."""
    values = tuple(runs)
    return (
        Figure(tuple(v for v in values if v is not None)) if values and None not in values else None
    )


def ratio_text(ratio: float) -> str:
    """A ratio as text: `1/21.6` when much smaller than 1, `10.2` when larger."""
    return (
        f"1/{1 / ratio:.1f}"
        if 0 < ratio < 0.67
        else f"{ratio:.2f}"
        if ratio < 10
        else f"{ratio:.1f}"
    )


@dataclass(frozen=True)
class Row:
    """A comparison. `limit`: the ratio optictl / alternative should be below (or above) it."""

    what: str
    unit: str
    ours: Figure | None
    against: str
    other: Figure | None
    limit: float | None = None
    above: bool = False

    @property
    def ratio(self) -> float | None:
        """optictl / alternative, of the medians."""
        if (
            self.ours is None
            or self.other is None
            or self.other.median <= 0
            or self.ours.median <= 0
        ):
            return None
        return self.ours.median / self.other.median

    @property
    def range(self) -> tuple[float, float] | None:
        """The lowest and highest ratio of paired runs. None without pairs."""
        if (
            self.ratio is None
            or self.ours is None
            or self.other is None
            or len(self.ours.runs) != len(self.other.runs)
        ):
            return None
        pairs = [a / b for a, b in zip(self.ours.runs, self.other.runs, strict=True) if b > 0]
        return (min(pairs), max(pairs)) if len(pairs) > 1 else None

    @property
    def met(self) -> bool | None:
        """Whether the ratio is within the limit. None without a limit or a measurement."""
        if self.limit is None or self.ratio is None:
            return None
        return self.ratio > self.limit if self.above else self.ratio < self.limit

    @property
    def expected(self) -> str:
        return (
            ""
            if self.limit is None
            else f"{'>' if self.above else '<'} {ratio_text(self.limit).removesuffix('.0')}"
        )

    def cells(self) -> list[str]:
        """The row as text: what, optictl, alternative, ratio, expected, met."""
        ratio = NOT_MEASURED if self.ratio is None else f"**{ratio_text(self.ratio)}**"
        if self.range is not None:
            ratio += f" ({ratio_text(self.range[0])} to {ratio_text(self.range[1])})"
        return [
            f"{self.what}, {self.unit}",
            str(self.ours or NOT_MEASURED),
            f"{self.against}: {self.other or NOT_MEASURED}",
            ratio,
            self.expected,
            {True: "yes", False: "**no**", None: ""}[self.met],
        ]

    def as_dict(self) -> dict[str, Any]:
        return {
            "what": self.what,
            "unit": self.unit,
            "optictl": self.ours and self.ours.as_dict(),
            "against": self.against,
            "alternative": self.other and self.other.as_dict(),
            "ratio": self.ratio,
            "ratio_range": self.range,
            "expected": self.expected,
            "met": self.met,
        }


@dataclass
class Part:
    """The result of a part: its rows, and notes about the method."""

    rows: list[Row] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
