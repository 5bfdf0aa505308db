"""The judges of the conformance run: what keeps a promise, and what breaks it."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from optictl.guard.error_texts import ERROR_TEXTS
from optictl.guard.loops import MARK_HEADER
from optictl.host.network import Response
from optictl.proof import cases, promises
from optictl.proof.promises import Exchange
from optictl.proof.standin import LABEL, Seen

GOOD = f"7 This is answer 1 of the {LABEL}."
HEADERS = {
    "x-optillm-strategy": "moa",
    "x-optillm-upstream-calls": "3",
    "x-optillm-upstream-failures": "0",
    "x-optillm-upstream-completions": "5",
}


def call(model: str = "jerry-xl", words: int = 40, mark: str | None = "t") -> Seen:
    headers = {} if mark is None else {MARK_HEADER: mark}
    message = {"role": "user", "content": "word " * words}
    body = {"model": model, "messages": [message]}
    return Seen("POST", "/v1/chat/completions", headers, body)


def answer(text: str | None = GOOD, **headers: str) -> Response:
    data = {
        "choices": [{"message": {"content": text}}],
        "usage": {"prompt_tokens": 90, "completion_tokens": 40, "total_tokens": 130},
    }
    named = {f"x-optillm-{name.replace('_', '-')}": value for name, value in headers.items()}
    return Response(200, json.dumps(data), {**HEADERS, **named})


def error(status: int, code: str) -> Response:
    return Response(status, json.dumps({"error": {"message": "no", "code": code}}))


RAN = Exchange(answer(), (call(), call(), call()), completions=5, prompt=90, completed=40)


def test_a_strategy_that_ran() -> None:
    assert promises.ran(RAN, "moa", "jerry-xl") == ""


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"answer": error(502, "upstream_failed")}, "502: no"),
        ({"answer": Response(0, error="timed out")}, "timed out"),
        ({"calls": ()}, "it made no upstream call"),
        ({"completions": 1}, "1 completion(s) sampled upstream: no strategy ran"),
        ({"calls": (call(), call("tom"))}, "a call used the model tom"),
        ({"calls": (call(), call(mark=None))}, "a call went upstream around the guard"),
        ({"answer": answer("")}, "the answer is no answer of the model: ''"),
        ({"answer": answer(None)}, "the answer is no answer of the model: ''"),
        ({"answer": answer(ERROR_TEXTS[0])}, "the answer is no answer of the model"),
        ({"answer": answer("Sorry, it is down")}, "the answer does not come from the model"),
        ({"answer": answer(strategy="bon")}, "x-optillm-strategy is bon, not moa"),
        ({"answer": answer(upstream_calls="2")}, "x-optillm-upstream-calls is 2, not 3"),
        ({"answer": answer(upstream_failures="1")}, "x-optillm-upstream-failures is 1, not 0"),
        ({"answer": answer(upstream_completions="4")}, "upstream-completions is 4, not 5"),
        ({"prompt": 91}, "the calls cost 91 + 40 tokens"),
        ({"completed": 0}, "the calls cost 90 + 0 tokens"),
    ],
)
def test_a_strategy_that_did_not_run(changes: dict[str, Any], problem: str) -> None:
    assert problem in promises.ran(replace(RAN, **changes), "moa", "jerry-xl")


@pytest.mark.parametrize(
    ("strategy", "least"), [("moa", 2), ("mars", 2), ("re2", 1), ("cot_reflection", 1), ("new", 1)]
)
def test_the_completions_of_a_kind(strategy: str, least: int) -> None:
    assert promises.least_completions(strategy) == least


@pytest.mark.parametrize(
    ("strategy", "words", "is_good"),
    [("re2", 40, True), ("re2", 10, False), ("moa", 10, True), ("cot_reflection", 13, True)],
)
def test_one_call_has_a_prompt_of_its_own(strategy: str, words: int, is_good: bool) -> None:
    exchange = replace(RAN, calls=(call(words=words),))
    assert (promises.asks_more(exchange, strategy, "word " * 10) == "") is is_good


DOWN = Exchange(error(502, "upstream_failed"), (call(),), failures=1)


def test_an_outage() -> None:
    assert promises.outage(DOWN) == ""
    assert promises.outage(replace(DOWN, calls=())) == "it made no upstream call"
    swallowed = promises.outage(replace(DOWN, answer=answer("Sorry")))
    assert swallowed == "200 with 'Sorry', not 502 upstream_failed"
    assert promises.outage(replace(DOWN, answer=error(502, "strategy_failed")))
    assert promises.outage(replace(DOWN, answer=error(500, "upstream_failed")))
    assert promises.outage(replace(DOWN, answer=Response(502, "no JSON")))


@pytest.mark.parametrize(
    ("response", "problem"),
    [
        (error(502, "upstream_failed"), ""),
        (answer(upstream_failures="2"), ""),
        (answer(upstream_failures="0"), "x-optillm-upstream-failures is 0, and 2 calls failed"),
        (answer("It is down", upstream_failures="2"), "does not come from the model"),
        (answer(ERROR_TEXTS[1], upstream_failures="2"), "is no answer of the model"),
        (error(500, "internal_error"), "500: no, not 502 upstream_failed"),
    ],
)
def test_an_outage_after_the_first_call(response: Response, problem: str) -> None:
    exchange = Exchange(response, (call(),) * 3, failures=2, completions=1)
    said = promises.late_outage(exchange, "moa")
    assert said == "" if not problem else problem in said


def test_the_text_of_an_unknown_strategy_is_free() -> None:
    exchange = Exchange(answer("42", upstream_failures="0"))
    assert promises.late_outage(exchange, "a_new_plugin") == ""


@pytest.mark.parametrize(
    ("response", "is_good"),
    [
        (answer(), True),
        (error(400, "answer_truncated"), True),
        (error(502, "strategy_failed"), False),
        (error(500, "internal_error"), False),
        (error(400, "invalid_request"), False),
    ],
)
def test_an_answer_at_the_token_limit(response: Response, is_good: bool) -> None:
    assert (promises.truncated(Exchange(response)) == "") is is_good


def test_a_refusal() -> None:
    locked = Exchange(error(401, "invalid_api_key"))
    assert promises.refused(locked, 401, "invalid_api_key") == ""
    assert promises.refused(locked, 400, "invalid_api_key")
    assert promises.refused(locked, 401, "another")
    asked = replace(locked, calls=(call(),))
    assert promises.refused(asked, 401, "invalid_api_key") == "it made 1 upstream call(s)"


def test_a_loop() -> None:
    outer = Exchange(error(421, "loop_detected"), (call(),))
    assert promises.loop(outer, error(421, "loop_detected")) == ""
    assert promises.loop(outer, answer()).startswith("the call that came back: 200")
    assert promises.loop(Exchange(error(502, "upstream_failed")), error(421, "loop_detected"))


def models(*names: str) -> Response:
    return Response(200, json.dumps({"object": "list", "data": [{"id": name} for name in names]}))


def test_the_model_list() -> None:
    both = models("moa-jerry-xl", "bon-jerry-xl")
    assert promises.listed(both, ["moa", "bon"], "jerry-xl") == ""
    assert promises.listed(both, ["moa", "re2"], "jerry-xl") == "re2-jerry-xl not listed"
    assert promises.listed(error(502, "upstream_failed"), ["moa"], "jerry-xl") == "502: no"


def test_the_model_list_of_an_upstream_that_is_down() -> None:
    assert promises.models_down(error(502, "upstream_failed")) == ""
    assert promises.models_down(models()) == "200 with 0 models, not 502 upstream_failed"
    assert promises.models_down(error(500, "internal_error"))


def stream(*events: str) -> Response:
    return Response(200, "".join(f"data: {event}\n\n" for event in events))


def chunk(text: str = "", **fields: Any) -> str:
    return json.dumps({"choices": [{"delta": {"content": text}}], "usage": None, **fields})


USAGE = json.dumps(
    {
        "choices": [],
        "usage": {"prompt_tokens": 90, "completion_tokens": 40, "total_tokens": 130},
    }
)


@pytest.mark.parametrize(
    ("response", "problem"),
    [
        (stream(chunk(GOOD[:9]), chunk(GOOD[9:]), USAGE, "[DONE]"), ""),
        (stream(chunk(GOOD), USAGE), "no stream of chunks"),
        (stream("[DONE]"), "no stream of chunks"),
        (stream("{", "[DONE]"), "no stream of chunks"),
        (stream("[]", "[DONE]"), "no stream of chunks"),
        (error(502, "upstream_failed"), "no stream of chunks: 502: no"),
        (stream(chunk("another"), USAGE, "[DONE]"), "its text is 'another', not '7 This"),
        (stream(chunk(GOOD), "[DONE]"), "its usage is not that"),
    ],
)
def test_a_stream(response: Response, problem: str) -> None:
    said = promises.streamed(response, answer())
    assert said == "" if not problem else problem in said


def test_a_stream_of_an_answer_that_failed() -> None:
    assert promises.streamed(stream(chunk(), "[DONE]"), error(502, "upstream_failed"))


def test_every_case_has_its_name() -> None:
    names = [case.name for case in cases.cases(["moa", "bon"])]
    assert len(set(names)) == len(names)
    assert sum(name.startswith("moa ") for name in names) == 5
    assert sum(name.startswith("bon ") for name in names) == 5


def test_no_strategy_that_acts_on_a_text_is_tried() -> None:
    assert cases.tried(["z3", "moa", "readurls", "mine"]) == ["moa", "mine"]
    names = " ".join(case.name for case in cases.cases(["z3"]))
    assert "z3" not in names
    assert "wrong key" in names
