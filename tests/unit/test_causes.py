"""The cause of a lost effect: the words of the call that lost it, short and safe to print."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from optictl.guard.judgement import CODES
from optictl.requests.causes import cause
from optictl.requests.tracing import Call, Trace

PARAGRAPH = (
    "This response is clear and well organized. It names both prices, explains the difference, "
    "and ends with the correct result, so it deserves a high rating."
)


def call(purpose: str, *codes: str, answers: list[Any] | None = None, **more: Any) -> Call:
    given = {"status": 200, "error": "", "completion_tokens": 256, **more}
    return Call(
        purpose,
        "jerry-xl",
        0.0,
        1.0,
        completions=1,
        prompt_tokens=10,
        codes=codes,
        answers=answers,
        **given,
    )


def trace(*calls: Call) -> Trace:
    return Trace("feed", "bon", "jerry-xl", 1.0, 200, "", 10, 5, calls)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (
            PARAGRAPH,
            "the rating model answered with a paragraph: "
            '"This response is clear and well organized. It names both..."',
        ),
        (
            "I would say it is good.",
            'the rating model answered with a text without a rating: "I would say it is good."',
        ),
        ("", "the rating model answered with no text after 256 tokens"),
        (None, "the rating model answered with no text after 256 tokens"),
    ],
)
def test_a_rating_that_holds_no_number(answer: str | None, said: str) -> None:
    bad = call("rating", "ratings_unreadable", answers=[answer])
    good = call("candidate", answers=["a candidate"])
    assert cause(["ratings_unreadable"], trace(good, bad)) == said


def test_a_text_that_reached_its_limit_is_quoted_at_its_end() -> None:
    bad = call("critique", "critique_truncated", answers=["Candidate 1 " + "is fine. " * 99])
    said = cause(["critique_truncated"], trace(bad))
    assert said.startswith('the call for the critique stopped after 256 tokens: "...')
    assert said.endswith('is fine."')


def test_an_empty_answer_has_its_tokens() -> None:
    bad = call("final", "final_empty", answers=[""], completion_tokens=4096)
    assert cause(["final_empty"], trace(bad)) == (
        "the call for the final answered with no text after 4096 tokens"
    )


def test_one_empty_sample_of_several_is_the_one_that_is_meant() -> None:
    bad = call("candidate", "samples_empty", answers=["a text", ""])
    assert "no text" in cause(["samples_empty"], trace(bad))


def test_a_call_that_failed() -> None:
    bad = call("rating", "step_failed", status=429, error="rate_limited")
    assert cause(["step_failed"], trace(bad)) == 'the rating model failed: "rate_limited"'
    none = call("call", "step_failed", status=500)
    assert cause(["step_failed"], trace(none)) == 'a call failed: "500"'


def test_without_contents_the_tokens_are_known() -> None:
    bad = call("critique", "critique_truncated", completion_tokens=512)
    assert cause(["critique_truncated"], trace(bad)) == (
        "the call for the critique answered with 512 tokens"
    )


def test_each_code_once_and_only_those_that_were_asked_for() -> None:
    first = call("candidate", "candidates_identical", answers=["same"])
    second = call("candidate", "step_truncated", answers=["other"])
    codes = ["candidates_identical", "no_agreement"]
    assert cause(codes, trace(first, second)) == 'the call for the candidate answered: "same"'
    assert cause([*codes, "step_truncated"], trace(first, second)).count("; ") == 1
    assert cause(codes, trace(second)) == ""
    assert cause([], trace(first)) == ""


@given(st.sampled_from(list(CODES)), st.text(max_size=300))
def test_a_quotation_is_short_and_on_one_line(code: str, text: str) -> None:
    said = cause([code], trace(call("rating", code, answers=[text])))
    assert said.isprintable()
    if '"' in said:
        assert len(said.split('"', 1)[1]) <= 61
