"""Files of questions, and which answers are right."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from optictl.requests.compare import questions
from optictl.requests.compare.questions import Question, QuestionsError
from optictl.requests.compare.run import BUILT_IN


def line(**fields: Any) -> str:
    return json.dumps({"prompt": "What?", "expected": "yes", **fields})


def one(expected: Any) -> Question:
    (question,) = questions.parse(line(expected=expected))
    return question


def problems(text: str) -> list[str]:
    with pytest.raises(QuestionsError) as error:
        questions.parse(text)
    return [str(problem) for problem in error.value.problems]


@pytest.mark.parametrize(
    ("expected", "answer"),
    [
        ("Paris", "It is PARIS."),
        ("Paris", "**Answer:** Paris"),
        ("New  York", "that is new\nyork, of course"),
        (["Rome", "Roma"], "Roma"),
        ("C++", "I would use C++"),
        ({"exact": "B"}, "Answer: b."),
        ({"exact": "B"}, " **B** "),
        ({"regex": r"(?i)^\s*(yes|si)\b"}, "Si, claro"),
        ({"number": 42}, "6 * 7 is 42"),
        ({"number": 42}, "Answer: 42 km, since 3 * 14 = 42 and not 41"),
        ({"number": 42}, "The answer is **42**. That took 3 steps."),
        ({"number": 42}, "**Answer** (in km): $42.00"),
        ({"number": 42}, "Answer: none yet. Wait, it is 42."),
        ({"number": 1431752}, "Answer: 1,431,752"),
        ({"number": -3.5}, "Answer: −3.5"),
        ({"number": 3.14, "tolerance": 0.01}, "about 3.1416"),
        ({"number": 1e6}, "10e5"),
        ({"number": 42}, r"so \boxed{42}"),
        ({"number": 42}, "<think>perhaps 41? Answer: 41</think>\n42"),
        ([{"number": 42}, "forty-two"], "Forty-two"),
    ],
)
def test_right(expected: Any, answer: str) -> None:
    assert questions.right(one(expected), answer)


@pytest.mark.parametrize(
    ("expected", "answer"),
    [
        ("Paris", "Parisian"),
        ("no", "nothing is known"),
        ("no", "no doubt about it. Answer: yes"),
        ("Paris", ""),
        ({"exact": "B"}, "A or B"),
        ({"regex": "^yes"}, "oh yes"),
        ({"number": 42}, "142"),
        ({"number": 42}, "4.42"),
        ({"number": 42}, "42 steps led to 43"),
        ({"number": 42}, "Answer: 41, not 42"),
        ({"number": 42}, "<think>42</think> I do not know"),
        ({"number": 42}, "no number"),
        ({"number": 3.14, "tolerance": 0.01}, "3.2"),
    ],
)
def test_wrong(expected: Any, answer: str) -> None:
    assert not questions.right(one(expected), answer)


@pytest.mark.parametrize(
    ("expected", "answers"),
    [
        ({"number": 42}, ["6 * 7 is 42", "Answer: 42 km", "**Answer:** 42.0", r"so \boxed{42}"]),
        ({"number": 5}, ["Answer: 1,000 or so", "it is 1000", "<think>7</think> 1e3"]),
        ("Ben", ["Ann lies. Answer: Carl", "Answer: **carl**.", "<think>Ben</think>Answer: Carl"]),
        ({"exact": "B"}, ["c", " **C** ", "Answer: C\nbecause of A"]),
        ({"regex": "^yes"}, ["no", "Answer: No."]),
        ([{"number": 4}, "four"], ["Answer: 4", "4.0"]),
    ],
)
def test_equal_final_answers_have_one_form(expected: Any, answers: list[str]) -> None:
    finals = {questions.final_answer(one(expected), answer) for answer in answers}
    assert len(finals) == 1
    assert finals != {""}


@pytest.mark.parametrize(
    ("expected", "first", "second"),
    [
        ({"number": 42}, "Answer: 41", "Answer: 42"),
        ("Ben", "Answer: Ann", "Answer: Ben"),
        ("Ben", "It is Ann.", "It is Ben."),
    ],
)
def test_other_final_answers_have_another(expected: Any, first: str, second: str) -> None:
    question = one(expected)
    assert questions.final_answer(question, first) != questions.final_answer(question, second)


def test_no_text_has_no_final_answer() -> None:
    for answer in ("", " \n", "<think>it is 42</think>"):
        assert questions.final_answer(one({"number": 42}), answer) == ""
    # a text without a number is an answer, and a wrong one
    assert questions.final_answer(one({"number": 42}), "I do not know.") == "i do not know"


@given(st.text(), st.sampled_from(["yes", {"number": 1}, {"exact": "a"}, {"regex": "a"}]))
def test_no_text_breaks_the_final_answer(answer: str, expected: Any) -> None:
    assert isinstance(questions.final_answer(one(expected), answer), str)


@given(st.text(), st.sampled_from(["yes", {"number": 1}, {"exact": "a"}, {"regex": "a"}]))
def test_no_answer_breaks_it(answer: str, expected: Any) -> None:
    questions.right(one(expected), answer)


@given(st.integers(-(10**9), 10**9))
def test_a_number_is_found_however_it_is_written(number: int) -> None:
    for written in (f"{number}", f"{number:,}", f"{number}.0", f"It is {number:,}."):
        assert questions.right(one({"number": number}), f"Answer: {written}")


class TestFiles:
    def test_what_may_stand_in_it(self) -> None:
        messages = [{"role": "system", "content": "Be short."}, {"role": "user", "content": "Hm?"}]
        text = (
            f"\ufeff{line(id='first')}\r\n\n"
            f"{json.dumps({'messages': messages, 'expected': ['a', 'b']})}\n"
        )
        first, second = questions.parse(text)
        assert (first.id, first.messages) == ("first", ({"role": "user", "content": "What?"},))
        assert (second.id, list(second.messages), len(second.expected)) == ("3", messages, 2)

    def test_a_sign_that_ends_lines_elsewhere_ends_none(self) -> None:
        (question,) = questions.parse('{"prompt": "a\u2028b", "expected": "c"}')
        assert question.messages[0]["content"] == "a\u2028b"

    def test_every_bad_line_is_told_at_once(self) -> None:
        text = "\n".join(
            [
                "{",
                "[1]",
                line(promt="x"),
                '{"prompt": "no answer"}',
                line(id="same"),
                line(id="same"),
                line(expected={"numbr": 3}),
                line(expected={"number": "3"}),
                line(expected=[{"regex": "("}, "fine", 3]),
                line(messages=[]),
                '{"messages": [{"role": "robot", "content": "x"}], "expected": "x"}',
                line(prompt=" "),
                line(expected=[]),
                line(expected={"number": 3, "tolerance": -1}),
                line(expected={"text": "a", "exact": "b"}),
                line(id=True),
                line(expected="**"),
                "[" * 100_000,
                line(expected={"number": 10**400}),
            ]
        )
        told = problems(text)
        where = [t.split(": ")[0] for t in told]
        assert where == [
            f"line {n}" for n in (1, 2, 3, 4, 6, 7, 8, 9, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19)
        ]
        said = dict(zip(where, told, strict=True))
        assert "not valid JSON" in said["line 1"]
        assert "did you mean 'prompt'?" in said["line 3"]
        assert said["line 6"] == "line 6: id: 'same' is already used on line 5"
        assert "did you mean 'number'?" in said["line 7"]
        assert said["line 18"] == "line 18: not valid JSON: nested too deeply"

    def test_an_empty_one(self) -> None:
        assert problems("\n \n") == ["contains no questions"]

    @given(
        st.lists(st.text() | st.dictionaries(st.text(), st.integers() | st.text()).map(json.dumps))
    )
    def test_whatever_stands_there_is_told(self, lines: list[str]) -> None:
        with pytest.raises(QuestionsError):
            questions.parse("\n".join(lines))

    def test_a_set_is_known_by_what_is_asked_and_what_is_right(self) -> None:
        marks = [
            questions.digest(questions.parse(text))
            for text in (line(), line(id="1"), line(id="2"), line(expected="no"))
        ]
        assert marks[0] == marks[1]
        assert len(set(marks)) == 3


#: Worked out here, by other means than those who answer.
WORKED_OUT: dict[str, Any] = {
    "percent-chain": 80 * 1.25 * 0.8,
    "two-taps": 60 / (1 / 6 + 1 / 3),
    "average-speed": 60 / (30 / 15 + 30 / 10),
    "ages": next(3 * s for s in range(100) if 3 * s + 12 == 2 * (s + 12)),
    "clock-angle": abs((3 + 40 / 60) * 30 - 40 * 6),
    "handshakes": next(n for n in range(100) if math.comb(n, 2) == 91),
    "digit-sum": sum(map(int, str(2**20))),
    "multiples": sum((n % 3 == 0) != (n % 5 == 0) for n in range(1, 1001)),
    "last-digit": pow(7, 222, 10),
    "product": 4837 * 296,
    "remainder": 123456789 % 97,
    "primes": sum(all(n % d for d in range(2, n)) for n in range(101, 150)),
    "letter-count": "possessionlessness".count("s"),
    "reverse": "blackboards"[::-1],
    "alphabet-order": sorted(["plaster", "plastic", "plasma", "plaque", "planet"])[2],
    "grid-paths": math.comb(7, 3),
    "binary": 0b1011011 * 3,
    "anagrams": math.factorial(5) / (2 * 2),
    "committee": sum(math.comb(5, w) * math.comb(4, 4 - w) for w in range(2, 5)),
    "dice": sum(a + b in (2, 3, 5, 7, 11) for a in range(1, 7) for b in range(1, 7)),
    "coins": sum(50 - 20 * c - 10 * b >= 0 for c in range(3) for b in range(6)),
}


class TestBuiltIn:
    def test_the_expected_answers_are_right(self) -> None:
        asked = {q.id: q for q in questions.parse(BUILT_IN.read_text())}
        assert len(asked) >= 20
        for name, result in WORKED_OUT.items():
            assert questions.right(asked[name], f"Answer: {result}"), name

    def test_each_tells_how_to_end(self) -> None:
        for question in questions.parse(BUILT_IN.read_text()):
            assert " Answer: " in question.messages[-1]["content"]
            # what a model repeats of the question is no answer
            assert not questions.right(question, question.messages[-1]["content"]), question.id
