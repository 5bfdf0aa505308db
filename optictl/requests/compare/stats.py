"""Is a difference noise? Intervals and tests for shares of right answers. Pure.

Everything is two-sided and at the 95 % level.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist

LEVEL = 0.05
_Z = NormalDist().inv_cdf(1 - LEVEL / 2)

Interval = tuple[float, float]


def wilson(right: int, asked: int) -> Interval:
    """The interval of a share, from 0 to 1; the whole range if nothing was asked.

    The score interval without continuity correction: E. B. Wilson, "Probable inference, the law of
    succession, and statistical inference", J. Am. Stat. Assoc. 22 (1927), 209-212. Unlike
    p +- z * sqrt(p * (1 - p) / n), it is useful for few questions, and if none or all are right.
    """
    if not asked:
        return 0.0, 1.0
    share, square = right / asked, _Z * _Z
    scale = 1 + square / asked
    middle = (share + square / (2 * asked)) / scale
    half = _Z * math.sqrt(share * (1 - share) / asked + square / (4 * asked * asked)) / scale
    # at 0 and 1 the interval ends exactly there, without rounding errors
    return (0.0 if right == 0 else middle - half), (1.0 if right == asked else middle + half)


def mcnemar(gained: int, lost: int) -> float:
    """The probability of a split at least as uneven as gained : lost if both were equally likely.

    The exact form of Q. McNemar, "Note on the sampling error of the difference between correlated
    proportions or percentages", Psychometrika 12 (1947), 153-157. The questions on which the two
    models differ are tosses of a fair coin, so the p-value is min(1, 2 * P(X <= min(gained, lost)))
    with X binomial(gained + lost, 1/2).
    """
    tosses = gained + lost
    tail, ways = 0, 1
    for k in range(min(gained, lost) + 1):
        tail += ways
        ways = ways * (tosses - k) // (k + 1)
    # exact integers, and one division at the end
    return min(1.0, tail / (1 << tosses) * 2)


def difference(both: int, gained: int, lost: int, neither: int) -> Interval:
    """The interval of the difference of two shares of right answers to the same questions, -1 to 1.

    Method 10 of R. G. Newcombe, "Improved confidence intervals for the difference between binomial
    proportions based on paired data", Stat. Med. 17 (1998), 2635-2650: the two Wilson intervals,
    squared and added, with the correlation phi of the pairs. Half the number of pairs moves the
    numerator of phi towards 0.
    """
    pairs = both + gained + lost + neither
    if not pairs:
        return -1.0, 1.0
    first, second = both + gained, both + lost
    p1, p2 = first / pairs, second / pairs
    (low1, high1), (low2, high2) = wilson(first, pairs), wilson(second, pairs)
    margins = first * (pairs - first) * second * (pairs - second)
    raw = both * neither - gained * lost
    corrected = max(raw - pairs / 2, 0) if raw > 0 else raw
    phi = corrected / math.sqrt(margins) if margins else 0.0

    def distance(a: float, b: float) -> float:
        return math.sqrt(max(0.0, a * a - 2 * phi * a * b + b * b))

    return p1 - p2 - distance(p1 - low1, high2 - p2), p1 - p2 + distance(high1 - p1, p2 - low2)


def holm(p_values: Sequence[float]) -> list[float]:
    """The p-values of several tests, adjusted: the chance of any false alarm stays below the level.

    The step-down method of S. Holm, "A simple sequentially rejective multiple test procedure",
    Scand. J. Stat. 6 (1979), 65-70: the smallest p-value counts n times, the next one n - 1 times,
    and none is smaller than the one before it.
    """
    adjusted, floor = [0.0] * len(p_values), 0.0
    for place, index in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        floor = max(floor, min(1.0, (len(p_values) - place) * p_values[index]))
        adjusted[index] = floor
    return adjusted


def percentile(values: Sequence[float], percent: float) -> float | None:
    """The percentile with linear interpolation; None without values."""
    if not values:
        return None
    ordered = sorted(values)
    place = (len(ordered) - 1) * percent / 100
    below = math.floor(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (place - below)
