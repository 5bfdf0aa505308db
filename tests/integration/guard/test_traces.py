"""/guard/traces: the last requests, call by call; prompts and answers only when asked for."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from optictl.proof.standin import Reply
from optictl.requests import tracing
from testing.support import PROXY_KEY, STRATEGIES, UPSTREAM_KEY

from .helpers import BOOM, MARK, Pair, assert_refused, assert_silent, guarded_pair, spent

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def running(release: Path) -> Iterator[Pair]:
    with guarded_pair(
        release,
        strategies=[*STRATEGIES, "re2", "mars"],
        extra=["--max-traces", "5", "--max-upstream-calls", "400"],
    ) as pair:
        yield pair


@pytest.fixture
def pair(running: Pair) -> Pair:
    return running.fresh()


def ask_for_contents(pair: Pair, model: str, text: str, value: str = "1") -> httpx.Response:
    """A request with the header that asks for its contents to be kept."""
    body = {"model": model, "messages": [{"role": "user", "content": text}]}
    return pair.server.post(body, headers={"x-optillm-trace-content": value})


def trace_of(pair: Pair, answer: httpx.Response) -> dict[str, Any]:
    """The trace that an answer names."""
    response = pair.server.get(f"/guard/traces/{answer.headers['x-optillm-trace']}")
    assert response.status_code == 200, response.text
    data = dict(response.json())
    # optictl reads each of them, and says the same
    read = tracing.parse(data).as_dict()
    assert read == {name: data[name] for name in read if name != "calls"} | {"calls": read["calls"]}
    for call, shown in zip(data["calls"], read["calls"], strict=True):
        assert shown == {name: call[name] for name in shown}
    return data


@pytest.mark.parametrize(
    ("strategy", "purposes"),
    [
        ("moa", ["candidate", "critique", "final"]),
        ("bon", ["candidate", "rating", "rating", "rating"]),
        ("self_consistency", ["candidate"] * 5),
        ("plansearch", ["observations", "derived observations", "solution", "final"]),
        ("re2", ["final"]),
    ],
)
def test_every_call_is_told_with_its_purpose(
    pair: Pair, strategy: str, purposes: list[str]
) -> None:
    answer = pair.server.ask(f"{strategy}-jerry-xl", MARK)
    trace = trace_of(pair, answer)
    prompt, completion = spent(pair.upstream)
    assert [call["purpose"] for call in trace["calls"]] == purposes
    assert (trace["strategy"], trace["base_model"], trace["status"], trace["code"]) == (
        strategy,
        "jerry-xl",
        200,
        "",
    )
    assert (trace["prompt_tokens"], trace["completion_tokens"]) == (prompt, completion)
    assert (sum(c["prompt_tokens"] for c in trace["calls"]), trace["upstream_failures"]) == (
        prompt,
        0,
    )
    for call, after in zip(trace["calls"], trace["calls"][1:], strict=False):
        assert (
            call["start"] + call["seconds"] <= after["start"] + 0.001
        )  # these make one call after the other
    last = trace["calls"][-1]
    assert 0 <= last["start"] + last["seconds"] <= trace["seconds"] + 0.001
    assert MARK not in json.dumps(trace)


def test_a_failed_call_says_in_a_word_why(pair: Pair) -> None:
    pair.upstream.respond = lambda seen: BOOM if len(pair.upstream.seen) == 2 else None
    trace = trace_of(pair, pair.server.ask("bon-jerry-xl", MARK))
    assert [(c["status"], c["error"]) for c in trace["calls"]][:2] == [(200, ""), (500, "5xx")]
    assert trace["upstream_failures"] == 1
    assert "fell over" not in json.dumps(trace)


def test_an_error_keeps_its_code_and_not_the_upstreams_words(pair: Pair) -> None:
    pair.upstream.respond = lambda _seen: Reply(
        429, {"error": {"message": f"{MARK} {UPSTREAM_KEY}"}}
    )
    trace = trace_of(pair, pair.server.ask("moa-jerry-xl", MARK))
    assert (trace["status"], trace["code"]) == (429, "upstream_rate_limited")
    assert {call["error"] for call in trace["calls"]} == {"rate_limited"}
    assert not [secret for secret in (MARK, UPSTREAM_KEY, PROXY_KEY) if secret in json.dumps(trace)]


def test_contents_are_kept_for_who_asks(pair: Pair) -> None:
    answer = ask_for_contents(pair, "moa-jerry-xl", MARK)
    trace = trace_of(pair, answer)
    assert trace["messages"] == [{"role": "user", "content": MARK}]
    assert trace["answers"] == [answer.json()["choices"][0]["message"]["content"]]
    assert [call["messages"] for call in trace["calls"]] == [
        (seen.body or {})["messages"] for seen in pair.upstream.calls()
    ]
    assert [len(call["answers"]) for call in trace["calls"]] == [3, 1, 1]
    assert MARK not in pair.server.get("/guard/traces").text
    assert MARK not in pair.server.get("/metrics").text
    assert_silent(pair.server)


@pytest.mark.parametrize("value", ["0", "", "true", "yes"])
def test_nothing_else_asks_for_contents(pair: Pair, value: str) -> None:
    trace = trace_of(pair, ask_for_contents(pair, "moa-jerry-xl", MARK, value))
    assert "messages" not in trace
    assert MARK not in json.dumps(trace)


def test_large_contents_are_left_out_and_the_calls_are_not(pair: Pair) -> None:
    trace = trace_of(pair, ask_for_contents(pair, "self_consistency-jerry-xl", "long " * 300_000))
    assert len(trace["calls"]) == 5
    assert trace["messages"]  # the first fit, the last did not
    assert trace["calls"][-1]["messages"] == []
    assert len(json.dumps(trace)) < 5 * 1024 * 1024


def test_only_the_last_are_kept_the_newest_first(pair: Pair) -> None:
    answers = [pair.server.ask("re2-jerry-xl", str(number)) for number in range(7)]
    ids = [answer.headers["x-optillm-trace"] for answer in answers]
    listed = pair.server.get("/guard/traces").json()["traces"]
    assert [one["trace"] for one in listed] == ids[:1:-1]
    assert_refused(pair.server.get(f"/guard/traces/{ids[0]}"), 404, "trace_unknown")


@pytest.mark.parametrize("path", ["/guard/traces", "/guard/traces/0123"])
def test_traces_are_behind_the_key(pair: Pair, path: str) -> None:
    for wrong in (None, "wrong", UPSTREAM_KEY):
        assert_refused(pair.server.get(path, key=wrong), 401, "invalid_api_key")


def test_calls_at_the_same_time_have_threads_of_their_own(pair: Pair) -> None:
    trace = trace_of(pair, pair.server.ask("mars-jerry-xl", max_tokens=1000))
    threads = {call["thread"] for call in trace["calls"]}
    assert len(threads) > 1
    assert min(threads) == 0
    assert {call["purpose"] for call in trace["calls"]} == {"call"}
