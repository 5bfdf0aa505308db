"""The vote of self-consistency: on final answers, and on whole texts where there are none."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from optictl.guard import votes

ANSWERS = {
    "so \\boxed{5}": "5",
    "\\boxed{\\frac{1}{2}}": "1/2",
    "nested \\boxed{f(\\text{a})}": "f(a)",
    "The answer is 42.": "42",
    "The answer is 42 apples": "42",
    "The answer is **$0.05**.": "1/20",
    "the final answer is 1,000.50": "2001/2",
    "answer is 1/2": "1/2",
    "answer is 0.5": "1/2",
    "It is 50%.": "50%",
    "Final Answer: The final answer is $\\boxed{10}$": "10",
    "the answer is 72 because 8*9=72 and that is what we wanted to find out": "72",
    "The answer is 3. No, wait: the answer is 4.": "4",
    "Answer: (B)": "b",
    "The correct answer is B) Paris": "b",
    "**Answer:** Paris.": "paris",
    "The answer is: the Paris": "paris",
    "<output>7</output>": "7",
    "<think>the answer is 3</think>The answer is 4": "4",
    "```\n[1, 2]\n```": "[1, 2]",
    "Let me see.\n\nB": "b",
    "The ball costs $0.05": "1/20",
    "So the total is 12 apples.\n\nLet me know if you have questions!": "12",
}


@pytest.mark.parametrize(("text", "answer"), ANSWERS.items())
def test_the_final_answer_of_a_text(text: str, answer: str) -> None:
    assert votes.final_answer(text) == answer


@pytest.mark.parametrize(
    "text", ["", "The capital is Paris.", "```python\nprint(1)\n```", "<think>the answer is 3"]
)
def test_a_text_without_a_final_answer(text: str) -> None:
    assert votes.final_answer(text) is None


def never(_one: str, _other: str) -> bool:
    return False


def test_samples_in_other_words_agree_on_their_answer() -> None:
    texts = ["First 2+2. The answer is 4.", "The answer is 5.", "I count.\n\\boxed{4}"]
    assert votes.clusters(texts, never) == [[texts[0], texts[2]], [texts[1]]]


def test_an_empty_sample_has_no_vote() -> None:
    texts: list[str | None] = ["", "  ", "<think>hm</think>", "The answer is 4.", None]
    assert votes.clusters(texts, never) == [["The answer is 4."]]
    assert votes.clusters(["", None], never) == []


def test_whole_texts_are_compared_where_there_is_no_answer() -> None:
    texts = ["Roses are red.", "Violets are blue.", "Roses are red!"]
    groups = votes.clusters(texts, lambda one, other: one[:5] == other[:5])
    assert groups == [[texts[0], texts[2]], [texts[1]]]


def test_a_text_with_an_answer_never_joins_one_without() -> None:
    texts = ["The answer is 4.", "Four."]
    assert votes.clusters(texts, lambda *_: True) == [[texts[0]], [texts[1]]]


def test_whether_the_vote_differs_from_that_on_whole_texts() -> None:
    texts = ["First 2+2. The answer is 4.", "\\boxed{4}"]
    assert votes.changed(texts, votes.clusters(texts, never))
    same = ["The answer is 4.", "The answer is 4."]
    assert not votes.changed(same, votes.clusters(same, never))
    prose = ["Roses are red.", "Roses are red!"]
    assert not votes.changed(prose, votes.clusters(prose, lambda *_: True))
    assert votes.changed(["", "The answer is 4."], [["The answer is 4."]])
    assert not votes.changed([], [])


@given(st.text(max_size=200))
def test_any_text_has_an_answer_or_none(text: str) -> None:
    answer = votes.final_answer(text)
    assert answer is None or answer


@given(st.lists(st.text(max_size=30), max_size=6))
def test_every_sample_with_a_text_votes_once(texts: list[str]) -> None:
    voted = [text for group in votes.clusters(texts, never) for text in group]
    assert sorted(voted) == sorted(text for text in texts if votes.has_text(text))
