"""The answers of the stand-in: candidates that differ, and ratings that can be read."""

from __future__ import annotations

from typing import Any

from optictl.proof.standin import LABEL, completion


def texts(*contents: str, n: int = 1, text: str | None = None) -> list[str]:
    messages: list[Any] = [{"role": "user", "content": content} for content in contents]
    answer = completion({"model": "jerry-xl", "messages": messages, "n": n}, text)
    return [choice["message"]["content"] for choice in answer["choices"]]


def test_candidates_differ_and_say_who_wrote_them() -> None:
    candidates = texts("What is it?", n=3)
    assert len(set(candidates)) == 3
    assert all(LABEL in candidate for candidate in candidates)


def test_each_candidate_gets_another_rating_and_the_last_the_best() -> None:
    """As `bon` asks: the question, the candidate, and the request for a number."""
    candidates = texts("What is it?", n=3)
    ratings = [
        float(texts("What is it?", candidate, "Rate the above response:")[0])
        for candidate in candidates
    ]
    assert ratings == [7, 8, 9]


def test_a_candidate_of_another_model_is_rated_too() -> None:
    assert texts("What is it?", "It is five.", "Rate the above response:") == ["5"]


def test_only_that_request_is_for_a_rating() -> None:
    assert LABEL in texts("Rate the above response:")[0]
    assert LABEL in texts("a", "b", "Rate the above response: or not")[0]
    assert texts("a", "b", "Rate the above response:", text="scripted") == ["scripted"]
