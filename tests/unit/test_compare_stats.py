"""Intervals and tests, against published figures, exact sums and simulated comparisons."""

from __future__ import annotations

import itertools
import random
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from optictl.requests.compare import stats

COUNTS = st.integers(0, 60)


@pytest.mark.parametrize(
    ("right", "asked", "low", "high"),
    # Newcombe, Stat. Med. 17 (1998), 857-872, table I, method 3
    [
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_as_published(right: int, asked: int, low: float, high: float) -> None:
    assert stats.wilson(right, asked) == pytest.approx((low, high), abs=5e-5)


@given(COUNTS, COUNTS)
def test_wilson_holds_the_share_and_mirrors(right: int, wrong: int) -> None:
    low, high = stats.wilson(right, right + wrong)
    assert 0 <= low <= high <= 1
    if right + wrong:
        assert low <= right / (right + wrong) <= high
        assert stats.wilson(wrong, right + wrong) == pytest.approx((1 - high, 1 - low))


def test_nothing_asked_is_nothing_known() -> None:
    assert stats.wilson(0, 0) == (0.0, 1.0)
    assert stats.difference(0, 0, 0, 0) == (-1.0, 1.0)
    assert stats.mcnemar(0, 0) == 1.0
    assert stats.percentile([], 95) is None


@pytest.mark.parametrize(("gained", "lost"), [(0, 5), (5, 1), (6, 0), (3, 3), (9, 2), (12, 5)])
def test_mcnemar_by_counting_every_toss(gained: int, lost: int) -> None:
    """Every way in which the coins can fall, one by one."""
    tosses = gained + lost
    uneven = abs(gained - lost)
    as_uneven = sum(
        abs(2 * sum(fall) - tosses) >= uneven for fall in itertools.product((0, 1), repeat=tosses)
    )
    assert stats.mcnemar(gained, lost) == pytest.approx(float(Fraction(as_uneven, 2**tosses)))


def test_six_to_none_is_the_least_that_is_no_noise() -> None:
    assert stats.mcnemar(5, 0) > stats.LEVEL > stats.mcnemar(6, 0)


def test_mcnemar_of_many() -> None:
    assert 0 <= stats.mcnemar(5000, 3000) < 1e-6
    assert stats.mcnemar(5000, 5000) == 1.0


@given(COUNTS, COUNTS, COUNTS, COUNTS)
def test_the_difference_holds_what_was_seen_and_mirrors(
    both: int, gained: int, lost: int, neither: int
) -> None:
    low, high = stats.difference(both, gained, lost, neither)
    assert -1 - 1e-9 <= low <= high <= 1 + 1e-9
    if pairs := both + gained + lost + neither:
        assert low - 1e-9 <= (gained - lost) / pairs <= high + 1e-9
        assert stats.difference(both, lost, gained, neither) == pytest.approx((-high, -low))


@pytest.mark.parametrize(
    ("plain", "better", "together"), [(0.5, 0.7, 0.45), (0.8, 0.8, 0.7), (0.9, 0.6, 0.55)]
)
def test_the_interval_of_the_difference_covers_the_truth(
    plain: float, better: float, together: float
) -> None:
    """Simulated comparisons of 40 questions: about 95 of 100 intervals hold the true difference."""
    dice, hits, runs = random.Random(7), 0, 2000
    kinds = [(1, 1), (1, 0), (0, 1), (0, 0)]
    weights = [together, better - together, plain - together, 1 - plain - better + together]
    for _ in range(runs):
        seen = dice.choices(kinds, weights, k=40)
        low, high = stats.difference(*(seen.count(kind) for kind in kinds))
        hits += low <= better - plain <= high
    assert 0.93 < hits / runs < 0.985


def test_holm() -> None:
    assert stats.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert stats.holm([0.6, 0.9]) == [1.0, 1.0]
    assert stats.holm([]) == []


@given(st.lists(st.floats(0, 1), max_size=8))
def test_holm_keeps_the_order_and_never_flatters(values: list[float]) -> None:
    adjusted = stats.holm(values)
    assert all(a >= v for a, v in zip(adjusted, values, strict=True))
    assert [a for _, a in sorted(zip(values, adjusted, strict=True))] == sorted(adjusted)


def test_percentiles() -> None:
    assert stats.percentile([4.0], 95) == 4.0
    assert stats.percentile([3, 1, 2], 50) == 2
    assert stats.percentile(list(range(101)), 95) == 95
    assert stats.percentile([0, 10], 95) == pytest.approx(9.5)
