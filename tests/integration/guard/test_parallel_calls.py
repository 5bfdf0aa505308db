"""Calls that do not depend on each other run side by side, and change nothing else."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from optictl.guard import traces
from testing.support import Server, bare

from . import slow
from .helpers import text_of
from .slow import Failure, SlowModel

pytestmark = pytest.mark.slow

STRATEGIES = ("moa", "bon", "plansearch", "self_consistency", "pvg")


@dataclass
class Served:
    """A service and the slow model behind it."""

    server: Server
    model: SlowModel

    def ask(self, strategy: str, **fields: Any) -> tuple[httpx.Response, float]:
        """The response, and how long it took in units of the model's time for a call."""
        self.model.calls.clear()
        since = time.monotonic()
        response = self.server.ask(f"{strategy}-jerry-xl", **fields)
        return response, (time.monotonic() - since) / self.model.seconds


@contextmanager
def served(release: Path, *extra: str, seconds: float = 0.6, **options: Any) -> Iterator[Served]:
    with slow.served(release, STRATEGIES, extra, SlowModel(seconds, **options)) as (server, model):
        yield Served(server, model)


@pytest.fixture(scope="module")
def parallel(release: Path) -> Iterator[Served]:
    with served(release) as one:
        yield one


@pytest.mark.parametrize(
    ("strategy", "calls", "chain"),
    [
        ("self_consistency", 5, 1),
        ("bon", 4, 2),  # candidates, then their ratings
        ("moa", 3, 3),  # each needs the one before
        ("plansearch", 4, 4),
    ],
)
def test_a_request_takes_as_long_as_its_longest_chain(
    strategy: str, calls: int, chain: int, parallel: Served
) -> None:
    response, took = parallel.ask(strategy)
    assert response.status_code == 200, response.text
    assert len(parallel.model.calls) == calls
    assert chain <= took < chain + 0.7


def test_several_answers_are_made_side_by_side(parallel: Served) -> None:
    response, took = parallel.ask("bon", n=3)
    assert len(response.json()["choices"]) == 3
    assert len(parallel.model.calls) == 12
    assert took < 2.9


@pytest.mark.parametrize("shape", ["refuses_n", "ignores_n"])
def test_candidates_that_the_model_does_not_return_at_once(shape: str, release: Path) -> None:
    """From the second request on, the guard knows: they are asked for side by side at once."""
    options = {"refuses_n": True} if shape == "refuses_n" else {"honours_n": False}
    with served(release, **options) as one:
        for _ in range(2):
            response, took = one.ask("moa")
            assert response.headers["x-optillm-samples"] == "3/3", response.text
        assert len(one.model.calls) == 5  # three candidates, critique, final
        assert took < 3.5


def test_one_at_a_time_is_the_order_of_optillm(release: Path) -> None:
    with served(release, "--parallel-calls", "1", seconds=0.15) as one:
        for strategy, calls in (("self_consistency", 5), ("bon", 4)):
            response, _ = one.ask(strategy)
            assert response.status_code == 200
            assert len(one.model.calls) == calls
            assert one.model.most_at_once() == 1
        response, _ = one.ask("bon", n=2)
        assert len(response.json()["choices"]) == 2
        assert one.model.most_at_once() == 1


def test_the_limit_holds_for_each_request(release: Path) -> None:
    with served(release, "--parallel-calls", "3", seconds=0.3) as one:
        response, _ = one.ask("self_consistency")
        assert response.status_code == 200
        assert len(one.model.calls) == 5
        assert one.model.most_at_once() == 3
        response, _ = one.ask("self_consistency", n=2)
        assert len(one.model.calls) == 10
        assert one.model.most_at_once() == 3


def test_a_refusal_at_once_costs_one_call(release: Path) -> None:
    refusal = Failure(400, {"error": {"message": "not this", "code": "400"}})
    with served(release, answer=lambda _body, _number: refusal) as one:
        response, _ = one.ask("self_consistency")
        assert response.status_code == 400
        assert len(one.model.calls) == 1
        response, _ = one.ask("self_consistency", n=3)
        assert len(one.model.calls) == 1


def test_the_trace_has_the_calls_in_order_and_side_by_side(parallel: Served) -> None:
    response, _ = parallel.ask("bon")
    place = f"/guard/traces/{response.headers['x-optillm-trace']}"
    calls = parallel.server.get(place).json()["calls"]
    assert [call["purpose"] for call in calls] == ["candidate", "rating", "rating", "rating"]
    assert len({call["thread"] for call in calls[1:]}) == 3
    assert max(call["start"] for call in calls[1:]) - min(call["start"] for call in calls[1:]) < 0.3


# -- OptiLLM's own functions, one call after the other

_TEXTS = ("The answer is 4.", "It must be 5, as I see it.", "7", "Score: 3\nExplanation: short")


def _unlabelled(text: str) -> str:
    """Without what bare OptiLLM puts before a lone message."""
    return text.replace("User: What is", "What is")


def _answer(script: list[str]) -> Any:
    """A text that depends on nothing but the question."""

    def answer(body: dict[str, Any], _number: int) -> str:
        text = _unlabelled(json.dumps(body["messages"][-2:], sort_keys=True))
        step = traces.purpose("bon", body["messages"])
        chosen = script[sum(map(ord, text)) % len(script)]
        return str(sum(map(ord, text)) % 11) if step == "rating" else chosen

    return answer


def _sent(model: SlowModel) -> list[str]:
    """What reached the model, without the guard's marks, and without OptiLLM's label."""
    ignored = {"extra_headers", "stream", "stream_options", "cache"}
    bodies = ({k: v for k, v in call.body.items() if k not in ignored} for call in model.calls)
    return sorted(_unlabelled(json.dumps(body, sort_keys=True)) for body in bodies)


@pytest.fixture(scope="module")
def pairs(release: Path) -> Iterator[tuple[Served, Served]]:
    """The guard without fixes, and bare OptiLLM. A call is longer than the head start."""
    seconds = 0.15
    with (
        served(release, "--effect", "none", seconds=seconds) as ours,
        SlowModel(seconds).running() as model,
        bare(release, model.base_url) as server,
    ):
        yield ours, Served(server, model)


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("honours_n", [True, False])
@settings(
    max_examples=3, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(script=st.lists(st.sampled_from(_TEXTS), min_size=1, max_size=4))
def test_the_calls_and_the_answer_are_those_of_optillm(
    strategy: str, honours_n: bool, script: list[str], pairs: tuple[Served, Served]
) -> None:
    answers = []
    for one in pairs:
        one.model.answer = _answer(script)
        one.model.honours_n = honours_n
        response, _ = one.ask(strategy)
        answers.append(text_of(response))
    ours, bare_one = pairs
    assert answers[0] == answers[1]
    assert _sent(ours.model) == _sent(bare_one.model)
