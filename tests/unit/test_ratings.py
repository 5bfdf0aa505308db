"""Ratings as models write them, read as numbers from 0 to 10."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from optictl.guard import ratings

READ = {
    "8": 8,
    "8.5": 8.5,
    "8,5": 8.5,
    "0": 0,
    "10": 10,
    "8.": 8,
    "eight": 8,
    "**8**": 8,
    "8/10": 8,
    "8 / 10": 8,
    "10/10": 10,
    "8 out of 10": 8,
    "rating of 8.5 out of 10": 8.5,
    "Rating: 8": 8,
    "Rating:\n8": 8,
    "Rating: **8**": 8,
    "**Rating:** 7/10\n\n**Reasoning:** step 1 of 3 is wrong": 7,
    "Score=7": 7,
    "Score: **7**/10": 7,
    "My rating for this response is 6.": 6,
    "I'd rate this 7.5 out of 10.": 7.5,
    "I'd score this an 8": 8,
    "This response deserves a solid 8.": 8,
    "7 - the response is clear": 7,
    "8. The answer is good": 8,
    "The response is good.\n\n8": 8,
    "Rating: 8\n\nThe response is good because 2+2=4.": 8,
    "Rating: 8. The value 1/2 is correct": 8,
    "9/10 - excellent, though step 2/3 is unclear": 9,
    "I give it points for 2 steps.\nRating: 6": 6,
    "1. Relevance: 8\n2. Coherence: 7\n3. Overall: 7.5": 7.5,
    "Final rating: **8**\n\nLet me know if you need 2 more.": 8,
    "Here is my rating: 9": 9,
    "\\boxed{9}": 9,
    "<think>maybe 7 or 8</think>8": 8,
    # other scales, where the text says so
    "4/5": 8,
    "3/4": 7.5,
    "80/100": 8,
    "80%": 8,
    "On a scale from 1 to 5, I rate it a 4.": 8,
    "On a 5-point scale: 4": 8,
    "Rate: 8 (on a scale of 0-10)": 8,
    "I would rate the response 0 to 10 as follows: 6": 6,
    # JSON
    '{"rating": 8}': 8,
    '{"rating": "8/10"}': 8,
    '{"Overall Score": 9}': 9,
    '{"relevance": 9, "coherence": 8, "overall": 8.5}': 8.5,
    '```json\n{"score": 4, "scale": 5}\n```': 8,
    'My verdict: {"value": 7}': 7,
}


@pytest.mark.parametrize(("text", "value"), READ.items())
def test_a_rating_is_read_as_what_it_says(text: str, value: float) -> None:
    assert ratings.read(text) == value


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no number here",
        "The answer has 3 steps and 2 errors",
        "11",
        "-1",
        "100",
        "\u2605\u2605\u2605\u2605\u2606",
        "<think>I would say 8",
        '{"rating": true}',
        "{" * 50,
    ],
)
def test_a_text_without_a_rating_has_none(text: str) -> None:
    assert ratings.read(text) is None


@pytest.mark.parametrize(("text", "is_bare"), [("8", True), (" 7.5\n", True), ("nan", False)])
def test_what_optillm_reads_itself(text: str, is_bare: bool) -> None:
    assert ratings.is_bare(text) is is_bare


@given(st.text(max_size=200))
def test_any_text_is_read_or_not(text: str) -> None:
    value = ratings.read(text)
    assert value is None or 0 <= value <= ratings.SCALE


@given(st.integers(0, 10), st.sampled_from(["{}", "{}/10", "Rating: {}", "**{}**", "{} out of 10"]))
def test_every_way_to_write_it_is_the_same(value: int, form: str) -> None:
    assert ratings.read(form.format(value)) == value
    assert ratings.read(json.dumps({"score": value})) == value
