"""The questions of a comparison, and which answers are right. Pure.

A questions file has one JSON object per line: `prompt` or `messages`, `expected`, and optionally
`id`.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from optictl.deployment.config import suggest
from optictl.errors import Problem

_KEYS = ("id", "prompt", "messages", "expected")
_ROLES = ("system", "developer", "user", "assistant")
_KINDS = ("text", "exact", "regex", "number")

#: Introduces the final answer: "Answer: 42", "**Answer** (in km): 42", "the answer is 42".
_MARK = re.compile(
    r"\banswer\b(?:\W{0,4}|[^\w\n]{0,4}\([^)\n]*\)[^\w\n]{0,4}?)[:=]|\banswer is\b", re.IGNORECASE
)
_NUMBER = re.compile(r"(?<![\w.])[-+\u2212]?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?:[eE][-+]?\d+)?")


@dataclass(frozen=True)
class Rule:
    """One rule by which an answer is right.

    text: the answer contains the value as whole words, in any case. exact: the answer is the value.
    regex: the pattern matches somewhere. number: the number is `value`, plus or minus `tolerance`.
    """

    kind: Literal["text", "exact", "regex", "number"]
    value: str | float
    tolerance: float = 0.0


@dataclass(frozen=True)
class Question:
    """A question and the rules for right answers; one matching rule is enough."""

    id: str
    messages: tuple[dict[str, str], ...]
    expected: tuple[Rule, ...]


class QuestionsError(Exception):
    """A questions file is not valid; `problems` lists every problem with its line."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__(f"{len(problems)} problem(s)")
        self.problems = problems


def right(question: Question, answer: str) -> bool:
    """Whether an answer is right.

    The model's reasoning (up to `</think>`) does not count. Text after "Answer:" is the final
    answer.
    """
    text, final = _parts(answer)
    return any(_matches(rule, text, final) for rule in question.expected)


def final_answer(question: Question, answer: str) -> str:
    """What an answer says in the end, in one form for equal answers; "" if it says nothing.

    It is read as `right` reads it, without the rules' values: a number where a rule wants one,
    else the line after "Answer:", else the whole text.
    """
    text, final = _parts(answer)
    if any(rule.kind == "number" for rule in question.expected) and (
        numbers := _numbers(text, final)
    ):
        return repr(numbers[0])
    first = next(filter(None, map(str.strip, final.splitlines())), "")
    return _plain(first) or _plain(text)


def _parts(answer: str) -> tuple[str, str]:
    """An answer without its reasoning, and what follows the last "Answer:" in it."""
    text = answer.rpartition("</think>")[2]
    marks = list(_MARK.finditer(text))
    return text, text[marks[-1].end() :] if marks else ""


def _matches(rule: Rule, text: str, final: str) -> bool:
    given = final if final.strip() else text
    if rule.kind == "regex":
        return re.search(str(rule.value), given) is not None
    if rule.kind == "number":
        return _number_matches(float(rule.value), rule.tolerance, text, final)
    expected, actual = _plain(str(rule.value)), _plain(given)
    if rule.kind == "exact":
        return actual == expected
    return re.search(rf"(?<!\w){re.escape(expected)}(?!\w)", actual) is not None


def _number_matches(expected: float, tolerance: float, text: str, final: str) -> bool:
    numbers = _numbers(text, final)
    return any(math.isclose(expected, n, rel_tol=1e-9, abs_tol=tolerance) for n in numbers)


def _numbers(text: str, final: str) -> list[float]:
    """The number that an answer gives, or none: after the mark the first one, else the last one."""
    digits = _NUMBER.findall(final)[:1] or _NUMBER.findall(text)[-1:]
    return [float(number.replace(",", "").replace("\u2212", "-")) for number in digits]


def _plain(text: str) -> str:
    """The text without case, emphasis and final full stop, with single spaces."""
    return " ".join(re.sub(r"[*_`$\"]+", " ", text).casefold().split()).rstrip(" .!")


def parse(text: str) -> list[Question]:
    """The questions of a JSONL text.

    Raises:
        QuestionsError: a line is not valid, or there is no question.
    """
    questions: list[Question] = []
    problems: list[Problem] = []
    lines: dict[str, int] = {}
    # not splitlines(): JSON strings may contain other line separators
    for number, line in enumerate(text.removeprefix("\ufeff").split("\n"), start=1):
        if not line.strip():
            continue
        question, wrong = _question(line, number)
        if question is not None and question.id in lines:
            wrong = [("id", f"{question.id!r} is already used on line {lines[question.id]}")]
        if wrong:
            problems += [Problem(path, number, what) for path, what in wrong]
        elif question is not None:
            lines[question.id] = number
            questions.append(question)
    if not questions and not problems:
        problems = [Problem("", None, "contains no questions")]
    if problems:
        raise QuestionsError(problems)
    return questions


_Wrong = list[tuple[str, str]]


def _question(line: str, number: int) -> tuple[Question | None, _Wrong]:
    """The question of a line, and its problems as (path, text)."""
    try:
        data = json.loads(line)
    except (ValueError, RecursionError) as error:
        return None, [("", f"not valid JSON: {getattr(error, 'msg', 'nested too deeply')}")]
    if not isinstance(data, dict):
        return None, [("", "must be an object: {...}")]
    wrong: _Wrong = [(key, f"unknown key{suggest(key, _KEYS)}") for key in data if key not in _KEYS]
    name = data.get("id", number)
    if isinstance(name, bool) or not isinstance(name, str | int) or not str(name).strip():
        wrong.append(("id", "must be text or a whole number"))
    messages = _messages(data, wrong)
    rules = _expected(data, wrong)
    return (None, wrong) if wrong else (Question(str(name), messages, rules), [])


def _messages(data: dict[str, Any], wrong: _Wrong) -> tuple[dict[str, str], ...]:
    if ("prompt" in data) == ("messages" in data):
        wrong.append(("prompt", "needs exactly one of prompt and messages"))
    elif "prompt" in data:
        prompt = data["prompt"]
        if isinstance(prompt, str) and prompt.strip():
            return ({"role": "user", "content": prompt},)
        wrong.append(("prompt", "must be non-empty text"))
    else:
        items = data["messages"]
        if isinstance(items, list) and items and all(map(_is_message, items)):
            return tuple({"role": item["role"], "content": item["content"]} for item in items)
        wrong.append(
            (
                "messages",
                'must be a list of {"role": ..., "content": text}; roles are ' + ", ".join(_ROLES),
            )
        )
    return ()


def _is_message(item: Any) -> bool:
    return (
        isinstance(item, dict)
        and set(item) == {"role", "content"}
        and item["role"] in _ROLES
        and isinstance(item["content"], str)
        and bool(item["content"].strip())
    )


def _expected(data: dict[str, Any], wrong: _Wrong) -> tuple[Rule, ...]:
    if "expected" not in data:
        wrong.append(("expected", "is missing: it says which answers are right"))
        return ()
    given = data["expected"]
    items = given if isinstance(given, list) else [given]
    if not items:
        wrong.append(("expected", "must not be an empty list"))
    rules = []
    for index, item in enumerate(items):
        path = f"expected.{index}" if isinstance(given, list) else "expected"
        rule = _rule(item)
        if isinstance(rule, str):
            wrong.append((path, rule))
        else:
            rules.append(rule)
    return tuple(rules)


def _rule(item: Any) -> Rule | str:
    """The rule, or the problem as text."""
    if isinstance(item, str):
        item = {"text": item}
    if not isinstance(item, dict):
        kinds_text = ", ".join(_KINDS)
        return f'must be text or an object such as {{"number": 42}} (keys: {kinds_text})'
    kinds = [kind for kind in _KINDS if kind in item]
    if len(kinds) != 1 or not set(item) <= {*kinds, *(["tolerance"] if "number" in item else [])}:
        unknown = next((key for key in item if key not in (*_KINDS, "tolerance")), None)
        hint = f", not {unknown!r}{suggest(unknown, _KINDS)}" if unknown else ""
        return f"must have exactly one of {', '.join(_KINDS)}{hint}"
    (kind,) = kinds
    value, tolerance = item[kind], item.get("tolerance", 0)
    if kind == "number":
        if not _is_number(value) or not _is_number(tolerance) or tolerance < 0:
            return "number and tolerance must be numbers, and tolerance not negative"
        return Rule("number", float(value), float(tolerance))
    if not isinstance(value, str) or not (value if kind == "regex" else _plain(value)):
        return f"{kind} must be non-empty text"
    if kind == "regex":
        try:
            re.compile(value)
        except (re.error, RecursionError, OverflowError) as error:
            return f"not a regular expression: {error}"
    return Rule(kind, value)  # type: ignore[arg-type]


def _is_number(value: Any) -> bool:
    try:
        return (
            isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        )
    except OverflowError:  # an integer of hundreds of digits
        return False


def digest(questions: Sequence[Question]) -> str:
    """A digest that identifies a set of questions and their right answers."""
    return hashlib.sha256(
        json.dumps([asdict(q) for q in questions], sort_keys=True).encode()
    ).hexdigest()[:16]
