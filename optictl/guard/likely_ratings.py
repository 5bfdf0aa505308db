"""A last attempt at a rating: an answer that can be nothing but a number, and how likely each is.

A small model does not follow "only a number". A JSON schema makes it, on servers that have them
(llama.cpp, vLLM, OpenAI). Such a model says nearly the same number of everything: the mean of the
numbers, by their probabilities, tells candidates apart. Source: G-Eval (Liu et al., 2023). Pure.
"""

from __future__ import annotations

import math
from typing import Any

from . import ratings

#: Fields of the body. 20 is the most that OpenAI's API allows.
FIELDS: dict[str, Any] = {
    "response_format": {
        "type": "json_schema",
        "json_schema": {
            "name": "rating",
            "strict": True,
            "schema": {
                "type": "object",
                "properties": {
                    "rating": {"type": "integer", "minimum": 0, "maximum": int(ratings.SCALE)}
                },
                "required": ["rating"],
                "additionalProperties": False,
            },
        },
    },
    "logprobs": True,
    "top_logprobs": 20,
}
#: With less, the probabilities are not those of a rating.
_LEAST = 0.5


def read(text: str, logprobs: Any) -> float | None:
    """The rating in an answer, from 0 to 10; with probabilities the mean. None without one.

    `logprobs`: those of the choice, as OpenAI's API has them, or anything else.
    """
    said = ratings.read(text)
    tokens = logprobs.get("content") if isinstance(logprobs, dict) else None
    tokens = [one for one in tokens if isinstance(one, dict)] if isinstance(tokens, list) else []
    places = (at for at, one in enumerate(tokens) if _number(one) is not None)
    place = next(places, None)
    if said is None or place is None:
        return said
    likely = _likely(tokens[place])
    # "10" may be two tokens; how likely the second one is can only be seen after the first one
    if _number(tokens[place]) == 1 and place + 1 < len(tokens) and 1 in likely:
        ten = likely[1] * _likely(tokens[place + 1]).get(0, 0.0)
        likely = {**likely, 1: likely[1] - ten, 10: likely.get(10, 0.0) + ten}
    mass = sum(likely.values())
    if mass < _LEAST:
        return said
    return round(sum(number * share for number, share in likely.items()) / mass, 2)


def _number(token: dict[str, Any]) -> int | None:
    """The rating that a token is."""
    text = str(token.get("token") or "").strip()
    is_rating = text.isascii() and text.isdecimal() and int(text) <= ratings.SCALE
    return int(text) if is_rating else None


def _likely(token: dict[str, Any]) -> dict[int, float]:
    """Number -> probability, of the tokens that could stand in a token's place."""
    found: dict[int, float] = {}
    others = token.get("top_logprobs")
    for other in others if isinstance(others, list) else ():
        number = _number(other) if isinstance(other, dict) else None
        logprob = other.get("logprob") if number is not None else None
        if number is not None and isinstance(logprob, int | float) and logprob <= 0:
            found[number] = found.get(number, 0.0) + math.exp(logprob)
    return found
