"""Numbers as people read them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    pass


def short(value: float) -> str:
    """A number in at most five signs: 950, 12.3k, 4.56M."""
    for scale, sign in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if value >= scale:
            return f"{value / (1e3 if sign == 'k' else scale):.3g}{sign}"
    return f"{value:.0f}"


def number(value: float | None, form: str = ".1f") -> str:
    return "-" if value is None else format(value, form)


def span(seconds: float | None) -> str:
    """A length of time in two words: 3 d 4 h, 5 min 6 s."""
    if seconds is None:
        return "-"
    whole = int(seconds)
    for unit, size, below, smaller in (
        ("d", 86400, "h", 3600),
        ("h", 3600, "min", 60),
        ("min", 60, "s", 1),
    ):
        if whole >= size:
            return f"{whole // size} {unit} {whole % size // smaller} {below}"
    return f"{whole} s"


def memory(size: float | None) -> str:
    return "-" if size is None else f"{size / 2**20:.0f} MiB"
