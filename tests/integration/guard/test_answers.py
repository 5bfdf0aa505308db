"""What a client gets of the model's answer, what a limit leaves of it, and who it is asked for."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from optictl.proof.standin import Reply, Seen, completion
from testing.support import STRATEGIES

from .helpers import CALLS, Pair, assert_refused, guarded_pair, text_of, wait_until_logged

pytestmark = pytest.mark.slow

MAX_CALLS = 12
LOGPROBS = {"content": [{"token": "4", "logprob": -0.1, "bytes": None, "top_logprobs": []}]}
TRACE = {
    "traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
    "tracestate": "vendor=1",
}
WHO = {"user": "alice", "safety_identifier": "a-1", "metadata": {"tags": ["team-a"]}}


@pytest.fixture(scope="module")
def running(release: Path) -> Iterator[Pair]:
    flags = ["--max-upstream-calls", str(MAX_CALLS), "--answer-tokens", "3000"]
    strategies = [*STRATEGIES, "re2", "majority_voting"]
    with guarded_pair(release, strategies=strategies, extra=flags) as pair:
        yield pair


@pytest.fixture
def pair(running: Pair) -> Pair:
    return running.fresh()


def choice(text: str | None, finish: str = "stop", **beside: Any) -> dict[str, Any]:
    logprobs = beside.pop("logprobs", None)
    message = {"role": "assistant", "content": text, **beside}
    return {"index": 0, "message": message, "finish_reason": finish, "logprobs": logprobs}


def answering(*shapes: dict[str, Any], **usage: Any) -> Callable[[Seen], Reply | None]:
    """Each choice is one of these shapes, in turn, and the last one from then on."""
    left = list(shapes)

    def respond(seen: Seen) -> Reply | None:
        if seen.body is None:
            return None
        whole = completion(seen.body)
        for place, _ in enumerate(whole["choices"]):
            shape = left.pop(0) if len(left) > 1 else left[0]
            whole["choices"][place] = {**shape, "index": place}
        whole["usage"] |= usage
        return Reply(body=whole)

    return respond


def chunks_of(response: httpx.Response) -> list[dict[str, Any]]:
    assert response.status_code == 200, response.text
    lines = [line for line in response.text.splitlines() if line.startswith("data: {")]
    return [json.loads(line.removeprefix("data: ")) for line in lines]


def joined(chunks: list[dict[str, Any]], name: str) -> str:
    deltas = [one["delta"] for chunk in chunks for one in chunk["choices"]]
    return "".join(delta.get(name) or "" for delta in deltas)


# what the model sent


@pytest.mark.parametrize("strategy", ["moa", "bon", "self_consistency", "re2"])
def test_what_came_with_the_text_goes_with_the_answer(pair: Pair, strategy: str) -> None:
    pair.upstream.respond = answering(choice("4", reasoning_content="2 + 2.", logprobs=LOGPROBS))
    (found,) = pair.server.ask(f"{strategy}-jerry-xl").json()["choices"]
    assert found["message"]["content"] == "4"
    assert found["message"]["reasoning_content"] == "2 + 2."
    assert found["logprobs"] == LOGPROBS
    chunks = chunks_of(pair.server.ask(f"{strategy}-jerry-xl", stream=True))
    assert joined(chunks, "content") == "4"
    assert joined(chunks, "reasoning_content") == "2 + 2."
    probabilities = [one["logprobs"] for chunk in chunks for one in chunk["choices"]]
    assert [one for one in probabilities if one] == [LOGPROBS]


@pytest.mark.parametrize(("strategy", "asked"), [("moa", 1), ("bon", 1), ("self_consistency", 5)])
def test_probabilities_are_asked_for_where_the_text_is_the_answer(
    pair: Pair, strategy: str, asked: int
) -> None:
    response = pair.server.ask(f"{strategy}-jerry-xl", logprobs=True, top_logprobs=2)
    assert response.status_code == 200, response.text
    assert "x-optillm-dropped" not in response.headers
    sent = [seen.body or {} for seen in pair.upstream.calls()]
    with_them = [body for body in sent if body.get("logprobs") is True]
    assert len(with_them) == asked
    assert {body["top_logprobs"] for body in with_them} == {2}


def test_the_details_of_the_usage_are_sums_over_all_calls(pair: Pair) -> None:
    pair.upstream.respond = answering(
        choice("4"),
        prompt_tokens_details={"cached_tokens": 7},
        completion_tokens_details={"reasoning_tokens": 2},
    )
    usage = pair.server.ask("moa-jerry-xl").json()["usage"]
    assert usage["prompt_tokens_details"] == {"cached_tokens": 7 * CALLS["moa"]}
    assert usage["completion_tokens_details"] == {"reasoning_tokens": 2 * CALLS["moa"]}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_refusal_of_the_model_is_the_answer(pair: Pair, strategy: str, stream: bool) -> None:
    pair.upstream.respond = answering(choice(None, refusal="I will not."))
    response = pair.server.ask(f"{strategy}-jerry-xl", stream=stream)
    if stream:
        chunks = chunks_of(response)
        assert (joined(chunks, "content"), joined(chunks, "refusal")) == ("", "I will not.")
    else:
        (found,) = response.json()["choices"]
        assert (found["message"]["content"], found["message"]["refusal"]) == (None, "I will not.")


@pytest.mark.parametrize("strategy", ["moa", "bon", "self_consistency"])
def test_an_answer_may_quote_an_error_text_of_optillm(pair: Pair, strategy: str) -> None:
    words = "Error: Could not generate any completions. That is what it means."
    pair.upstream.respond = answering(choice(words))
    assert text_of(pair.server.ask(f"{strategy}-jerry-xl")) == words


# the token limit of the service


def limits_of(pair: Pair) -> set[int | None]:
    return {(seen.body or {}).get("max_tokens") for seen in pair.upstream.calls()}


def test_a_client_without_a_limit_gets_that_of_the_service(pair: Pair) -> None:
    pair.server.ask("moa-jerry-xl")
    assert limits_of(pair) == {3000, 4096}  # that of a critique is another one
    for strategy in ("bon", "self_consistency", "plansearch", "majority_voting"):
        pair.upstream.seen.clear()
        pair.server.ask(f"{strategy}-jerry-xl")
        assert limits_of(pair) <= {3000, 1024}, strategy
        assert 3000 in limits_of(pair), strategy
    pair.upstream.seen.clear()
    pair.server.ask("re2-jerry-xl")  # it sets none
    assert limits_of(pair) == {None}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("strategy", ["self_consistency", "majority_voting", "moa"])
def test_a_limit_of_the_service_that_cut_something_is_named(
    pair: Pair, strategy: str, stream: bool
) -> None:
    pair.upstream.respond = answering(choice("The answer: 4", "length"))
    response = pair.server.ask(f"{strategy}-jerry-xl", stream=stream)
    said = chunks_of(response)[-1] if stream else response.json()
    assert said["optillm"] == {"limited_by": ["effect.answer_tokens"]}
    assert response.headers["x-optillm-limited-by"] == "effect.answer_tokens"
    own = pair.server.ask(f"{strategy}-jerry-xl", max_tokens=3000)
    assert "optillm" not in own.json()
    assert "x-optillm-limited-by" not in own.headers


# the limit of calls


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("strategy", "n"), [("moa", 5), ("bon", 4), ("self_consistency", 128)])
def test_what_cannot_stay_within_the_limit_is_refused_at_the_door(
    pair: Pair, strategy: str, n: int, stream: bool
) -> None:
    response = pair.server.ask(f"{strategy}-jerry-xl", n=n, stream=stream)
    error = assert_refused(response, 400, "upstream_call_limit")
    most = MAX_CALLS // CALLS[strategy]
    assert f"ask for at most {most} answers" in error["message"]
    assert (error["param"], response.headers["x-should-retry"]) == ("n", "false")
    assert pair.upstream.seen == []
    assert len(pair.server.ask(f"{strategy}-jerry-xl", n=most).json()["choices"]) == most


def test_the_samples_that_a_client_asks_for_count_at_the_door(pair: Pair) -> None:
    samples = {"samples": MAX_CALLS}  # and as many ratings, and the call for the samples
    response = pair.server.ask("bon-jerry-xl", strategy_options=samples)
    error = assert_refused(response, 400, "upstream_call_limit")
    assert f"needs {MAX_CALLS + 1} upstream calls (for bon)" in error["message"]
    assert pair.upstream.seen == []


@pytest.mark.parametrize("stream", [False, True])
def test_the_answers_that_are_finished_at_the_limit_are_returned(pair: Pair, stream: bool) -> None:
    """A rating that has to be asked for again is a call that the door cannot know of."""
    pair.upstream.respond = lambda seen: (
        Reply(body=completion(seen.body or {}, "It is good."))
        if "Rate the above response:" in str(seen.body)
        else None
    )
    response = pair.server.ask("bon-jerry-xl", n=2, stream=stream)
    said = chunks_of(response)[-1] if stream else response.json()
    assert said["optillm"] == {"limited_by": ["limits.max_upstream_calls"]}
    assert response.headers["x-optillm-limited-by"] == "limits.max_upstream_calls"
    if not stream:
        assert len(said["choices"]) == 1
        assert len(pair.upstream.calls()) <= MAX_CALLS


def test_a_request_without_an_answer_at_the_limit_names_what_is_finished(pair: Pair) -> None:
    pair.upstream.respond = answering(choice(""))
    error = assert_refused(pair.server.ask("moa-jerry-xl", n=4), 400, "upstream_call_limit")
    said, _, finished = error["message"].partition("; finished by then: ")
    assert said.startswith(f"the strategy needs more than {MAX_CALLS} upstream calls")
    assert finished.endswith(" candidate")


# who asks


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("strategy", [*STRATEGIES, "majority_voting"])
def test_who_asks_goes_with_every_call(pair: Pair, strategy: str, stream: bool) -> None:
    own = {"x-litellm-tags": "team-a", "x-litellm-end-user-id": "alice"}
    body = {
        "model": f"{strategy}-jerry-xl",
        "messages": [{"role": "user", "content": "2 + 2?"}],
        "stream": stream,
        **WHO,
    }
    response = pair.server.post(body, headers={**TRACE, **own})
    assert response.status_code == 200, response.text
    assert "x-optillm-dropped" not in response.headers
    assert len(pair.upstream.calls()) == CALLS.get(strategy, 1)
    for seen in pair.upstream.calls():
        sent = seen.body or {}
        assert {name: sent.get(name) for name in WHO} == WHO
        assert {name: seen.headers.get(name) for name in (*TRACE, *own)} == {**TRACE, **own}
        # LiteLLM sends these on to the model
        assert TRACE.items() <= sent["extra_headers"].items()
    trace = response.headers["x-optillm-trace"]
    assert wait_until_logged(pair.server, trace)["traceparent"] == TRACE["traceparent"]
    known = pair.server.get(f"/guard/traces/{trace}").json()
    assert known["traceparent"] == TRACE["traceparent"]
    assert "alice" not in pair.server.journal()


def test_a_trace_that_is_not_valid_is_not_passed_on(pair: Pair) -> None:
    body = {"model": "re2-jerry-xl", "messages": [{"role": "user", "content": "2 + 2?"}]}
    response = pair.server.post(body, headers={"traceparent": "00-1-2-3", "tracestate": "a=b"})
    assert response.status_code == 200
    (seen,) = pair.upstream.calls()
    assert not TRACE.keys() & (seen.headers.keys() | (seen.body or {})["extra_headers"].keys())


@pytest.mark.parametrize(("name", "value"), [("user", 3), ("metadata", "a"), ("user", {"a": 1})])
def test_a_field_of_another_type_is_refused(pair: Pair, name: str, value: Any) -> None:
    error = assert_refused(pair.server.ask("moa-jerry-xl", **{name: value}), 400, "invalid_request")
    assert error["param"] == name
    assert pair.upstream.seen == []
