"""What a client sets counts: parameters, formats, tools and options, with the real OptiLLM."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from optictl.guard import parameters, traces
from optictl.guard.events import StreamedCompletion
from optictl.proof.standin import Reply, Seen, completion
from testing.support import OTHER_STRATEGIES, STRATEGIES

from .helpers import Pair, assert_refused, guarded_pair, text_of
from .upstreams import Model

pytestmark = pytest.mark.slow

ALL = (*STRATEGIES, *OTHER_STRATEGIES, "none")
EVERYWHERE: dict[str, Any] = {
    "temperature": 0.35,
    "top_p": 0.85,
    "top_k": 20,
    "min_p": 0.05,
    "seed": 4000,
    "presence_penalty": 0.1,
    "frequency_penalty": -0.1,
    "logit_bias": {"50256": -100},
    "reasoning_effort": "low",
    "verbosity": "high",
    "service_tier": "flex",
}
FORMAT = {
    "type": "json_schema",
    "json_schema": {"name": "answer", "schema": {"type": "object"}, "strict": True},
}
TOOL = {"type": "function", "function": {"name": "get_rain", "parameters": {"type": "object"}}}
#: strategy -> the step whose text is the answer
ANSWERING = {"moa": "final", "plansearch": "final", "bon": "candidate"}
WITH_TOOLS = ("moa", "bon", "self_consistency", "re2", "none")


@pytest.fixture(scope="module")
def running(release: Path) -> Iterator[Pair]:
    flags = ["--max-upstream-calls", "150", "--strategy-options", "bon.samples=4:2:6"]
    # one of them is remembered as a model that refuses n
    models = ("jerry-xl", "tom")
    with guarded_pair(release, models, base_models=models, strategies=ALL, extra=flags) as pair:
        yield pair


@pytest.fixture
def pair(running: Pair) -> Pair:
    return running.fresh()


def ask(pair: Pair, strategy: str, **fields: Any) -> httpx.Response:
    # with a small limit, mars makes 15 calls in place of 118
    return pair.server.ask(f"{strategy}-jerry-xl", **{"max_tokens": 99, **fields})


def bodies(pair: Pair) -> list[dict[str, Any]]:
    return [seen.body or {} for seen in pair.upstream.calls()]


def steps(pair: Pair, strategy: str) -> list[tuple[str, dict[str, Any]]]:
    """The purpose and the body of each call."""
    return [(traces.purpose(strategy, body["messages"]), body) for body in bodies(pair)]


@pytest.mark.parametrize("strategy", ALL)
def test_a_parameter_has_an_effect_or_is_named(pair: Pair, strategy: str) -> None:
    response = ask(pair, strategy, **EVERYWHERE)
    assert text_of(response)
    dropped = {one for one in response.headers.get("x-optillm-dropped", "").split(",") if one}
    for name, value in EVERYWHERE.items():
        if name == "seed":
            assert all(body["seed"] >= value for body in bodies(pair))
        elif name in dropped:
            assert not any(body.get(name) == value for body in bodies(pair))
            assert all(name in body for body in bodies(pair)), "the strategy leaves it open"
        else:
            # but where the strategy sets it
            assert any(body.get(name) == value for body in bodies(pair)), name
            assert all(name in body for body in bodies(pair)), name
    assert dropped <= {"temperature"} or strategy == "cepo"


@pytest.mark.parametrize("strategy", ["self_consistency", "moa", "bon", "majority_voting"])
def test_samples_have_different_seeds_each_time_the_same(pair: Pair, strategy: str) -> None:
    def one_only(seen: Seen) -> Reply | None:
        if seen.body is None:
            return None
        if seen.body.get("n", 1) > 1:
            return Reply(400, {"error": {"message": "n is not supported"}})
        return Reply(body=completion(seen.body), delay=0.15)

    pair.upstream.respond = one_only
    found = []
    for _ in range(2):
        pair.upstream.seen.clear()
        assert text_of(pair.server.ask(f"{strategy}-tom", seed=11))
        samples = [b for b in bodies(pair) if b["messages"][-1]["content"] == "What is 2 + 2?"]
        found.append(sorted(body["seed"] for body in samples if body.get("n", 1) == 1))
    assert found[0] == found[1]
    assert len(set(found[0])) == len(found[0]) >= 3


def test_each_answer_has_its_own_seeds(pair: Pair) -> None:
    assert ask(pair, "self_consistency", seed=-5, n=2).status_code == 200
    assert len({body["seed"] for body in bodies(pair)}) == 10


@pytest.mark.parametrize("strategy", ANSWERING)
def test_the_answer_stops_where_the_client_said(pair: Pair, strategy: str) -> None:
    assert text_of(ask(pair, strategy, stop=["END"]))
    for step, body in steps(pair, strategy):
        assert body.get("stop") == (["END"] if step == ANSWERING[strategy] else None), step


@pytest.mark.parametrize("strategy", ["cot_reflection", "pvg", "moa"])
@pytest.mark.parametrize("stream", [False, True])
def test_a_stop_that_no_model_honours_ends_the_answer(
    pair: Pair, strategy: str, stream: bool
) -> None:
    text = "<thinking>a END b</thinking><output>One. END Two.</output> Score: 5"
    pair.upstream.respond = lambda seen: Reply(body=completion(seen.body or {}, text))
    response = ask(pair, strategy, stop="END", stream=stream)
    assert response.status_code == 200, response.text
    if not stream:
        expected = "One. " if strategy == "cot_reflection" else "<thinking>a "
        choice = response.json()["choices"][0]
        assert (choice["message"]["content"], choice["finish_reason"]) == (expected, "stop")
    elif strategy != "moa":  # its text is on its way before it is whole
        assert "Two" not in response.text


@pytest.mark.parametrize("strategy", ANSWERING)
def test_the_format_is_that_of_the_answer(pair: Pair, strategy: str) -> None:
    assert text_of(ask(pair, strategy, response_format=FORMAT))
    for step, body in steps(pair, strategy):
        expected = FORMAT if step == ANSWERING[strategy] else None
        assert body.get("response_format") == expected, step


def test_documents_vote_by_what_they_say(pair: Pair) -> None:
    texts = iter(['{"a": 1, "b": 2}', '{"a":9}', '{"b":2,"a":1}', '{"a": 8}', '{"a": 7}'])
    pair.upstream.respond = lambda seen: Reply(body=completion(seen.body or {}, next(texts)))
    response = ask(pair, "self_consistency", response_format={"type": "json_object"})
    assert json.loads(text_of(response)) == {"a": 1, "b": 2}
    assert response.headers["x-optillm-agreement"] == "2/5"
    assert all(body["response_format"] == {"type": "json_object"} for body in bodies(pair))


def test_no_candidate_takes_the_place_of_a_format(pair: Pair) -> None:
    """`moa` returns its first candidate for an empty final text."""
    pair.upstream.respond = Model("moa", {"final": lambda _c, _n: [("", "stop")]}).respond
    assert_refused(ask(pair, "moa", response_format=FORMAT), 502, "strategy_failed")
    pair.upstream.respond = Model("moa", {"final": lambda _c, _n: [("", "stop")]}).respond
    assert text_of(ask(pair, "moa"))


@pytest.mark.parametrize("strategy", [s for s in ALL if s not in WITH_TOOLS])
def test_tools_are_refused_where_the_answer_is_a_text(pair: Pair, strategy: str) -> None:
    error = assert_refused(ask(pair, strategy, tools=[TOOL]), 400, "parameter_not_supported")
    assert error["param"] == "tools"
    assert strategy in error["message"]
    assert "moa, bon" in error["message"]
    assert pair.upstream.seen == []
    assert text_of(ask(pair, strategy, tools=[TOOL], tool_choice="none"))


@pytest.mark.parametrize("strategy", ["cot_reflection", "rto", "mcts", "leap", "cepo"])
def test_a_format_is_refused_where_the_answer_is_made_up(pair: Pair, strategy: str) -> None:
    response = ask(pair, strategy, response_format=FORMAT)
    error = assert_refused(response, 400, "parameter_not_supported")
    assert error["param"] == "response_format"
    assert pair.upstream.seen == []


def rain(city: str, number: int, content: str | None = None) -> dict[str, Any]:
    function = {"name": "get_rain", "arguments": json.dumps({"city": city, "why": "x" * 50})}
    call = {"id": f"call_{number}", "type": "function", "function": function}
    return {"role": "assistant", "content": content, "tool_calls": [call]}


def calling(*messages: dict[str, Any]) -> Any:
    """A model that calls tools if it has some; the messages in turn."""
    left = list(messages)

    def respond(seen: Seen) -> Reply | None:
        body = seen.body
        if body is None or not body.get("tools") or body.get("tool_choice") == "none":
            return None
        whole = completion(body)
        for choice in whole["choices"]:
            message = left.pop(0) if len(left) > 1 else left[0]
            choice |= {"message": message, "finish_reason": "tool_calls"}
        return Reply(body=whole)

    return respond


def answer_of(response: httpx.Response) -> dict[str, Any]:
    """The first choice of a plain or streamed answer."""
    assert response.status_code == 200, response.text
    if response.headers["content-type"].startswith("text/event-stream"):
        streamed = StreamedCompletion(None)
        streamed.feed(response.content)
        return dict(streamed.completion()["choices"][0])
    return dict(response.json()["choices"][0])


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("strategy", WITH_TOOLS)
def test_calls_of_tools_come_back_as_such(pair: Pair, strategy: str, stream: bool) -> None:
    pair.upstream.respond = calling(rain("Bern", 1, "I look."))
    response = ask(pair, strategy, tools=[TOOL], tool_choice="auto", stream=stream)
    choice = answer_of(response)
    assert choice["finish_reason"] == "tool_calls"
    expected = rain("Bern", 1, "I look.")
    assert choice["message"]["tool_calls"] == expected["tool_calls"]
    assert choice["message"]["content"] == "I look."
    assert "final_empty" not in response.headers.get("x-optillm-degraded", "")
    with_tools = [body for body in bodies(pair) if "tools" in body]
    assert {json.dumps(body["tools"]) for body in with_tools} == {json.dumps([TOOL])}
    if strategy == "moa":
        assert [("tools" in body) for body in bodies(pair)] == [False, False, True]


def test_the_best_and_the_most_frequent_call_win(pair: Pair) -> None:
    candidates = [rain("Bern", 1), rain("Basel", 2), rain("Chur", 3), rain("Genf", 4)]
    model = calling(*candidates)
    scores = iter(["3", "9", "4", "1"])

    def respond(seen: Seen) -> Reply | None:
        found = model(seen)
        return found or Reply(body=completion(seen.body or {}, next(scores)))

    pair.upstream.respond = respond
    best = answer_of(ask(pair, "bon", tools=[TOOL], stream=False))
    assert best["message"]["tool_calls"][0]["id"] == "call_2"
    rated = [body["messages"][-2]["content"] for step, body in steps(pair, "bon")[1:]]
    assert [text.split('"')[3] for text in rated] == ["Bern", "Basel", "Chur", "Genf"]

    pair.fresh().upstream.respond = calling(
        rain("Bern", 1), rain("Basel", 2), rain("Chur", 3), rain("Basel", 4), rain("Genf", 5)
    )
    response = ask(pair, "self_consistency", tools=[TOOL])
    message = answer_of(response)["message"]
    assert json.loads(message["tool_calls"][0]["function"]["arguments"])["city"] == "Basel"
    assert response.headers["x-optillm-agreement"] == "2/5"


def test_a_text_beside_calls_of_others_is_a_text(pair: Pair) -> None:
    message = {"role": "assistant", "content": "It is dry."}
    pair.upstream.respond = calling(message)
    choice = answer_of(ask(pair, "moa", tools=[TOOL]))
    assert choice["message"] == {**message, "refusal": None}


def test_a_conversation_with_results_of_tools_goes_on(pair: Pair) -> None:
    asked = rain("Bern", 1)
    messages = [
        {"role": "user", "content": "Rain?"},
        asked,
        {"role": "tool", "tool_call_id": "call_1", "content": "3 mm"},
    ]
    body = {"model": "moa-jerry-xl", "messages": messages, "tools": [TOOL]}
    assert text_of(pair.server.post(body))
    candidate, critique, final = bodies(pair)
    # some providers refuse calls of tools without their tools
    assert candidate["messages"][-3:] == messages
    assert (candidate["tools"], candidate["tool_choice"]) == ([TOOL], "none")
    assert "tools" not in critique
    assert "tool_choice" not in final


@pytest.mark.parametrize("name", sorted(parameters.NAMES))
def test_null_is_not_set(pair: Pair, name: str) -> None:
    assert text_of(ask(pair, "re2", **{name: None}))
    assert all(name not in body for body in bodies(pair))


# -- options of a strategy


def count(pair: Pair) -> tuple[int, int]:
    """The upstream calls, and the completions that they ask for."""
    return len(bodies(pair)), sum(body.get("n") or 1 for body in bodies(pair))


@pytest.mark.parametrize(
    ("strategy", "options", "expected"),
    [
        ("bon", {}, (5, 8)),
        ("bon", {"samples": 2}, (3, 4)),
        ("self_consistency", {"samples": 3}, (3, 3)),
        ("plansearch", {"observations": 5, "derived_observations": 1}, (4, 4)),
        ("mcts", {"simulations": 1}, (7, 11)),
        ("rstar", {"rollouts": 1, "depth": 1}, (3, 3)),
        ("pvg", {"rounds": 1, "solutions": 1}, (4, 4)),
        ("cepo", {"samples": 1, "plans": 1}, None),
        ("majority_voting", {"samples": 3}, (1, 3)),
        ("genselect", {"samples": 2}, (2, 3)),
        ("deepthink", {"samples": 1}, None),
    ],
)
def test_an_option_changes_the_strategy_for_its_request_only(
    pair: Pair, strategy: str, options: dict[str, Any], expected: tuple[int, int] | None
) -> None:
    assert text_of(ask(pair, strategy))
    usual = count(pair)
    pair.fresh()
    assert text_of(ask(pair, strategy, strategy_options=options))
    assert count(pair) == expected if expected else count(pair) < usual
    if strategy == "plansearch":
        texts = json.dumps(bodies(pair))
        assert "provide 5 observations" in texts
        assert "provide 1 new observations" in texts
    if strategy != "rstar":  # it goes ways by chance
        pair.fresh()
        assert text_of(ask(pair, strategy))
        assert count(pair) == usual


@pytest.mark.parametrize("strategy", ["moa", "bon", "self_consistency", "cot_reflection"])
def test_the_temperature_of_candidates(pair: Pair, strategy: str) -> None:
    assert text_of(ask(pair, strategy, strategy_options={"temperature": 0.45}))
    first, *others = bodies(pair)
    assert first["temperature"] == 0.45
    if strategy in ("moa", "bon"):
        assert {body["temperature"] for body in others} == {0.1}


def test_requests_side_by_side_have_their_own_options(pair: Pair) -> None:
    pair.upstream.respond = lambda seen: (
        Reply(body=completion(seen.body), delay=0.1) if seen.body else None
    )
    with ThreadPoolExecutor(5) as pool:
        asked = [
            pool.submit(ask, pair, "bon", strategy_options={"samples": n}) for n in range(2, 7)
        ]
        made = [int(one.result().headers["x-optillm-upstream-calls"]) for one in asked]
    assert made == [3, 4, 5, 6, 7]


@pytest.mark.parametrize(
    ("options", "param", "words"),
    [
        ({"samples": 7}, "strategy_options.samples", "from 2 to 6"),
        ({"sampels": 3}, "strategy_options.sampels", "did you mean 'samples'?"),
        ([], "strategy_options", "an object"),
    ],
)
def test_a_wrong_option_is_refused(pair: Pair, options: Any, param: str, words: str) -> None:
    error = assert_refused(ask(pair, "bon", strategy_options=options), 400, "invalid_request")
    assert error["param"] == param
    assert words in error["message"]
    assert pair.upstream.seen == []
