"""Loops are recognised by marks, and without marks by a probe; equal questions are no loop."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from optictl.proof.standin import Reply, Seen, StandIn, completion
from testing.support import PROXY_KEY, UPSTREAM_KEY, guarded, wait_until

from .helpers import CALLS, Pair, assert_refused, events, guarded_pair, text_of

pytestmark = pytest.mark.slow

HOP = "x-optillm-hop"


@pytest.fixture(scope="module")
def running(release: Path) -> Iterator[Pair]:
    with guarded_pair(release) as pair:
        yield pair


@pytest.fixture
def pair(running: Pair) -> Pair:
    return running.fresh()


def _post(pair: Pair, body: dict[str, Any], **headers: str) -> httpx.Response:
    return httpx.post(
        f"{pair.server.url}/chat/completions",
        json=body,
        headers={"Authorization": f"Bearer {PROXY_KEY}", **headers},
        timeout=60,
    )


def _unmarked(body: dict[str, Any]) -> dict[str, Any]:
    """A call as a second LiteLLM sends it on: its mark is lost."""
    return {**{k: v for k, v in body.items() if k != "extra_headers"}, "model": "moa-jerry-xl"}


def _question(text: str) -> dict[str, Any]:
    return {"model": "moa-jerry-xl", "messages": [{"role": "user", "content": text}]}


def test_every_call_has_the_mark_of_its_request(pair: Pair) -> None:
    trace = pair.server.ask("moa-jerry-xl").headers["x-optillm-trace"]
    calls = pair.upstream.calls()
    assert len(calls) == CALLS["moa"]
    assert {call.headers[HOP] for call in calls} == {trace}
    assert [(call.body or {})["extra_headers"] for call in calls] == [{HOP: trace}] * len(calls)


def test_a_mark_in_a_header_is_a_loop_whoever_made_the_call(pair: Pair) -> None:
    # another process made it, before a restart or on another host
    refused = _post(pair, _question("hello"), **{HOP: "0123456789abcdef"})
    assert_refused(refused, 421, "loop_detected")
    assert refused.headers["x-should-retry"] == "false"
    assert pair.upstream.calls() == []


def test_a_mark_in_the_body_is_a_loop(pair: Pair) -> None:
    # a server between the two sent the body on unchanged
    body = {**_question("hello"), "extra_headers": {HOP: "0123456789abcdef"}}
    assert_refused(_post(pair, body), 421, "loop_detected")
    assert pair.upstream.calls() == []


@pytest.mark.parametrize("extra", [None, {}, [], "x", {HOP: ""}, {HOP: None}, {HOP: 7}])
def test_what_is_no_mark_is_no_loop(pair: Pair, extra: object) -> None:
    assert text_of(_post(pair, {**_question("hello"), "extra_headers": extra}))


def test_a_loop_across_two_processes_ends_at_its_second_pass(release: Path) -> None:
    passes: list[httpx.Response] = []

    def respond(seen: Seen) -> Reply | None:
        if seen.body is None:
            return None
        answer = httpx.post(
            f"{second.url}/chat/completions",
            json={**seen.body, "model": "bon-jerry-xl"},
            headers={"Authorization": f"Bearer {PROXY_KEY}"},
            timeout=60,
        )
        passes.append(answer)
        return Reply(answer.status_code, answer.json())

    with (
        StandIn(key=UPSTREAM_KEY, respond=respond).running() as upstream,
        guarded(release, upstream.base_url) as first,
        guarded(release, upstream.base_url) as second,
    ):
        assert_refused(first.ask("moa-jerry-xl"), 421, "loop_detected")
        assert [answer.status_code for answer in passes] == [421]
        assert len(upstream.calls()) == 1


def test_a_loop_that_loses_its_mark_is_ended_by_a_probe(pair: Pair) -> None:
    passes: list[int] = []
    lock = threading.Lock()

    def respond(seen: Seen) -> Reply | None:
        if seen.body is None:
            return None
        with lock:
            passes.append(0)
            if len(passes) > 60:  # a test that fails must end as well
                return Reply(500, {"error": {"message": "too many passes"}})
        threading.Event().wait(0.1)  # a proxy in between takes its time
        answer = pair.server.post(_unmarked(seen.body))
        return Reply(answer.status_code, answer.json())

    pair.upstream.respond = respond
    assert_refused(pair.server.ask("moa-jerry-xl"), 421, "loop_detected")
    # the chain, and the probe's own pass
    assert 8 <= len(passes) <= 30
    proven = [event for event in events(pair.server) if event["event"] == "loop_proven"]
    assert [event["base_model"] for event in proven] == ["jerry-xl"]
    pair.fresh()
    assert text_of(pair.server.ask("moa-jerry-xl"))


def test_many_clients_with_one_question_are_answered(release: Path) -> None:
    """They look like a chain; the probe that they cause does not come back."""
    with guarded_pair(release) as pair, ThreadPoolExecutor(48) as pool:
        pair.upstream.respond = lambda seen: (
            Reply(body=completion(seen.body), delay=0.5) if seen.body else None
        )
        # they arrive one after the other, for longer than a chain needs to be suspected
        answers = []
        for _ in range(48):
            answers.append(pool.submit(pair.server.ask, "moa-jerry-xl"))
            threading.Event().wait(0.03)
        assert [answer.result().status_code for answer in answers] == [200] * 48
        probes = [call for call in pair.upstream.calls() if "optillm loop probe" in str(call.body)]
        assert len(probes) <= 1
        assert not any(event["event"] == "loop_proven" for event in events(pair.server))


def test_a_client_that_asks_in_a_strategys_words_is_answered(pair: Pair) -> None:
    """Another client may send the very messages that `moa` asks the upstream with."""
    pair.upstream.respond = lambda seen: (
        Reply(body=completion(seen.body), delay=0.5) if seen.body else None
    )
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(pair.server.post, _question("X"))
        wait_until(pair.upstream.calls, what="the first call")
        messages = (pair.upstream.calls()[0].body or {})["messages"]
        second = pool.submit(pair.server.post, {"model": "bon-jerry-xl", "messages": messages})
        assert [first.result().status_code, second.result().status_code] == [200, 200]


def test_a_probe_of_a_stranger_is_a_question_like_any_other(pair: Pair) -> None:
    text = f"optillm loop probe {'0' * 32} {'0' * 32}"
    assert text_of(_post(pair, _question(text)))
