"""What a client gets of a model's answer: its end, and what the model sent beside the text."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest

from optictl.guard import accounting, answers, costs, events, responses
from optictl.guard.answers import Answer
from optictl.guard.completions import Usage
from optictl.guard.error_texts import ERROR_TEXTS
from optictl.guard.exchanges import Exchange, Run, samples_of
from optictl.guard.live import Part

LOGPROBS = {"content": [{"token": "Yes", "logprob": -0.1, "bytes": None, "top_logprobs": []}]}


def choice(text: str | None, finish: str = "stop", **beside: Any) -> dict[str, Any]:
    logprobs = beside.pop("logprobs", None)
    message = {"role": "assistant", "content": text, **beside}
    return {"message": message, "finish_reason": finish, "logprobs": logprobs}


def run_of(*steps: tuple[str, Sequence[dict[str, Any]]]) -> Run:
    exchanges = [Exchange(step, samples=samples_of({"choices": found})) for step, found in steps]
    return Run(exchanges=exchanges)


def read(text: Any, run: Run) -> Answer | None:
    (answer,) = answers.read(text, run)
    return answer


def test_an_answer_has_what_its_call_had_beside_the_text() -> None:
    beside = {"reasoning_content": "It is so.", "logprobs": LOGPROBS}
    others = choice("No", reasoning_content="Perhaps."), choice("Maybe")
    run = run_of(("candidate", [*others, choice("Yes", "length", **beside)]), ("rating", []))
    assert read("Yes", run) == Answer("Yes", "length", beside)
    assert read("Maybe", run) == Answer("Maybe")


def test_an_answer_of_several_texts_has_nothing_beside_it() -> None:
    run = run_of(("call", [choice("one", logprobs=LOGPROBS)]), ("call", [choice("two")]))
    assert read("one and two", run) == Answer("one and two")


def test_a_part_of_a_text_has_no_probabilities_of_tokens() -> None:
    said = choice("<output>Yes</output>", reasoning_content="So.", logprobs=LOGPROBS)
    assert read("Yes", run_of(("final", [said]))) == Answer(
        "Yes", beside={"reasoning_content": "So."}
    )


@pytest.mark.parametrize("words", ERROR_TEXTS)
def test_an_answer_may_quote_an_error_text(words: str) -> None:
    quoting = f"{words} That is what it says."
    run = run_of(("candidate", [choice(quoting)]), ("final", [choice(f"\n{quoting}")]))
    assert read(quoting, run) == Answer(f"\n{quoting}")
    # of the strategy itself
    assert read(words, run_of(("candidate", []))) is None
    # a part of the only text: the strategy may have put it there
    assert read(words, run_of(("call", [choice(f"It said: {words}")]))) is None


@pytest.mark.parametrize("nothing", [None, "", " \n", 3])
def test_no_text_is_no_answer(nothing: Any) -> None:
    assert read(nothing, run_of(("final", [choice("a text")]))) is None


def test_a_refusal_is_an_answer_without_a_text() -> None:
    refused = choice(None, refusal="I cannot help with that.")
    run = run_of(("candidate", [refused]), ("candidate", [choice("", refusal="No.")]))
    assert read(ERROR_TEXTS[0], run) == Answer(None, "stop", {"refusal": "No."})
    # a model that wrote a text did not refuse the question
    mixed = run_of(("candidate", [refused, choice("a text")]))
    assert read("a text", mixed) == Answer("a text")
    assert read(ERROR_TEXTS[0], mixed) is None


def test_a_call_of_a_tool_is_an_answer() -> None:
    tool = {"id": "1", "type": "function", "function": {"name": "rain", "arguments": "{}"}}
    run = run_of(("final", [choice("Tool call: rain()", "tool_calls")]))
    run.called["Tool call: rain()"] = {"content": None, "tool_calls": [tool]}
    expected = Answer(None, "tool_calls", {"tool_calls": [tool]})
    assert read("Tool call: rain()", run) == expected


def test_an_answer_ends_at_the_texts_of_the_client() -> None:
    run = run_of(("final", [choice("one two", "length", logprobs=LOGPROBS)]))
    assert answers.read("one two", run, stops=[" t"]) == [Answer("one", "stop")]


def test_only_a_final_text_has_the_format_of_the_client() -> None:
    run = run_of(
        ("candidate", [choice("a")]), ("critique", [choice("b")]), ("final", [choice("c")])
    )
    assert answers.read("c", run, final_only=True) == [Answer("c")]
    assert answers.read("a", run, final_only=True) == [None]
    assert answers.read("a", run) == [Answer("a")]


# the calls that a request needs


@pytest.mark.parametrize(
    ("strategy", "options", "calls"),
    [
        ("moa", {"temperature": 0.5}, 3),
        ("bon", {"samples": 5}, 6),
        ("self_consistency", {"samples": 7}, 7),
        ("self_consistency", {}, 5),
        ("mars", {}, 1),
    ],
)
def test_the_calls_of_an_answer(strategy: str, options: dict[str, float], calls: int) -> None:
    assert costs.of_answer(strategy, options) == calls
    assert costs.excess(strategy, calls, 2, 2 * calls) == ""
    assert "to use it, raise the limit" in costs.excess(strategy, calls, 1, calls - 1)
    assert "at most 1 answers (n)" in costs.excess(strategy, calls, 2, 2 * calls - 1)


# the response


def request_of(**counts: int) -> accounting.Request:
    request = accounting.Request("moa", "jerry-xl", 64, 600.0)
    request.calls += [accounting.Call("jerry-xl", 200, **counts)] * 2
    return request


ALL = {"reasoning_content": "So.", "refusal": "No.", "logprobs": LOGPROBS}


def test_a_completion_has_what_was_beside_the_text() -> None:
    whole = responses.completion(request_of(), "m", [Answer("a", "length", ALL), Answer("b")])
    first, second = whole["choices"]
    assert (first["finish_reason"], first["logprobs"]) == ("length", LOGPROBS)
    said = {"role": "assistant", "content": "a", "refusal": "No.", "reasoning_content": "So."}
    assert first["message"] == said
    assert (second["finish_reason"], second["logprobs"]) == ("stop", None)
    assert second["message"] == {"role": "assistant", "content": "b", "refusal": None}


def test_the_details_of_the_usage_are_sums() -> None:
    request = request_of(prompt_tokens=9, completion_tokens=5, reasoning_tokens=3, cached_tokens=8)
    assert responses.usage(request) == {
        "prompt_tokens": 18,
        "completion_tokens": 10,
        "total_tokens": 28,
        "prompt_tokens_details": {"cached_tokens": 16},
        "completion_tokens_details": {"reasoning_tokens": 6},
    }


@pytest.mark.parametrize("details", [None, 3, {}, {"cached_tokens": None}, {"cached_tokens": -1}])
def test_wrong_details_count_as_nothing(details: Any) -> None:
    assert Usage({"prompt_tokens_details": details}).cached_tokens == 0


def read_events(sent: bytes) -> list[dict[str, Any]]:
    lines = [line[len("data: ") :] for line in sent.decode().splitlines() if line]
    return [json.loads(line)["choices"][0] for line in lines if line != "[DONE]"]


@pytest.mark.parametrize("is_live", [False, True])
def test_a_stream_has_all_of_it_once(is_live: bool) -> None:
    """Whether or not the reasoning and the text came as the model wrote them."""
    stream = responses.Events("chatcmpl-1", "m", include_usage=False)
    answer = Answer("a text", "length", ALL)
    sent = stream.part(Part(0, "candidate 1 of 3, 0.1 s\n", is_reasoning=True))
    if is_live:
        sent += stream.part(Part(0, "S", is_reasoning=True)) + stream.part(Part(0, "o.", True))
        sent += stream.part(Part(0, "a te"))
    sent += b"".join(stream.end(responses.completion(request_of(), "m", [answer])))
    chunks = read_events(sent)
    deltas = [chunk["delta"] for chunk in chunks]
    joined = {
        name: "".join(delta.get(name) or "" for delta in deltas)
        for name in ("reasoning_content", "content", "refusal")
    }
    assert joined["reasoning_content"] == "candidate 1 of 3, 0.1 s\nSo."
    assert (joined["content"], joined["refusal"]) == ("a text", "No.")
    assert [chunk["logprobs"] for chunk in chunks if chunk["logprobs"]] == [LOGPROBS]
    assert [chunk["finish_reason"] for chunk in chunks if chunk["finish_reason"]] == ["length"]


def test_a_streamed_completion_of_the_upstream_keeps_all_of_it() -> None:
    whole = responses.completion(request_of(), "m", [Answer("a text", "length", ALL)])
    stream = responses.Events("chatcmpl-1", "m", include_usage=False)
    reader = events.StreamedCompletion(None)
    reader.feed(b"".join(stream.end(whole)))
    assert reader.is_whole
    (sample,) = samples_of(reader.completion())
    assert (sample.text, sample.finish, dict(sample.beside)) == ("a text", "length", ALL)
