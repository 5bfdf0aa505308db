"""Streams of a model: chunks in, a completion out."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from optictl.guard.events import StreamedCompletion


class Collected:
    """A sink that keeps what it gets."""

    def __init__(self) -> None:
        self.has_text = False
        self.texts: list[str] = []
        self.thoughts: list[str] = []

    def text(self, part: str) -> None:
        self.texts.append(part)

    def reasoning(self, part: str) -> None:
        self.thoughts.append(part)


def chunk(delta: dict[str, Any], finish: str | None = None, **fields: Any) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return b"data: " + json.dumps({"id": "x", "choices": [choice], **fields}).encode() + b"\n\n"


def read(*parts: bytes) -> tuple[StreamedCompletion, Collected]:
    sink = Collected()
    stream = StreamedCompletion(sink)
    for part in parts:
        stream.feed(part)
    return stream, sink


@given(st.lists(st.text(min_size=1), min_size=1), st.integers(1, 40))
def test_the_text_is_whole_wherever_the_bytes_are_cut(texts: list[str], size: int) -> None:
    usage = {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}
    data = b": a comment\r\n\r\n" + b"".join(chunk({"content": text}) for text in texts)
    data += (
        chunk({}, "length") + b'data: {"choices": [], "usage": %s}\n\n' % json.dumps(usage).encode()
    )
    data += b"data: [DONE]\n\n"
    stream, sink = read(*(data[start : start + size] for start in range(0, len(data), size)))
    assert sink.texts == texts
    assert stream.is_whole
    whole = stream.completion()
    assert whole["choices"][0]["message"]["content"] == "".join(texts)
    assert whole["choices"][0]["finish_reason"] == "length"
    assert (whole["id"], whole["usage"]) == ("x", usage)


def test_a_second_choice_that_nobody_asked_for_is_passed_over() -> None:
    other = {"index": 1, "delta": {"content": "b"}, "finish_reason": None}
    second = b"data: " + json.dumps({"choices": [other]}).encode() + b"\n\n"
    stream, sink = read(chunk({"content": "a"}), second, chunk({"content": "c"}), chunk({}, "stop"))
    assert sink.texts == ["a", "c"]
    assert len(stream.completion()["choices"]) == 1


def test_reasoning_and_a_refusal_are_kept() -> None:
    stream, sink = read(
        chunk({"role": "assistant", "reasoning_content": "Let me "}),
        chunk({"reasoning_content": "think."}),
        chunk({"refusal": "No."}),
        chunk({}, "stop"),
    )
    message = stream.completion()["choices"][0]["message"]
    assert message["reasoning_content"] == "Let me think."
    assert message["refusal"] == "No."
    assert message["content"] is None
    assert (sink.thoughts, sink.texts) == (["Let me ", "think."], [])


@pytest.mark.parametrize("content", ["", None])
def test_an_empty_text_is_not_the_same_as_none(content: str | None) -> None:
    stream, _ = read(chunk({"role": "assistant", "content": content}), chunk({}, "stop"))
    assert stream.completion()["choices"][0]["message"]["content"] == content


def test_an_error_in_a_stream_is_the_answer() -> None:
    stream, _ = read(chunk({"content": "so"}), b'data: {"error": {"message": "too long"}}\n\n')
    assert stream.is_whole
    assert stream.completion() == {"error": {"message": "too long"}}


def test_a_stream_without_an_end_is_not_whole() -> None:
    stream, _ = read(chunk({"content": "so far"}))
    assert not stream.is_whole


@pytest.mark.parametrize(
    "data",
    [
        b"data: nonsense\n\n",
        b"data: []\n\n",
        b'data: {"choices": ["x"]}\n\n',
        b'data: {"choices": [{"delta": 1}]}\n\n',
        b'data: {"choices": [{"delta": {"content": 5}}]}\n\n',
        b"\xff\xfe\n\n",
        b"event: ping\n\n",
    ],
)
def test_what_is_no_chunk_is_passed_over(data: bytes) -> None:
    stream, sink = read(data, chunk({"content": "a"}), chunk({}, "stop"))
    assert sink.texts == ["a"]
    assert stream.completion()["choices"][0]["message"]["content"] == "a"
