"""Numbers as people read them."""

from __future__ import annotations

import pytest

from optictl.output import figures


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (950, "950"), (9_999, "9999"), (12_345, "12.3k"), (4_560_000, "4.56M"), (2e9, "2G")],
)
def test_a_number_is_short(value: float, text: str) -> None:
    assert figures.short(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "-"),
        (59.9, "59 s"),
        (60, "1 min 0 s"),
        (306, "5 min 6 s"),
        (3_600 * 25 + 61, "1 d 1 h"),
        (7_380, "2 h 3 min"),
    ],
)
def test_a_length_of_time_has_two_words(seconds: float | None, text: str) -> None:
    assert figures.span(seconds) == text
