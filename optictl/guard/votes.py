"""The vote of self-consistency: on final answers, and on whole texts where there are none. Pure.

The paper of the method votes on final answers (Wang et al., 2022). OptiLLM compares whole texts.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any, TypeGuard

from . import thinking, tool_calls

_BOXED = re.compile(r"\\boxed\s*\{")
#: "the answer is", "Final answer:", "Answer: "
_STATED = re.compile(
    r"\b(?:(?:final|correct|right|short)\s+answer|answer)\b\s*(?:is|would be|=|:)\s*:?\s*(?=\S)",
    re.I,
)
_OUTPUT = re.compile(r"<(?:output|answer)>(?P<answer>.*?)(?:</(?:output|answer)>|\Z)", re.DOTALL)
_BLOCK = re.compile(r"```[^\n]*\n(?P<code>.*?)```", re.DOTALL)
_NUMBER = re.compile(
    r"(?<![\w.])[-+\u2212]?[$\u20ac\u00a3]?\s?\d[\d,]*(?:\.\d+)?(?:\s?/\s?\d+)?\s?%?(?![\w])"
)
_CHOICE = re.compile(r"\(?\b([A-J])\b\)?(?=[\s.,:;)]|$)")
#: The most words beside a number that are its unit.
_UNIT_WORDS = 3
_FILLER = re.compile(r"^(?:that\s+|the\s+|an?\s+|simply\s+|option\s+|choice\s+)+", re.I)


def final_answer(text: str) -> str | None:
    """The final answer of a text in one form for all ways to write it. None without one.

    In this order: calls of tools, a whole JSON object or array, what a box holds, what is called
    the answer, the literal output of a code block, a single letter of a choice at the end, the last
    number of the last lines.
    """
    text = thinking.without(text).strip()
    if (called := tool_calls.called(text)) is not None:
        return called
    if (document := _document(text)) is not None:
        return document
    prose = _BLOCK.sub("", text)
    for way in (_boxed, _stated):
        if (found := way(prose)) is not None and (form := _form(found)):
            return form
    if (literal := _literal(text)) is not None:
        return literal
    for way in (_choice, _last_number):
        if (found := way(prose)) is not None and (form := _form(found)):
            return form
    return None


def _document(text: str) -> str | None:
    """A JSON object or array in one form, if the text is nothing else."""
    if text[:1] not in ("{", "["):
        return None
    try:
        return json.dumps(json.loads(text), sort_keys=True)
    except (ValueError, RecursionError):
        return None


def _boxed(text: str) -> str | None:
    """The content of the last `\\boxed{}`; its braces may be nested."""
    starts = [match.end() for match in _BOXED.finditer(text)]
    if not starts:
        return None
    depth, start = 1, starts[-1]
    for place in range(start, len(text)):
        depth += {"{": 1, "}": -1}.get(text[place], 0)
        if depth == 0:
            return text[start:place]
    return None


def _stated(text: str) -> str | None:
    said = [text[match.end() :].splitlines()[0] for match in _STATED.finditer(text)]
    said += [match["answer"] for match in _OUTPUT.finditer(text)]
    if not said:
        return None
    found = str(said[-1]).strip()
    number = _NUMBER.search(_bare(found))
    if number is not None and len(_bare(found)) > len(number.group()) + 40:
        return number.group()  # a sentence that goes on after the number
    return found


def _literal(text: str) -> str | None:
    """The value in the last code block, if it holds a value and no program."""
    blocks = [match["code"].strip() for match in _BLOCK.finditer(text)]
    if not blocks:
        return None
    try:
        return repr(ast.literal_eval(blocks[-1]))
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return None


def _choice(text: str) -> str | None:
    last = _last_line(text)
    letters = _CHOICE.findall(_bare(last))
    return str(letters[0]) if len(letters) == 1 and len(_bare(last).split()) <= 4 else None


def _last_number(text: str) -> str | None:
    """The last number of the last line that has one, if it is one of the last two lines."""
    lines = [line for line in text.splitlines() if line.strip()]
    for line in reversed(lines[-2:]):
        if numbers := _NUMBER.findall(_bare(line)):
            return str(numbers[-1])
    return None


def _last_line(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else ""


def _bare(text: str) -> str:
    """Without the marks of Markdown and TeX."""
    text = re.sub(r"\\(?:text|mathrm|mathbf)\s*\{([^{}]*)\}", r"\1", text)
    text = re.sub(r"\\[dt]?frac\s*\{([^{}]*)\}\s*\{([^{}]*)\}", r"\1/\2", text)
    return re.sub(r"[*_`]+|\\[()\[\]!,;]|\$(?!\d)|(?<=\d)\$", "", text).strip()


def _form(answer: str) -> str:
    """One form for all ways to write an answer: numbers by value, words in lower case."""
    text = _bare(answer).rstrip(".!;:, ").strip()
    text = _FILLER.sub("", text)
    if choice := re.match(r"\(?([A-J])[).:]\s", text):
        return choice[1].lower()
    text = text.strip("\"' \u201c\u201d")
    if (text[:1], text[-1:]) in (("(", ")"), ("[", "]")):
        text = text[1:-1]
    numbers = _NUMBER.findall(text)
    if (
        len(numbers) == 1
        and len(re.sub(r"[\W\d_]+", " ", text.replace(numbers[0], " ")).split()) <= 3
    ):
        value = _value(numbers[0])
        if value is not None:
            return value
    return " ".join(text.lower().split())


def _value(number: str) -> str | None:
    """A number in one form: 1,000.50 and 1000.5 are the same."""
    plain = re.sub(r"[\s,$\u20ac\u00a3]", "", number).replace("\u2212", "-")
    is_percent = plain.endswith("%")
    try:
        value = Fraction(plain.rstrip("%"))
    except (ValueError, ZeroDivisionError):
        return None
    return f"{value}{'%' if is_percent else ''}"


def has_text(text: Any) -> TypeGuard[str]:
    """Whether a sample may vote."""
    return isinstance(text, str) and bool(thinking.without(text).strip())


def clusters(texts: Sequence[str | None], similar: Callable[[str, str], bool]) -> list[list[str]]:
    """The samples in groups that say the same, the group of the first sample first.

    Empty samples are in no group. `similar`: whether two texts without a final answer say the same.
    """
    groups: list[tuple[str | None, list[str]]] = []
    for text in texts:
        if not has_text(text):
            continue
        answer = final_answer(text)
        for other, members in groups:
            if other == answer and (answer is not None or similar(text, members[0])):
                members.append(text)
                break
        else:
            groups.append((answer, [text]))
    return [members for _, members in groups]


def changed(texts: Sequence[str | None], groups: Sequence[Sequence[str]]) -> bool:
    """Whether votes on whole texts could have led to another answer.

    The group that wins is the largest, of several the first.
    """
    if not all(map(has_text, texts)):
        return True
    winner = max(groups, key=len, default=[])
    return len({text.strip() for text in winner}) > 1 and final_answer(winner[0]) is not None
