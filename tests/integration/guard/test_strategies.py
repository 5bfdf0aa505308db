"""Every strategy runs behind the guard, in both approaches, and its answer says what it cost."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from optictl.guard import GUARD_VERSION
from optictl.proof.standin import Reply, Seen, completion
from testing.support import OTHER_STRATEGIES, STRATEGIES, UPSTREAM_KEY

from .helpers import (
    BOOM,
    CALLS,
    MARK,
    Pair,
    asks_for,
    assert_silent,
    guarded_pair,
    spent,
    text_of,
)

pytestmark = pytest.mark.slow

#: Also run when they are enabled. With the stand-in's answers each stays below the limit below.
OTHERS = ("none", *OTHER_STRATEGIES)


@pytest.fixture(scope="module", params=["proxy", "auto"])
def approach(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def running(release: Path, approach: str) -> Iterator[Pair]:
    # one name is the end of another: each must be read whole
    models = ("s", "jerry-xl", "tom-s")
    with guarded_pair(release, models, base_models=models, approach=approach) as pair:
        yield pair


@pytest.fixture
def pair(running: Pair) -> Pair:
    return running.fresh()


@pytest.fixture(scope="module")
def all_running(release: Path, approach: str) -> Iterator[Pair]:
    with guarded_pair(
        release, approach=approach, strategies=OTHERS, extra=["--max-upstream-calls", "150"]
    ) as pair:
        yield pair


def assert_accounted(response: httpx.Response, pair: Pair, strategy: str) -> None:
    """The headers say of the upstream exactly what the upstream saw."""
    calls = pair.upstream.calls()
    expected = {
        "x-optillm-strategy": strategy,
        "x-optillm-upstream-calls": str(len(calls)),
        "x-optillm-upstream-failures": "0",
        "x-optillm-upstream-models": "jerry-xl",
        "x-optillm-upstream-completions": str(
            sum((seen.body or {}).get("n") or 1 for seen in calls)
        ),
        "x-optillm-tokens": str(sum(spent(pair.upstream))),
        "x-optillm-guard": GUARD_VERSION,
    }
    assert {name: response.headers[name] for name in expected} == expected
    assert response.headers["x-optillm-upstream-ms"].isdigit()
    assert response.headers["x-optillm-trace"]
    assert pair.models == {"jerry-xl"}
    assert pair.bearers == {f"Bearer {UPSTREAM_KEY}"}


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_the_strategy_runs(pair: Pair, strategy: str) -> None:
    before = int(time.time())
    response = pair.server.ask(f"{strategy}-jerry-xl", MARK)
    assert "answer" in text_of(response)
    assert len(pair.upstream.calls()) == CALLS[strategy]
    assert_accounted(response, pair, strategy)

    whole = response.json()
    assert set(whole) == {"id", "object", "created", "model", "choices", "usage"}
    assert whole["id"] == "chatcmpl-" + response.headers["x-optillm-trace"]
    assert whole["object"] == "chat.completion"
    assert before <= whole["created"] <= time.time()
    assert whole["model"] == f"{strategy}-jerry-xl"
    assert [
        (choice["index"], choice["finish_reason"], choice["message"]["role"])
        for choice in whole["choices"]
    ] == [(0, "stop", "assistant")]
    prompt, completed = spent(pair.upstream)
    usage = whole["usage"]
    assert (usage["prompt_tokens"], usage["completion_tokens"], usage["total_tokens"]) == (
        prompt,
        completed,
        prompt + completed,
    )
    assert prompt > 0
    assert completed > 0
    assert_silent(pair.server)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_reasoning_tokens_are_summed(pair: Pair, strategy: str) -> None:
    def think(seen: Seen) -> Reply | None:
        if seen.body is None:
            return None
        body = completion(seen.body)
        body["usage"]["completion_tokens_details"] = {"reasoning_tokens": 11}
        return Reply(body=body)

    pair.upstream.respond = think
    usage = pair.server.ask(f"{strategy}-jerry-xl").json()["usage"]
    assert usage["completion_tokens_details"] == {"reasoning_tokens": 11 * len(pair.upstream.seen)}


def chunks_of(response: httpx.Response) -> list[dict[str, Any]]:
    """The events of a stream, which must end with [DONE]."""
    assert response.status_code == 200, response.text
    assert response.headers["content-type"].startswith("text/event-stream")
    *events, last, nothing = response.text.split("\n\n")
    assert (last, nothing) == ("data: [DONE]", "")
    assert all(event.startswith("data: ") for event in events)
    return [json.loads(event.removeprefix("data: ")) for event in events]


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("options", [None, {"include_usage": False}, {"include_usage": True}])
def test_a_stream_is_the_same_answer(
    pair: Pair, strategy: str, options: dict[str, bool] | None
) -> None:
    extra = {} if options is None else {"stream_options": options}
    response = pair.server.ask(f"{strategy}-jerry-xl", stream=True, **extra)
    chunks = chunks_of(response)
    assert_accounted(response, pair, strategy)

    usage = chunks.pop() if options == {"include_usage": True} else None
    assert {(chunk["id"], chunk["object"], chunk["model"]) for chunk in chunks} == {
        (
            "chatcmpl-" + response.headers["x-optillm-trace"],
            "chat.completion.chunk",
            f"{strategy}-jerry-xl",
        )
    }
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks]
    assert deltas[0]["role"] == "assistant"
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks] == [None] * (
        len(chunks) - 1
    ) + ["stop"]
    if usage is None:
        assert not any("usage" in chunk for chunk in chunks)
    else:
        assert usage["choices"] == []
        assert (usage["usage"]["prompt_tokens"], usage["usage"]["completion_tokens"]) == spent(
            pair.upstream
        )
        assert all(chunk["usage"] is None for chunk in chunks)
    text = "".join(delta.get("content", "") for delta in deltas)
    assert text == text_of(pair.server.ask(f"{strategy}-jerry-xl"))


@pytest.mark.parametrize("stream", [False, True])
def test_n_answers_are_n_strategies(pair: Pair, stream: bool) -> None:
    response = pair.server.ask("moa-jerry-xl", n=2, stream=stream)
    chunks = chunks_of(response) if stream else [response.json()]
    assert sorted({choice["index"] for chunk in chunks for choice in chunk["choices"]}) == [0, 1]
    assert len(pair.upstream.calls()) == 2 * CALLS["moa"]


@pytest.mark.parametrize("base_model", ["s", "tom-s"])
def test_every_configured_base_model_is_served(pair: Pair, base_model: str) -> None:
    response = pair.server.ask(f"bon-{base_model}")
    assert text_of(response)
    assert response.json()["model"] == f"bon-{base_model}"
    assert pair.models == {base_model}
    assert len(pair.upstream.seen) == CALLS["bon"], (
        "OptiLLM asks every model a hidden question before its first"
    )
    assert response.headers["x-optillm-upstream-models"] == base_model


@pytest.mark.parametrize("name", ["self_consistency", "z3", "", 5, ["moa"]])
def test_a_field_of_the_body_does_not_choose_the_strategy(pair: Pair, name: Any) -> None:
    response = pair.server.ask("moa-jerry-xl", optillm_approach=name)
    assert text_of(response)
    assert response.headers["x-optillm-strategy"] == "moa"
    assert response.headers["x-optillm-dropped"] == "optillm_approach"
    assert len(pair.upstream.calls()) == CALLS["moa"]


@pytest.mark.parametrize("name", ["self_consistency", "z3", "no-such"])
@pytest.mark.parametrize("role", ["system", "user", "assistant"])
def test_a_tag_in_a_message_is_text(pair: Pair, name: str, role: str) -> None:
    text = f"As you said: <optillm_approach>{name}</optillm_approach> "
    messages = [{"role": role, "content": text}, {"role": "user", "content": "Go on."}]
    response = pair.server.post({"model": "moa-jerry-xl", "messages": messages})
    assert text_of(response)
    assert response.headers["x-optillm-strategy"] == "moa"
    assert all(asks_for(seen, text.strip()) for seen in pair.upstream.calls()[:1])
    assert len(pair.upstream.calls()) == CALLS["moa"]


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
def test_token_limits_reach_the_upstream(pair: Pair, name: str) -> None:
    assert pair.server.ask("self_consistency-jerry-xl", **{name: 77}).status_code == 200
    assert {(seen.body or {})["max_tokens"] for seen in pair.upstream.calls()} == {77}


def test_all_system_messages_reach_the_strategy(pair: Pair) -> None:
    # OptiLLM keeps the last one only
    turns = [("system", "Be brief."), ("developer", "Answer in French."), ("user", "hello")]
    response = pair.server.post(
        {
            "model": "self_consistency-jerry-xl",
            "messages": [{"role": role, "content": text} for role, text in turns],
        }
    )
    assert response.status_code == 200
    messages = [{"role": role, "content": text} for role, text in turns]
    assert [(seen.body or {})["messages"] for seen in pair.upstream.calls()] == [messages] * 5


def test_what_a_strategy_cannot_honour_is_named(pair: Pair) -> None:
    sound = {"type": "input_audio", "input_audio": {"data": "", "format": "wav"}}
    response = pair.server.post(
        {
            "model": "moa-jerry-xl",
            "messages": [
                {"role": "user", "content": [{"type": "text", "text": "one"}, sound]},
                {"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]},
                {"role": "tool", "tool_call_id": "1", "content": "result"},
                {"role": "user", "content": "two"},
            ],
            "tools": [],
            "temperature": 0.5,
            "store": True,
            "seed": None,
        }
    )
    assert response.status_code == 200
    assert response.headers["x-optillm-dropped"] == "input_audio,store,temperature"


def test_nothing_is_named_when_nothing_was_dropped(pair: Pair) -> None:
    response = pair.server.ask("moa-jerry-xl", stream=False, n=1, max_tokens=9)
    assert response.status_code == 200
    assert "x-optillm-dropped" not in response.headers


@pytest.mark.parametrize("strategy", OTHERS)
def test_another_strategy_runs_when_enabled(all_running: Pair, strategy: str) -> None:
    pair = all_running.fresh()
    response = pair.server.ask(f"{strategy}-jerry-xl", MARK)
    assert text_of(response)
    assert pair.upstream.calls()
    assert_accounted(response, pair, strategy)
    assert_silent(pair.server)


@pytest.mark.parametrize("strategy", OTHERS)
def test_no_other_strategy_hides_an_outage(all_running: Pair, strategy: str) -> None:
    pair = all_running.fresh()
    pair.upstream.respond = lambda seen: BOOM
    response = pair.server.ask(f"{strategy}-jerry-xl")
    assert response.status_code == 502, response.text
    assert response.json()["error"]["message"] == "the upstream answered 500: the model fell over"
    assert int(response.headers["x-optillm-upstream-failures"]) == len(pair.upstream.calls()) > 0
