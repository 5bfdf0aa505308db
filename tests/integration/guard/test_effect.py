"""A strategy has its effect, or says that it had none: the guard with the real OptiLLM."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from optictl.deployment.config import Config
from optictl.guard import traces
from optictl.guard.judgement import CODES
from optictl.host.network import Response
from optictl.proof import evidence
from optictl.proof.standin import Reply, Seen
from testing.support import STRATEGIES

from . import upstreams
from .helpers import Pair, assert_refused, bare_pair, guarded_pair, journal_of, text_of
from .upstreams import FAULTS, HEALTHY, Fault, Model, Steps

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def fixed_one(release: Path) -> Iterator[Pair]:
    """Every fix is on."""
    with guarded_pair(release) as pair:
        yield pair


@pytest.fixture(scope="module")
def new_one(release: Path) -> Iterator[Pair]:
    """Every fix is on, and no model has ignored `n` yet."""
    with guarded_pair(release) as pair:
        yield pair


@pytest.fixture(scope="module")
def plain_one(release: Path) -> Iterator[Pair]:
    """Every fix is off."""
    with guarded_pair(release, extra=["--effect", "none"]) as pair:
        yield pair


def ask(pair: Pair, strategy: str, steps: Steps, **fields: Any) -> httpx.Response:
    fresh = pair.fresh()
    fresh.upstream.respond = Model(strategy, steps).respond
    return fresh.server.ask(f"{strategy}-jerry-xl", **fields)


def codes(response: httpx.Response) -> list[str]:
    return [code for code in response.headers.get("x-optillm-degraded", "").split(",") if code]


def fixed(response: httpx.Response) -> set[str]:
    return {fix for fix in response.headers.get("x-optillm-fixed", "").split(",") if fix}


ALL = {**FAULTS, **upstreams.pairs()}


@pytest.mark.parametrize("fault", ALL.values(), ids=ALL)
def test_a_lost_effect_is_told(fault: Fault, plain_one: Pair) -> None:
    response = ask(plain_one, fault.strategy, fault.steps)
    assert response.status_code == 200, response.text
    assert set(codes(response)) == set(fault.codes)
    assert response.headers["x-optillm-effect"] == ("none" if fault.codes else "full")
    assert fixed(response) == set()


@pytest.mark.parametrize("fault", ALL.values(), ids=ALL)
def test_smoke_judges_it(fault: Fault, plain_one: Pair, fixed_one: Pair) -> None:
    """It fails without an effect, and passes where a fix gave it back; codes are named."""
    model, config = f"{fault.strategy}-jerry-xl", Config()
    for pair, left in ((plain_one, fault.codes), (fixed_one, fault.left)):
        answer = ask(pair, fault.strategy, fault.steps)
        headers = {name.lower(): value for name, value in answer.headers.items()}
        result = evidence.judge(model, config, Response(200, answer.text, headers))
        levels = {CODES[code].level for code in left}
        expected = "fail" if "degraded" in levels else "warn" if levels else "pass"
        assert result.status == expected, result.found
        worst = [code for code in left if CODES[code].level == "degraded"] or left
        assert all(code in result.found for code in worst)
        assert (result.remedy != "") == bool(left)


@pytest.mark.parametrize("fault", ALL.values(), ids=ALL)
def test_what_has_a_fix_is_fixed(fault: Fault, fixed_one: Pair) -> None:
    response = ask(fixed_one, fault.strategy, fault.steps)
    assert response.status_code == 200, response.text
    assert set(codes(response)) == set(fault.left)
    assert fixed(response) >= set(fault.fixes)
    assert text_of(response).strip()


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_healthy_model_has_its_effect(strategy: str, new_one: Pair, plain_one: Pair) -> None:
    for pair in (new_one, plain_one):
        response = ask(pair, strategy, {})
        assert response.status_code == 200
        assert response.headers["x-optillm-effect"] == "full"
        assert codes(response) == []
        assert fixed(response) <= {"caches", "votes"}


def test_the_facts_are_in_the_headers(plain_one: Pair) -> None:
    moa = ask(plain_one, "moa", {}).headers
    assert moa["x-optillm-samples"] == "3/3"
    assert moa["x-optillm-evidence"].startswith("3 of 3 distinct candidates; critique ")
    bon = ask(plain_one, "bon", {}).headers
    assert json.loads(bon["x-optillm-ratings"]) == [3, 9, 6]
    votes = ask(plain_one, "self_consistency", {}).headers
    assert votes["x-optillm-agreement"] == "5/5"


def test_bon_returns_the_candidate_with_the_best_rating(new_one: Pair) -> None:
    response = ask(new_one, "bon", FAULTS["bon of ten"].steps)
    assert json.loads(response.headers["x-optillm-ratings"]) == [3, 9, 6]
    assert text_of(response).startswith("Way 0.1:")


def test_an_empty_sample_never_wins(fixed_one: Pair, plain_one: Pair) -> None:
    steps: Steps = {"candidate": upstreams._some_empty}
    assert "answer is 4" in text_of(ask(fixed_one, "self_consistency", steps))
    # OptiLLM returns the empty text: that is no answer
    fault = ask(plain_one, "self_consistency", {"candidate": lambda call, _n: [("", "stop")]})
    error = assert_refused(fault, 502, "strategy_failed")
    assert "empty text" in error["message"]


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize(
    ("choice", "status", "code", "words"),
    [
        (("", "stop"), 502, "strategy_failed", "empty text"),
        ((None, "length"), 400, "answer_truncated", "finish_reason: length"),
        ((None, "content_filter"), 400, "answer_filtered", "finish_reason: content_filter"),
    ],
)
def test_no_usable_text_is_an_error_that_names_the_cause(
    strategy: str,
    choice: upstreams.Choice,
    status: int,
    code: str,
    words: str,
    fixed_one: Pair,
    plain_one: Pair,
) -> None:
    steps: Steps = {step: lambda _call, count: [choice] * count for step in HEALTHY}
    for pair in (fixed_one, plain_one):
        response = ask(pair, strategy, steps)
        assert response.status_code == status, response.text
        error = response.json()["error"]
        assert words in error["message"]
        assert error["code"] == code
        assert (response.headers.get("x-should-retry") == "false") == (status == 400)


def test_reasoning_that_took_all_tokens_is_named(fixed_one: Pair) -> None:
    def respond(seen: Seen) -> Reply | None:
        body = upstreams.answer(seen.body or {}, [(None, "length")])
        body["usage"]["completion_tokens_details"] = {"reasoning_tokens": 512}
        return Reply(body=body)

    pair = fixed_one.fresh()
    pair.upstream.respond = respond
    error = assert_refused(pair.server.ask("moa-jerry-xl"), 400, "answer_truncated")
    assert "after 512 reasoning tokens" in error["message"]


def test_the_client_gets_the_text_as_the_model_wrote_it(fixed_one: Pair) -> None:
    """The critic, the rater and the voter do not see thinking; the answer has it."""
    for strategy in ("bon", "self_consistency"):
        response = ask(fixed_one, strategy, {"candidate": upstreams._thinking})
        assert text_of(response).startswith("<think>")
        assert "thinking" in fixed(response)
        rated = [
            seen.body
            for seen in fixed_one.upstream.calls()
            if traces.purpose(strategy, (seen.body or {}).get("messages")) == "rating"
        ]
        assert "<think>" not in json.dumps(rated)


@pytest.mark.parametrize("is_streamed", [False, True])
@pytest.mark.parametrize(
    ("strategy", "step"), [("moa", "final"), ("plansearch", "final"), ("bon", "candidate")]
)
def test_a_text_that_the_limit_ended_says_so(
    strategy: str, step: str, is_streamed: bool, new_one: Pair
) -> None:
    """OptiLLM returns the first candidate, or an error text, in the place of a final text."""
    steps: Steps = {step: lambda call, n: [(f"The answer {call}{i}", "length") for i in range(n)]}
    response = ask(new_one, strategy, steps, stream=is_streamed)
    assert response.status_code == 200, response.text
    assert '"finish_reason": "length"' in response.text
    assert "The answer 0" in response.text
    healthy = ask(new_one, strategy, {})
    assert healthy.json()["choices"][0]["finish_reason"] == "stop"


def test_several_answers_are_judged_together(plain_one: Pair) -> None:
    response = ask(plain_one, "moa", FAULTS["moa copies"].steps, n=2)
    assert len(response.json()["choices"]) == 2
    assert codes(response) == ["candidates_identical"]


def test_the_log_the_trace_the_metrics_and_the_state_tell_it(plain_one: Pair) -> None:
    response = ask(plain_one, "moa", FAULTS["moa critique null"].steps)
    server = plain_one.server
    trace = server.get(f"/guard/traces/{response.headers['x-optillm-trace']}").json()
    assert (trace["effect"], trace["degraded"]) == ("none", ["critique_empty"])
    assert [call["codes"] for call in trace["calls"]] == [[], ["critique_empty"], []]
    line = journal_of(server)[-1]
    assert (line["effect"], line["degraded"], line["fixed"]) == ("none", ["critique_empty"], [])
    metrics = server.get("/metrics").text
    labels = 'base_model="jerry-xl",code="critique_empty",deployment="optillm-proxy",strategy="moa"'
    sample = f"optillm_degraded_total{{{labels}}}"
    assert any(line.startswith(sample) and float(line.split()[-1]) for line in metrics.splitlines())
    state = server.get("/guard/state").json()["effect"]
    moa = next(one for one in state if one["strategy"] == "moa")
    assert moa["codes"]["critique_empty"] >= 1
    assert moa["requests"] >= moa["degraded"] >= 1


def test_a_stream_has_the_headers_too(plain_one: Pair) -> None:
    response = ask(plain_one, "moa", FAULTS["moa copies"].steps, stream=True)
    assert codes(response) == ["candidates_identical"]


# -- without fixes: OptiLLM's own functions


@pytest.fixture(scope="module")
def bare_one(release: Path) -> Iterator[Pair]:
    with bare_pair(release, key_demanded=None) as pair:
        yield pair


_CHOICES = st.lists(
    st.tuples(
        st.sampled_from(("4", "The answer is 4.", "8/10", "7", "", None, "<think>x</think>5")),
        st.sampled_from(("stop", "stop", "stop", "length")),
    ),
    min_size=1,
    max_size=3,
)
_SCRIPTS = st.lists(_CHOICES, min_size=1, max_size=6)


def _sent(pair: Pair) -> list[dict[str, Any]]:
    """What reached the upstream, without the guard's mark, and without OptiLLM's label."""
    ignored = {"extra_headers", "stream", "stream_options"}
    calls = [
        {name: value for name, value in (seen.body or {}).items() if name not in ignored}
        for seen in pair.upstream.calls()
    ]
    # bare OptiLLM puts it before a lone message
    return [json.loads(json.dumps(call).replace("User: What is", "What is")) for call in calls]


@pytest.mark.parametrize("strategy", STRATEGIES)
@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(script=_SCRIPTS)
def test_without_fixes_the_calls_and_the_answer_are_those_of_optillm(
    strategy: str, script: list[list[upstreams.Choice]], plain_one: Pair, bare_one: Pair
) -> None:
    answers: list[str | None] = []
    for pair in (plain_one, bare_one):
        left = list(script)

        def respond(seen: Seen, left: list[list[upstreams.Choice]] = left) -> Reply | None:
            if seen.method != "POST":
                return None
            choices = left.pop(0) if len(left) > 1 else left[0]
            return Reply(body=upstreams.answer(seen.body or {}, choices))

        fresh = pair.fresh()
        fresh.upstream.respond = respond
        response = fresh.server.ask(f"{strategy}-jerry-xl")
        is_answer = response.status_code == 200
        text = response.json()["choices"][0]["message"]["content"] if is_answer else None
        answers.append(text)
    guarded, own = answers
    assert _sent(plain_one) == _sent(bare_one)
    # the guard sends no empty text on
    if guarded is not None and own:
        assert guarded == own
