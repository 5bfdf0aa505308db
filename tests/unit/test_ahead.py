"""Calls that a strategy is going to make, whatever an earlier one says."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest

from optictl.guard import ahead
from optictl.guard.ahead import Ahead, expected
from optictl.guard.exchanges import Exchange, Sample
from optictl.guard.threads import HEAD_START, Threads, side_by_side

THREADS = Threads()


def body(*contents: str, **fields: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": content} for content in contents]
    return {"model": "m", "messages": messages, **fields}


def candidates(*texts: str, asked: int = 0, **fields: Any) -> Exchange:
    samples = [Sample(text) for text in texts]
    return Exchange("candidate", asked or len(texts), samples, **fields)


RATE = "Rate the above response:"


class TestExpected:
    def test_the_samples_of_self_consistency(self) -> None:
        asked = body("q")
        assert expected("self_consistency", asked, []) == [asked] * 4
        made = [candidates("a"), candidates("b"), candidates("c")]
        assert expected("self_consistency", asked, made) == [asked]
        assert expected("self_consistency", asked, [*made, candidates("d")]) == []

    @pytest.mark.parametrize("strategy", ["moa", "bon"])
    def test_candidates_after_a_call_for_all_of_them_failed(self, strategy: str) -> None:
        asked = body("q")
        failed = candidates(asked=3, failed=True)
        assert expected(strategy, asked, [failed]) == [asked] * 2
        assert expected(strategy, asked, [failed, candidates("a")]) == [asked]
        assert expected(strategy, body("q", n=3), []) == []

    def test_the_ratings_of_bon(self) -> None:
        made = [candidates("first", "second", "third")]
        asked = body("q", "first", RATE)
        assert expected("bon", asked, made) == [
            body("q", "second", RATE),
            body("q", "third", RATE),
        ]
        rated = [*made, Exchange("rating", 1, [Sample("3")])]
        assert expected("bon", body("q", "second", RATE), rated) == [body("q", "third", RATE)]

    def test_a_text_that_is_not_the_next_one_shows_nothing(self) -> None:
        made = [candidates("first", "second", "third")]
        assert expected("bon", body("q", "third", RATE), made) == []

    def test_the_verification_of_pvg(self) -> None:
        made = [
            Exchange("call", 2, [Sample("a1"), Sample("a2")]),
            Exchange("call", 1, [Sample("Score: 3")]),
        ]
        made[1:] = [Exchange("call", 2, [Sample("b1"), Sample("b2")])]
        asked = body("Problem: q\n\nSolution: a1")
        assert [one["messages"][0]["content"][-2:] for one in expected("pvg", asked, made)] == [
            "a2",
            "b1",
            "b2",
        ]

    @pytest.mark.parametrize("strategy", ["plansearch", "re2", "mcts", "leap", "none"])
    def test_what_depends_on_the_answer_is_not_expected(self, strategy: str) -> None:
        assert expected(strategy, body("q"), [Exchange("call", 1, [Sample("q")])]) == []


class Model:
    """Answers after `seconds`, with the number of the call."""

    def __init__(self, seconds: float) -> None:
        self.seconds, self.began = seconds, list[float]()
        self._lock = threading.Lock()

    def __call__(self, _asked: dict[str, Any], _number: int) -> int:
        with self._lock:
            self.began.append(time.monotonic())
            number = len(self.began)
        time.sleep(self.seconds)
        return number


def in_turn(model: Model, count: int) -> list[int]:
    """What a strategy gets that asks one question several times."""
    made: list[int] = []
    run = Ahead(THREADS, model, lambda asked: [asked] * (count - 1 - len(made)))
    for _ in range(count):
        made.append(run.call(body("q")))
    return made


def test_slow_calls_run_side_by_side() -> None:
    model = Model(4 * HEAD_START)
    assert sorted(in_turn(model, 5)) == [1, 2, 3, 4, 5]
    assert max(model.began) - min(model.began) < 3 * HEAD_START


def test_quick_calls_run_in_turn() -> None:
    model = Model(0.0)
    assert in_turn(model, 5) == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("seconds", [0.0, 2 * HEAD_START])
def test_equal_calls_are_numbered_in_the_order_of_the_strategy(seconds: float) -> None:
    def perform(_asked: dict[str, Any], number: int) -> int:
        time.sleep(seconds)
        return number

    made: list[int] = []
    run = Ahead(THREADS, perform, lambda asked: [asked] * (3 - len(made)))
    for _ in range(4):
        made.append(run.call(body("q")))
    assert made == [0, 1, 2, 3]
    assert run.call(body("other")) == 0


def test_what_was_not_expected_is_called_when_it_is_asked_for() -> None:
    seen: list[str] = []

    def perform(asked: dict[str, Any], _number: int) -> str:
        seen.append(asked["messages"][0]["content"])
        time.sleep(2 * HEAD_START)
        return seen[-1]

    run = Ahead(THREADS, perform, lambda asked: [body("b")] if asked == body("a") else [])
    assert run.call(body("a"))
    run.call(body("c"))
    assert sorted(seen) == ["a", "b", "c"]


def test_a_quick_failure_ends_the_turn() -> None:
    made: list[str] = []

    def fails() -> str:
        made.append("fails")
        raise ValueError("no")

    def works() -> str:
        made.append("works")
        return "yes"

    with pytest.raises(ValueError, match="no"):
        side_by_side(THREADS, [fails, works, works], 16)
    assert made == ["fails"]


def test_the_results_have_the_order_of_the_calls() -> None:
    def after(seconds: float) -> Any:
        def call() -> float:
            time.sleep(seconds)
            return seconds

        return call

    waits = [3 * HEAD_START, 0.02, 0.0]
    assert side_by_side(THREADS, [after(seconds) for seconds in waits], 16) == waits


def test_there_is_a_limit_of_calls_side_by_side() -> None:
    lock, now, most = threading.Lock(), [0], [0]

    def call() -> None:
        with lock:
            now[0] += 1
            most[0] = max(most[0], now[0])
        time.sleep(2 * HEAD_START)
        with lock:
            now[0] -= 1

    side_by_side(THREADS, [call] * 7, 3)
    assert most[0] == 3


def test_equal_questions_are_told_from_others() -> None:
    assert ahead.question(body("q", n=1)) == ahead.question({"n": 1, **body("q")})
    assert ahead.question(body("q")) != ahead.question(body("r"))
