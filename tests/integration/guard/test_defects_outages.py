"""An upstream that fails: bare OptiLLM answers 200 and asks again, the guarded one says so once."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from optictl.proof.standin import Reply, Seen, StandIn, completion
from testing.support import STRATEGIES, UPSTREAM_KEY, bare, free_port, guarded

from .helpers import (
    BOOM,
    MARK,
    MASKED,
    Pair,
    asks_for,
    assert_refused,
    assert_silent,
    bare_pair,
    guarded_pair,
    text_of,
)

pytestmark = pytest.mark.slow


def drop(seen: Seen) -> Reply:
    """The connection closes without an answer."""
    raise ConnectionAbortedError


def empty(seen: Seen) -> Reply:
    return Reply(body={**completion(seen.body or {}), "choices": []})


def silent(seen: Seen) -> Reply:
    body = completion(seen.body or {})
    for choice in body["choices"]:
        choice["message"]["content"] = None
    return Reply(body=body)


def says(status: int, message: str, **headers: str) -> Reply:
    return Reply(status, {"error": {"message": message, "type": "x", "code": str(status)}}, headers)


#: The word in a prompt -> what the upstream does with every call that carries it.
OUTAGES: dict[str, Any] = {
    "fails-500": lambda seen: BOOM,
    "fails-401": lambda seen: says(401, "no such key"),
    "fails-429": lambda seen: says(429, "slow down"),
    "fails-drop": drop,
    "fails-empty": empty,
    "fails-null": silent,
}


def scripted(seen: Seen) -> Reply | None:
    for word, outage in OUTAGES.items():
        if asks_for(seen, word):
            return outage(seen)  # type: ignore[no-any-return]
    return None


@pytest.fixture(scope="module")
def bare_answers(release: Path) -> Iterator[dict[tuple[str, str], tuple[httpx.Response, int]]]:
    """Bare OptiLLM's answer to every outage, and its calls: all at once, because it waits long."""
    kinds = [(strategy, word) for strategy in ("moa", "bon") for word in OUTAGES]
    with bare_pair(release) as pair, ThreadPoolExecutor(len(kinds)) as pool:
        pair.upstream.respond = scripted

        def ask(kind: tuple[str, str]) -> tuple[httpx.Response, int]:
            prompt = f"{kind[1]} {kind[0]}"
            response = pair.server.ask(f"{kind[0]}-jerry-xl", prompt)
            return response, sum(asks_for(seen, prompt) for seen in pair.upstream.calls())

        yield dict(zip(kinds, pool.map(ask, kinds), strict=True))


@pytest.fixture(scope="module", params=["proxy", "auto"])
def running(release: Path, request: pytest.FixtureRequest) -> Iterator[Pair]:
    with guarded_pair(release, approach=request.param) as pair:
        yield pair


@pytest.fixture
def pair(running: Pair) -> Pair:
    return running.fresh()


@pytest.mark.parametrize("strategy", ["moa", "bon"])
@pytest.mark.parametrize("word", OUTAGES)
def test_bare_answers_200_with_an_error_text(bare_answers: Any, strategy: str, word: str) -> None:
    response, _ = bare_answers[strategy, word]
    assert text_of(response) == MASKED


@pytest.mark.parametrize("word", ["fails-500", "fails-429", "fails-drop"])
def test_bare_calls_a_failing_upstream_twelve_times(bare_answers: Any, word: str) -> None:
    _, calls = bare_answers["moa", word]
    assert calls == 12


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("fails-500", "the upstream answered 500: the model fell over"),
        ("fails-401", "the upstream answered 401: no such key"),
        ("fails-drop", "the upstream did not answer: "),
    ],
)
def test_guarded_tells_what_the_upstream_said(
    pair: Pair, strategy: str, word: str, message: str, stream: bool
) -> None:
    pair.upstream.respond = scripted
    response = pair.server.ask(f"{strategy}-jerry-xl", word, stream=stream)
    error = assert_refused(response, 502, "upstream_failed")
    assert error["message"].startswith(message)
    assert error["type"] == "upstream_error"
    failures = int(response.headers["x-optillm-upstream-failures"])
    assert failures <= 4
    # a kept-alive connection that is dropped is tried once more on a new one
    again = len(pair.upstream.calls()) - failures
    assert again == 0 or (word == "fails-drop" and again <= failures)
    # a wrong key stays wrong: a client must not try again
    assert response.headers.get("x-should-retry") == ("false" if word == "fails-401" else None)
    assert_silent(pair.server)


@pytest.mark.parametrize("strategy", ["moa", "bon", "plansearch", "self_consistency"])
@pytest.mark.parametrize("status", [400, 413, 422])
def test_a_refused_request_is_told_as_it_is(pair: Pair, status: int, strategy: str) -> None:
    """After as few calls as possible, and never as a 502, which LiteLLM and clients repeat."""
    pair.upstream.respond = lambda seen: says(status, "not this")
    response = pair.server.ask(f"{strategy}-jerry-xl")
    error = assert_refused(response, status, "upstream_refused")
    assert error["message"] == f"the upstream answered {status}: not this"
    assert response.headers["x-should-retry"] == "false"
    # it may be the number of candidates that is refused
    assert len(pair.upstream.calls()) == (2 if strategy in ("moa", "bon") else 1)


@pytest.mark.parametrize("strategy", ["moa", "bon", "plansearch", "self_consistency"])
def test_a_conversation_that_is_too_long_costs_one_call(pair: Pair, strategy: str) -> None:
    said = "litellm.ContextWindowExceededError: This model's maximum context length is 4096"
    pair.upstream.respond = lambda seen: says(400, said)
    error = assert_refused(
        pair.server.ask(f"{strategy}-jerry-xl", n=2), 400, "context_length_exceeded"
    )
    assert said in error["message"]
    assert len(pair.upstream.calls()) == 1


def test_a_busy_upstream_says_when_to_come_back(pair: Pair) -> None:
    pair.upstream.respond = lambda seen: says(503, "busy", **{"Retry-After": "17"})
    response = pair.server.ask("self_consistency-jerry-xl")
    assert_refused(response, 503, "upstream_failed")
    assert response.headers["Retry-After"] == "17"


@pytest.mark.parametrize("status", [403, 404])
def test_guarded_forbids_to_retry_what_is_final(pair: Pair, status: int) -> None:
    pair.upstream.respond = lambda seen: says(status, "never")
    response = pair.server.ask("moa-jerry-xl")
    error = assert_refused(response, 502, "upstream_failed")
    assert error["message"] == f"the upstream answered {status}: never"
    assert response.headers["x-should-retry"] == "false"


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("after", ["7", None])
def test_guarded_keeps_a_rate_limit_what_it_is(
    pair: Pair, strategy: str, after: str | None
) -> None:
    headers = {} if after is None else {"Retry-After": after}
    pair.upstream.respond = lambda seen: says(429, "slow down", **headers)
    response = pair.server.ask(f"{strategy}-jerry-xl")
    error = assert_refused(response, 429, "upstream_rate_limited")
    assert (error["type"], error["message"]) == (
        "rate_limit_error",
        "the upstream answered 429: slow down",
    )
    assert response.headers.get("retry-after") == after
    assert len(pair.upstream.calls()) <= 4


def test_a_refused_connection_bare_and_guarded(release: Path) -> None:
    nobody = f"http://127.0.0.1:{free_port()}/v1"
    with bare(release, nobody) as server, ThreadPoolExecutor(1) as pool:
        masked = pool.submit(server.ask, "moa-jerry-xl")  # waits between its twelve attempts
        with guarded(release, nobody) as other:
            error = assert_refused(other.ask("moa-jerry-xl"), 502, "upstream_failed")
            assert error["message"].startswith("the upstream did not answer: ConnectError")
            assert_refused(other.get("/v1/models"), 502, "upstream_failed")
            assert other.get("/health").status_code == 200
        assert text_of(masked.result()) == MASKED


@pytest.mark.parametrize("word", ["fails-empty", "fails-null"])
@pytest.mark.parametrize("strategy", ["moa", "bon"])
def test_guarded_does_not_pass_on_an_answer_of_nothing(
    pair: Pair, strategy: str, word: str
) -> None:
    pair.upstream.respond = scripted
    assert_refused(pair.server.ask(f"{strategy}-jerry-xl", word), 502, "strategy_failed")


@pytest.mark.parametrize("call", [2, 3])
def test_an_outage_in_the_middle_is_one(pair: Pair, call: int) -> None:
    pair.upstream.respond = lambda seen: BOOM if len(pair.upstream.calls()) == call else None
    response = pair.server.ask("moa-jerry-xl")
    assert_refused(response, 502, "upstream_failed")
    assert response.headers["x-optillm-upstream-failures"] == "1"
    assert len(pair.upstream.calls()) == call


def test_a_failure_that_the_strategy_made_good_is_counted(pair: Pair) -> None:
    # an upstream without n: moa asks three times instead
    pair.upstream.respond = lambda seen: (
        says(400, "n must be 1") if (seen.body or {}).get("n", 1) > 1 else None
    )
    response = pair.server.ask("moa-jerry-xl")
    assert text_of(response) != MASKED
    assert response.headers["x-optillm-upstream-calls"] == "6"
    assert response.headers["x-optillm-upstream-failures"] == "1"


def test_no_choice_of_several_is_an_error_text(pair: Pair) -> None:
    # the first of two strategies runs, then the upstream goes away
    pair.upstream.respond = lambda seen: BOOM if len(pair.upstream.calls()) > 3 else None
    response = pair.server.ask("moa-jerry-xl", n=2)
    assert MASKED not in response.text
    assert response.status_code in (200, 502)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b"\xff\xfe",
        {},
        [],
        None,
        "text",
        {"choices": None},
        {"choices": 5},
        {"choices": [None]},
        {"choices": [{"message": None}]},
        {"usage": []},
        {"usage": {"prompt_tokens": "many", "completion_tokens": -1}},
        b'{"a":' * 5000,
        {"error": "but 200"},
    ],
    ids=lambda body: str(body)[:24],
)
def test_a_200_that_makes_no_sense_is_an_upstream_failure(pair: Pair, body: Any) -> None:
    def nonsense(seen: Seen) -> Reply:
        whole = {**completion(seen.body or {}), **body} if isinstance(body, dict) and body else body
        return Reply(body=whole)

    pair.upstream.respond = nonsense
    response = pair.server.ask("moa-jerry-xl", MARK)
    if response.status_code != 200:
        assert response.status_code == 502, response.text
        assert response.json()["error"]["code"] in ("upstream_failed", "strategy_failed")
    assert MASKED not in response.text
    pair.upstream.respond = None
    assert text_of(pair.server.ask("moa-jerry-xl"))
    assert_silent(pair.server)


def test_a_redirect_is_not_followed(pair: Pair) -> None:
    # the SDK follows one with the whole body: the prompt would go wherever it points
    with StandIn().running() as elsewhere:
        there = {"Location": elsewhere.base_url + "/chat/completions"}
        pair.upstream.respond = lambda seen: Reply(307, {"error": {"message": "over there"}}, there)
        response = pair.server.ask("moa-jerry-xl", MARK)
    assert elsewhere.seen == []
    assert_refused(response, 502, "upstream_failed")


def test_retries_are_the_operators_choice(release: Path) -> None:
    with guarded_pair(release, extra=["--max-retries", "1"]) as pair:
        pair.upstream.respond = lambda seen: BOOM
        response = pair.server.ask("moa-jerry-xl")
        assert_refused(response, 502, "upstream_failed")
        assert (
            response.headers["x-optillm-upstream-failures"]
            == str(len(pair.upstream.calls()))
            == "8"
        )
        assert pair.bearers == {f"Bearer {UPSTREAM_KEY}"}
