"""A rating as the mean of what a model holds likely."""

from __future__ import annotations

import math
from typing import Any

import pytest

from optictl.guard import likely_ratings


def token(text: str, **likely: float) -> dict[str, Any]:
    """A token, and the probabilities of those in its place; `_8` stands for " 8"."""
    others = [
        {"token": name.replace("_", " ").replace("n", ""), "logprob": math.log(share)}
        for name, share in likely.items()
    ]
    return {"token": text, "logprob": 0.0, "top_logprobs": others}


def logprobs(*tokens: dict[str, Any]) -> dict[str, Any]:
    return {"content": [token('{"rating":', x=0.9), *tokens, token("}", x=0.9)]}


@pytest.mark.parametrize(
    ("text", "found", "rating"),
    [
        ('{"rating": 4}', logprobs(token("4", n4=0.5, n6=0.5)), 5),
        ('{"rating": 4}', logprobs(token(" 4", _4=0.6, _9=0.2, x=0.2)), 5.25),
        # one token, or two
        ('{"rating": 10}', logprobs(token("10", n10=0.8, n5=0.2)), 9),
        ('{"rating": 10}', logprobs(token("1", n1=0.8, n2=0.2), token("0", n0=0.5, x=0.5)), 4.8),
        ('{"rating": 1}', logprobs(token("1", n1=1.0), token("}", x=1.0)), 1),
        # too little of it is about ratings
        ('{"rating": 4}', logprobs(token("4", n4=0.2, n6=0.2, x=0.6)), 4),
        ('{"rating": 4}', logprobs(token("4")), 4),
        ('{"rating": 4}', None, 4),
        ('{"rating": 4}', {"content": None}, 4),
        ('{"rating": 4}', {"content": ["x", {"token": None}, {}]}, 4),
        ("It is good.", logprobs(token("4", n4=1.0)), None),
        ("", None, None),
    ],
)
def test_a_rating_is_the_mean_of_likely_numbers(text: str, found: Any, rating: float) -> None:
    assert likely_ratings.read(text, found) == (
        pytest.approx(rating) if rating is not None else None
    )
