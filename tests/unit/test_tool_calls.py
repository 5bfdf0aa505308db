"""Calls of tools: as text for a strategy, out of a stream, and into one."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from optictl.guard import accounting, responses, tool_calls, votes
from optictl.guard.answers import Answer
from optictl.guard.events import StreamedCompletion


def call(name: str = "rain", arguments: str = '{"at": "Bern", "days": 3}', **more: Any) -> Any:
    function = {"name": name, "arguments": arguments}
    return {"id": "c1", "type": "function", "function": function, **more}


def completion(*messages: Any) -> dict[str, Any]:
    return {"choices": [{"message": message, "finish_reason": "x"} for message in messages]}


def rendered(message: Any) -> tuple[str, dict[str, dict[str, Any]]]:
    whole: dict[str, dict[str, Any]] = {}
    data = tool_calls.as_text(completion(message), whole)
    return data["choices"][0]["message"]["content"], whole


def test_a_text_stands_for_the_message() -> None:
    message = {"role": "assistant", "content": " I look. ", "tool_calls": [call(), call("snow")]}
    text, whole = rendered(message)
    assert text.splitlines() == [
        'Tool call: rain({"at": "Bern", "days": 3})',
        'Tool call: snow({"at": "Bern", "days": 3})',
        "I look.",
    ]
    assert whole == {text: message}


@pytest.mark.parametrize(
    "message", [{"content": "4"}, {"content": "4", "tool_calls": []}, {"tool_calls": None}, None]
)
def test_a_message_without_a_call_stays(message: Any) -> None:
    whole: dict[str, dict[str, Any]] = {}
    assert tool_calls.as_text(completion(message), whole) == completion(message)
    assert whole == {}
    assert tool_calls.as_text({"choices": None}, whole) == {"choices": None}


@pytest.mark.parametrize("arguments", ["", "{", "5", None])
def test_any_arguments_have_a_text(arguments: Any) -> None:
    odd = {"function": {"name": "rain", "arguments": arguments}}
    assert rendered({"content": None, "tool_calls": [odd]})[0].startswith("Tool call: rain(")
    assert rendered({"content": None, "tool_calls": [{"id": 1}]})[0] == "Tool call: a tool()"


def test_equal_calls_vote_together() -> None:
    texts = [
        rendered({"content": content, "tool_calls": [call(arguments=arguments)]})[0]
        for content, arguments in (
            (None, '{"at": "Bern", "days": 3}'),
            ("So.", '{"days":3,"at":"Bern"}'),
            (None, '{"at": "Basel", "days": 3}'),
        )
    ]
    groups = votes.clusters([*texts, "It rains 3 days."], lambda a, b: True)
    assert groups == [texts[:2], texts[2:], ["It rains 3 days."]]


def test_equal_documents_vote_together() -> None:
    texts = ['{"a": 1, "b": [2]}', '{"b": [2],\n "a": 1}', '{"a": 2, "b": [2]}', "[1]"]
    groups = votes.clusters(texts, lambda a, b: True)
    assert groups == [texts[:2], texts[2:3], texts[3:]]


def stream(*deltas: dict[str, Any], finish: str = "tool_calls") -> dict[str, Any]:
    streamed = StreamedCompletion(None)
    ends = [None] * len(deltas) + [finish]
    for delta, end in zip([*deltas, {}], ends, strict=True):
        chunk = {"choices": [{"index": 0, "delta": delta, "finish_reason": end}]}
        streamed.feed(b"data: " + json.dumps(chunk).encode() + b"\n\n")
    message: dict[str, Any] = streamed.completion()["choices"][0]["message"]
    return message


def test_a_stream_of_calls_is_read_whole() -> None:
    message = stream(
        {"role": "assistant", "content": None},
        {"tool_calls": [{"index": 0, **call(arguments="")}]},
        {"tool_calls": [{"index": 0, "function": {"arguments": '{"at": '}}]},
        {"tool_calls": [{"index": 1, **call("snow", "{}", id="c2")}]},
        {"tool_calls": [{"index": 0, "function": {"arguments": '"Bern"}'}}]},
    )
    assert message["content"] is None
    assert message["tool_calls"] == [
        call(arguments='{"at": "Bern"}'),
        call("snow", "{}", id="c2"),
    ]


def test_calls_without_an_index_are_whole() -> None:
    message = stream({"tool_calls": [call(), call("snow")]}, {"tool_calls": [call("sun"), 5]})
    assert [one["function"]["name"] for one in message["tool_calls"]] == ["rain", "snow", "sun"]


@given(
    st.lists(st.text(max_size=9000), min_size=1, max_size=3),
    st.none() | st.text(max_size=20),
)
def test_what_a_client_reads_is_what_the_model_called(
    arguments: list[str], content: str | None
) -> None:
    calls = [call(arguments=one, id=f"c{place}") for place, one in enumerate(arguments)]
    request = accounting.Request("moa", "m", 64, 600.0)
    message = {"role": "assistant", "content": content, "tool_calls": calls}
    answer = Answer(content, "tool_calls", {"tool_calls": calls})
    whole = responses.completion(request, "moa-m", [answer])
    assert whole["choices"][0]["message"] == {**message, "refusal": None}
    body = responses.stream(whole, include_usage=False).body
    assert isinstance(body, list)
    streamed = StreamedCompletion(None)
    for part in body:
        assert len(part) < 20_000
        streamed.feed(part)
    found = streamed.completion()["choices"][0]
    assert found["finish_reason"] == "tool_calls"
    assert found["message"]["tool_calls"] == calls
    assert (found["message"]["content"] or "") == (content or "")
