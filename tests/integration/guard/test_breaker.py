"""A base model routed back to OptiLLM: bare it loops for ever, guarded it ends at pass two."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from optictl.proof.standin import Reply, Seen, StandIn, completion
from testing.support import PROXY_KEY, STRATEGIES, UPSTREAM_KEY, bare, wait_until

from .helpers import CALLS, Pair, assert_refused, assert_silent, guarded_pair, journal_of, text_of

pytestmark = pytest.mark.slow

#: A wrong route: what LiteLLM makes of a strategy's call before it sends it back to OptiLLM.
Route = Callable[[dict[str, Any]], dict[str, Any]]


def unprefixed(body: dict[str, Any]) -> dict[str, Any]:
    return body


def prefixed(body: dict[str, Any]) -> dict[str, Any]:
    return {**body, "model": "moa-jerry-xl"}


def another_strategy(body: dict[str, Any]) -> dict[str, Any]:
    return {**body, "model": "bon-jerry-xl", "metadata": {"user": None}, "max_tokens": 5}


def as_parts(body: dict[str, Any]) -> dict[str, Any]:
    """The same conversation, written differently: parts, an empty system message, developer."""
    messages = [
        {
            "role": "developer" if message["role"] == "system" else message["role"],
            "content": [{"type": "text", "text": message["content"]}],
        }
        for message in body["messages"]
        if message["content"]
    ]
    return {**body, "model": "moa-jerry-xl", "messages": messages}


def unknown_strategy(body: dict[str, Any]) -> dict[str, Any]:
    return {**body, "model": "coc-jerry-xl"}


ROUTES = [unprefixed, prefixed, another_strategy, as_parts, unknown_strategy]


@pytest.fixture(scope="module", params=["proxy", "auto", "proxy, two workers"])
def running(release: Path, request: pytest.FixtureRequest) -> Iterator[Pair]:
    approach, _, more = request.param.partition(", ")
    with guarded_pair(release, approach=approach, extra=["--workers", "2"] if more else []) as pair:
        if more:  # whichever takes the first pass, the other may take the second
            wait_until(lambda: pair.server.get("/guard/state").json()["workers"]["serving"] == 2)
        yield pair


@pytest.fixture
def pair(running: Pair) -> Pair:
    return running.fresh()


def send_back(
    pair: Pair, route: Route, *, first: Reply | None = None, most: int = 20
) -> list[httpx.Response]:
    """Script the upstream: every completion goes back to the door. Return the door's answers.

    With `first`, the base model fails that way and the way back is LiteLLM's fallback.
    """
    answers: list[httpx.Response] = []
    lock = threading.Lock()

    def respond(seen: Seen) -> Reply | None:
        if seen.body is None:
            return None
        with lock:
            if len(answers) >= most:  # a test that fails must end as well
                return Reply(500, {"error": {"message": "too many passes"}})
        answer = pair.server.post(route(seen.body))
        answers.append(answer)
        if first is not None and answer.status_code != 200:
            return first  # LiteLLM answers with the first failure when the fallback failed too
        return Reply(
            answer.status_code,
            answer.json(),
            {"x-should-retry": answer.headers.get("x-should-retry", "")},
        )

    pair.upstream.respond = respond
    return answers


def the_only(passes: list[httpx.Response]) -> httpx.Response:
    """The door's answer to the one pass that came back; the client may have had its own before."""
    wait_until(lambda: passes, what="the second pass")
    (one,) = passes
    return one


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_loop_ends_at_its_second_pass(pair: Pair, strategy: str, route: Route) -> None:
    passes = send_back(pair, route)
    lines = len(journal_of(pair.server))
    begun = time.monotonic()
    response = pair.server.ask(f"{strategy}-jerry-xl")
    assert time.monotonic() - begun < 5
    error = assert_refused(response, 421, "loop_detected")
    assert error["message"].startswith("routing loop: ")
    assert response.headers["x-should-retry"] == "false"
    second = the_only(passes)
    assert_refused(second, 421, "loop_detected")
    assert second.headers["x-should-retry"] == "false"
    assert len(pair.upstream.calls()) == 1
    # the journal has both: the pass that was refused, and the request that ended because of it
    wait_until(lambda: len(journal_of(pair.server)) == lines + 2)
    told = {(line["event"], line["status"]) for line in journal_of(pair.server)[lines:]}
    assert told == {("refused", 421), ("request", 421)}
    assert_silent(pair.server)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_fallback_to_the_strategy_itself_ends_as_well(pair: Pair, strategy: str) -> None:
    # jerry-xl is down and falls back to moa-jerry-xl, which asks for jerry-xl
    passes = send_back(pair, prefixed, first=Reply(500, {"error": {"message": "jerry-xl is down"}}))
    begun = time.monotonic()
    assert_refused(pair.server.ask(f"{strategy}-jerry-xl"), 421, "loop_detected")
    assert time.monotonic() - begun < 5
    the_only(passes)
    assert len(pair.upstream.calls()) == 1


def test_a_conversation_loops_like_a_question(pair: Pair) -> None:
    passes = send_back(pair, as_parts)
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "What is 2 + 2?"},
        {"role": "assistant", "content": "4"},
        {"role": "user", "content": "And 3 + 3? \u00e4\u00f6\u00fc \U0001f600"},
    ]
    assert_refused(
        pair.server.post({"model": "bon-jerry-xl", "messages": messages}), 421, "loop_detected"
    )
    the_only(passes)


def test_a_stream_loops_no_longer(pair: Pair) -> None:
    passes = send_back(pair, prefixed)
    assert_refused(pair.server.ask("moa-jerry-xl", stream=True), 421, "loop_detected")
    the_only(passes)


def test_after_a_loop_everything_works(pair: Pair) -> None:
    send_back(pair, prefixed)
    assert_refused(pair.server.ask("moa-jerry-xl"), 421, "loop_detected")
    pair.fresh()
    assert text_of(pair.server.ask("moa-jerry-xl"))
    assert len(pair.upstream.calls()) == CALLS["moa"]


def test_the_same_question_from_many_clients_is_no_loop(pair: Pair) -> None:
    pair.upstream.respond = lambda seen: (
        Reply(body=completion(seen.body), delay=0.2) if seen.body else None
    )
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(pair.server.ask, ["moa-jerry-xl", "bon-jerry-xl"] * 4))
    assert [answer.status_code for answer in answers] == [200] * 8


def test_a_strategy_that_asks_another_one_is_no_loop(pair: Pair) -> None:
    # LiteLLM routes the base model to another model, which uses this service for other questions
    inner: list[httpx.Response] = []

    def respond(seen: Seen) -> Reply | None:
        if seen.body and "What is 2 + 2?" in str(seen.body["messages"]) and not inner:
            inner.append(pair.server.ask("self_consistency-jerry-xl", "Another question"))
        return None

    pair.upstream.respond = respond
    assert text_of(pair.server.ask("moa-jerry-xl"))
    assert text_of(inner[0])


def test_bare_loops_until_it_is_stopped(release: Path) -> None:
    passes: list[Seen] = []
    enough = threading.Event()

    def respond(seen: Seen) -> Reply | None:
        if seen.body is None:
            return None
        passes.append(seen)
        if len(passes) >= 12:
            enough.set()
            return Reply(body=completion(seen.body))
        answer = httpx.post(
            f"{server.url}/chat/completions", json=seen.body, headers=key, timeout=60
        )
        return Reply(answer.status_code, answer.json())

    key = {"Authorization": f"Bearer {PROXY_KEY}"}
    with (
        StandIn(key=UPSTREAM_KEY, respond=respond).running() as upstream,
        bare(release, upstream.base_url) as server,
    ):
        # a prefix that OptiLLM does not know goes upstream as it is, and LiteLLM sends it back
        server.ask("coc-jerry-xl")
        assert enough.is_set()
