"""What a comparison asks, and which answers are right. Pure.

A file of questions has one JSON object a line: `prompt` or `messages`, `expected`, and `id` where a name is wanted.
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

#: Where an answer says that the answer comes now: "Answer: 42", "**Answer** (in km): 42", "the answer is 42".
_MARK = re.compile(
    r"\banswer\b(?:\W{0,4}|[^\w\n]{0,4}\([^)\n]*\)[^\w\n]{0,4}?)[:=]|\banswer is\b", re.IGNORECASE
)
_NUMBER = re.compile(r"(?<![\w.])[-+\u2212]?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?:[eE][-+]?\d+)?")


@dataclass(frozen=True)
class Rule:
    """One way to be right.

    text: it stands there as whole words, in whatever case. exact: nothing else stands there. regex: it matches somewhere.
    number: the number that is given is `value`, give or take `tolerance`.
    """

    kind: Literal["text", "exact", "regex", "number"]
    value: str | float
    tolerance: float = 0.0


@dataclass(frozen=True)
class Question:
    """What is asked, and the answers that are right: one rule that fits is enough."""

    id: str
    messages: tuple[dict[str, str], ...]
    expected: tuple[Rule, ...]


class QuestionsError(Exception):
    """A file of questions that may not be used; `problems` has all of them, each with its line."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__(f"{len(problems)} problem(s)")
        self.problems = problems


def right(question: Question, answer: str) -> bool:
    """Whether an answer is right.

    What a model thought aloud (up to `</think>`) does not count. Where it says "Answer:", what follows is the answer.
    """
    said = answer.rpartition("</think>")[2]
    marks = list(_MARK.finditer(said))
    final = said[marks[-1].end() :] if marks else ""
    return any(_fits(rule, said, final) for rule in question.expected)


def _fits(rule: Rule, said: str, final: str) -> bool:
    given = final if final.strip() else said
    if rule.kind == "regex":
        return re.search(str(rule.value), given) is not None
    if rule.kind == "number":
        return _number_fits(float(rule.value), rule.tolerance, said, final)
    wanted, found = _plain(str(rule.value)), _plain(given)
    if rule.kind == "exact":
        return found == wanted
    return re.search(rf"(?<!\w){re.escape(wanted)}(?!\w)", found) is not None


def _number_fits(wanted: float, tolerance: float, said: str, final: str) -> bool:
    # behind the mark the first number is the answer, in a text without one the last
    numbers = _NUMBER.findall(final)[:1] or _NUMBER.findall(said)[-1:]
    found = [float(text.replace(",", "").replace("\u2212", "-")) for text in numbers]
    return any(math.isclose(wanted, number, rel_tol=1e-9, abs_tol=tolerance) for number in found)


def _plain(text: str) -> str:
    """Without case, without marks of emphasis, with single blanks, and without a full stop at its end."""
    return " ".join(re.sub(r"[*_`$\"]+", " ", text).casefold().split()).rstrip(" .!")


def parse(text: str) -> list[Question]:
    """The questions of a JSONL text.

    Raises:
        QuestionsError: with every line that cannot be used, or because there is none.
    """
    found: list[Question] = []
    problems: list[Problem] = []
    lines: dict[str, int] = {}
    # not splitlines(): a JSON text may hold other signs that end lines elsewhere
    for number, line in enumerate(text.removeprefix("\ufeff").split("\n"), start=1):
        if not line.strip():
            continue
        question, wrong = _question(line, number)
        if question is not None and question.id in lines:
            wrong = [("id", f"{question.id!r} stands on line {lines[question.id]} already")]
        if wrong:
            problems += [Problem(path, number, what) for path, what in wrong]
        elif question is not None:
            lines[question.id] = number
            found.append(question)
    if not found and not problems:
        problems = [Problem("", None, "holds no question")]
    if problems:
        raise QuestionsError(problems)
    return found


_Wrong = list[tuple[str, str]]


def _question(line: str, number: int) -> tuple[Question | None, _Wrong]:
    """The question of a line, or what is wrong with it: where, and what."""
    try:
        data = json.loads(line)
    except (ValueError, RecursionError) as error:
        return None, [("", f"not valid JSON: {getattr(error, 'msg', 'nested too deep')}")]
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
        wrong.append(("prompt", "must stand there, or messages, and not both"))
    elif "prompt" in data:
        prompt = data["prompt"]
        if isinstance(prompt, str) and prompt.strip():
            return ({"role": "user", "content": prompt},)
        wrong.append(("prompt", "must be text that is not empty"))
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
        wrong.append(("expected", "is missing: without it nobody knows whether an answer is right"))
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
    """A rule, or what is wrong with it."""
    if isinstance(item, str):
        item = {"text": item}
    if not isinstance(item, dict):
        return f'must be text or an object such as {{"number": 42}}; these are known: {", ".join(_KINDS)}'
    kinds = [kind for kind in _KINDS if kind in item]
    if len(kinds) != 1 or not set(item) <= {*kinds, *(["tolerance"] if "number" in item else [])}:
        unknown = next((key for key in item if key not in (*_KINDS, "tolerance")), None)
        return f"must have one of {', '.join(_KINDS)}{f', not {unknown!r}{suggest(unknown, _KINDS)}' if unknown else ''}"
    (kind,) = kinds
    value, tolerance = item[kind], item.get("tolerance", 0)
    if kind == "number":
        if not _is_number(value) or not _is_number(tolerance) or tolerance < 0:
            return "number must be a number, and so must tolerance, from 0"
        return Rule("number", float(value), float(tolerance))
    if not isinstance(value, str) or not (value if kind == "regex" else _plain(value)):
        return f"{kind} must be text that is not empty"
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
    """A mark by which a set of questions is known again: what is asked, and what is right."""
    return hashlib.sha256(
        json.dumps([asdict(q) for q in questions], sort_keys=True).encode()
    ).hexdigest()[:16]
