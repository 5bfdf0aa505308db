"""Ratings in the words of a model, read as numbers from 0 to 10. Pure."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator
from typing import Any

from . import thinking

#: The scale that `bon` asks for. Source: bon.py of OptiLLM 0.3.12 to 0.4.0.
SCALE = 10.0
#: A request for the number alone, after an answer without one.
ASK_AGAIN = "Reply with the rating only: a single number from 0 to 10, and nothing else."

_NUMBER = r"[-+]?\d+(?:[.,]\d+)?"
_WORDS = {
    word: float(value)
    for value, word in enumerate(
        ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
    )
}
_A_NUMBER = rf"(?P<value>{_NUMBER}|{'|'.join(_WORDS)})"
_END = r"(?![\w/]|[.,]\d)"
#: "8/10", "8 out of 10", "80 %"
_USUAL = re.compile(
    rf"(?<![\w.,/]){_A_NUMBER}\s*(?:(?:/|\b(?:out\s+)?of\b)\s*(?P<scale>5|10|100){_END}|(?P<percent>%|percent\b))",
    re.I,
)
#: "3/4", "16 out of 20"
_OTHER = re.compile(
    rf"(?<![\w.,/]){_A_NUMBER}\s*(?:/|\bout\s+of\b)\s*(?P<scale>[3-9]|1\d|20|25|50){_END}", re.I
)
#: "Rating: 8", "my score is 8"
_NAMED = re.compile(
    rf"\b(?:rating|score|grade)\b[^\d\n]{{0,40}}?(?:[:=]|\b(?:is|of|as|be)\b)\s*(?:an?\s+)?{_A_NUMBER}{_END}",
    re.I,
)
#: "I rate it an 8", "it deserves a 7.5"
_GIVEN = re.compile(
    r"\b(?:rate[ds]?|scores?|gives?|giving|assign|award|deserves?|rating)\b"
    rf"[^\d\n]{{0,60}}?(?<![\w.,/]){_A_NUMBER}{_END}",
    re.I,
)
#: "on a scale from 1 to 5", "(1-5)", "0 to 10": no rating itself
_RANGE = re.compile(r"(?<![\w.,/-])[01]\s*(?:to|-|\u2013|and)\s*(?P<scale>5|6|7|10|20|100)\b", re.I)
_POINTS = re.compile(r"\b(?P<scale>\d+)-point\s+scale\b", re.I)
_ALONE = re.compile(rf"(?<![\w.,/]){_A_NUMBER}(?![\w/%]|[.,]\d)", re.I)
_ITEM = re.compile(r"^\s*\d+[.)]\s+(?=\S)", re.M)
#: The names of a rating and of its scale in a JSON object.
_KEYS = ("rating", "score", "overall", "overall_rating", "overall_score", "final_score", "grade")
_SCALE_KEYS = ("scale", "max", "max_score", "out_of", "total", "maximum")


def read(text: str) -> float | None:
    """The rating in a text, on the scale from 0 to 10. None without one.

    The last statement counts where there are several: models reason first.
    """
    text = thinking.without(text).strip()
    bare = _unmarked(text)
    value = _value(bare)
    if value is not None:
        return value if _fits(value, SCALE) else None
    if len(_ITEM.findall(bare)) > 1:  # the numbers of a list
        bare = _ITEM.sub("", bare)
    ways = (way(bare) for way in _WAYS)
    rated = _in_json(text) or next((found for found in ways if found is not None), None)
    if rated is None:
        return None
    value, scale = rated
    return round(value * SCALE / scale, 4) if scale > 0 and _fits(value, scale) else None


def is_bare(text: str) -> bool:
    """Whether OptiLLM reads a text as a rating: a number, and nothing else."""
    try:
        return math.isfinite(float(text.strip()))
    except ValueError:
        return False


def _fits(value: float, scale: float) -> bool:
    return 0 <= value <= scale


def _unmarked(text: str) -> str:
    """The text without the marks of Markdown and TeX around words."""
    text = re.sub(r"\\boxed\s*\{([^{}]*)\}", r" \1 ", text)
    return re.sub(r"[*_`#$\"\u201c\u201d]+|\\[()\[\]]", "", text).strip().rstrip(".!").strip()


def _value(text: str) -> float | None:
    """A text that is a number, as it is written or as a word."""
    if text.lower() in _WORDS:
        return _WORDS[text.lower()]
    return float(text.replace(",", ".")) if re.fullmatch(_NUMBER, text) else None


def _stated_scale(text: str) -> float:
    """The scale that a text names, or the usual one."""
    found = _RANGE.search(text) or _POINTS.search(text)
    return float(found["scale"]) if found else SCALE


def _without_scale(text: str) -> str:
    return _POINTS.sub("", _RANGE.sub("", text))


def _in_json(text: str) -> tuple[float, float] | None:
    """A rating in a JSON object, also inside a code block."""
    for data in _objects(text):
        named = {str(key).lower().replace(" ", "_"): value for key, value in data.items()}
        scales = (_number_of(named.get(key)) for key in _SCALE_KEYS)
        scale = next(filter(None, scales), None)
        for value in map(named.get, _KEYS):
            if (number := _number_of(value)) is not None:
                return number, scale or _stated_scale(text)
            if isinstance(value, str):
                inner = _of(value) or _single(_value(value.strip()))
                if inner is not None:
                    return inner
        numbers = [one for one in map(_number_of, named.values()) if one is not None]
        if len(numbers) == 1:
            return numbers[0], SCALE
    return None


def _number_of(value: Any) -> float | None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_number else None


def _single(value: float | None) -> tuple[float, float] | None:
    return (value, SCALE) if value is not None else None


def _objects(text: str) -> Iterator[dict[str, Any]]:
    """The JSON objects in a text, without those inside others."""
    decoder, place = json.JSONDecoder(), text.find("{")
    for _ in range(8):  # a text may hold many braces
        if place < 0:
            return
        try:
            data, end = decoder.raw_decode(text, place)
        except (ValueError, RecursionError):
            end = place + 1
        else:
            if isinstance(data, dict):
                yield data
        place = text.find("{", end)


def _last(pattern: re.Pattern[str], text: str) -> re.Match[str] | None:
    return next(reversed(list(pattern.finditer(text))), None)


def _number(match: re.Match[str]) -> float:
    value = _value(match["value"])
    assert value is not None
    return value


def _of(text: str) -> tuple[float, float] | None:
    """A number with its scale."""
    if found := _last(_USUAL, text):
        return _number(found), 100.0 if found["percent"] else float(found["scale"])
    return None


def _of_other(text: str) -> tuple[float, float] | None:
    """A number with an unusual scale: it may also be a fraction that the answer is about."""
    found = _last(_OTHER, text)
    return (_number(found), float(found["scale"])) if found else None


def _called(pattern: re.Pattern[str]) -> Callable[[str], tuple[float, float] | None]:
    """A number that is called a rating."""

    def read(text: str) -> tuple[float, float] | None:
        found = _last(pattern, _without_scale(text))
        return (_number(found), _stated_scale(text)) if found else None

    return read


def _in_a_line(text: str) -> tuple[float, float] | None:
    """The only number in the last line, or in the first one."""
    lines = [line for line in _without_scale(text).splitlines() if line.strip()]
    for line in (*lines[-1:], *lines[:1]):
        numbers = list(_ALONE.finditer(line))
        if len(numbers) == 1:
            return _number(numbers[0]), _stated_scale(text)
    return None


_WAYS = (_of, _called(_NAMED), _called(_GIVEN), _in_a_line, _of_other)
