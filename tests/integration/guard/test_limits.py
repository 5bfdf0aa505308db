"""What one request may cost: upstream calls, bytes, time."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from optictl.proof.standin import Reply, Seen, completion
from testing.support import STRATEGIES, Server, guarded

from .helpers import (
    BOOM,
    CALLS,
    MARK,
    Pair,
    assert_refused,
    assert_silent,
    guarded_pair,
    raw,
    text_of,
    trickle,
)

pytestmark = pytest.mark.slow

MAX_CALLS, MAX_BYTES, SECONDS = 4, 20_000, 1.5
FLAGS = [
    "--max-upstream-calls",
    str(MAX_CALLS),
    "--max-body-bytes",
    str(MAX_BYTES),
    "--request-timeout",
    str(SECONDS),
]


@pytest.fixture(scope="module", params=["proxy", "auto"])
def running(release: Path, request: pytest.FixtureRequest) -> Iterator[Pair]:
    strategies = [*STRATEGIES, "mars", "cepo", "mcts"]
    with guarded_pair(release, approach=request.param, strategies=strategies, extra=FLAGS) as pair:
        yield pair


@pytest.fixture
def pair(running: Pair) -> Pair:
    return running.fresh()


# mars and cepo call from threads of their own
@pytest.mark.parametrize("strategy", ["mcts", "mars", "cepo"])
@pytest.mark.parametrize("stream", [False, True])
def test_the_call_that_is_one_too_many_is_not_made(pair: Pair, strategy: str, stream: bool) -> None:
    response = pair.server.ask(f"{strategy}-jerry-xl", stream=stream)
    error = assert_refused(response, 400, "upstream_call_limit")
    assert f"more than {MAX_CALLS} upstream calls" in error["message"]
    assert response.headers["x-should-retry"] == "false"
    assert response.headers["x-optillm-upstream-calls"] == str(MAX_CALLS)
    # of calls side by side, the last ones may be closed before they arrive
    assert len(pair.upstream.calls()) <= MAX_CALLS


@pytest.mark.parametrize("strategy", ["moa", "bon", "plansearch"])
def test_a_request_may_use_all_its_calls(pair: Pair, strategy: str) -> None:
    assert text_of(pair.server.ask(f"{strategy}-jerry-xl"))
    assert len(pair.upstream.calls()) == CALLS[strategy] <= MAX_CALLS


@pytest.mark.parametrize(("strategy", "n"), [("moa", 2), ("self_consistency", 1)])
def test_all_answers_of_a_request_share_its_calls(pair: Pair, strategy: str, n: int) -> None:
    error = assert_refused(pair.server.ask(f"{strategy}-jerry-xl", n=n), 400, "upstream_call_limit")
    assert "limits.max_upstream_calls" in error["message"]
    assert pair.upstream.seen == []


def test_failing_calls_are_calls(pair: Pair) -> None:
    pair.upstream.respond = lambda seen: BOOM if seen.method == "POST" else None
    response = pair.server.ask("mars-jerry-xl")
    assert_refused(response, 400, "upstream_call_limit")
    assert response.headers["x-optillm-upstream-calls"] == str(MAX_CALLS)


def test_the_limit_is_each_requests_own(pair: Pair) -> None:
    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(pair.server.ask, ["moa-jerry-xl"] * 6))
    assert [answer.status_code for answer in answers] == [200] * 6


def padded(size: int) -> bytes:
    """A good request of exactly this many bytes."""
    start, end = b'{"model": "moa-jerry-xl", "messages": [{"role": "user", "content": "', b'"}]}'
    return start + b"x" * (size - len(start) - len(end)) + end


def send(server: Server, body: bytes, *, chunked: bool = False) -> httpx.Response:
    content = (body[i : i + 4096] for i in range(0, len(body), 4096)) if chunked else body
    return server.post(content=content, headers={"content-type": "application/json"})


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_up_to_the_limit_passes(pair: Pair, chunked: bool) -> None:
    assert text_of(send(pair.server, padded(MAX_BYTES), chunked=chunked))


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("size", [MAX_BYTES + 1, 200_000, 5_000_000])
def test_a_larger_body_does_not(pair: Pair, size: int, chunked: bool) -> None:
    error = assert_refused(send(pair.server, padded(size), chunked=chunked), 413, "body_too_large")
    assert f"{MAX_BYTES} bytes" in error["message"]
    assert pair.upstream.seen == []


def test_a_size_that_is_only_claimed_is_refused_unread(pair: Pair) -> None:
    head = (
        "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\n"
        f"Authorization: Bearer {pair.server.key}\r\n"
        "Content-Type: application/json\r\nConnection: close\r\nContent-Length: 99999999999\r\n\r\n"
    )
    answer = raw(pair.server, head.encode())
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b'"body_too_large"' in answer


def test_wrong_keys_are_refused_before_a_body_is_read(pair: Pair) -> None:
    response = httpx.post(
        f"{pair.server.url}/chat/completions",
        content=padded(MAX_BYTES + 1),
        headers={"Authorization": "Bearer wrong"},
    )
    assert_refused(response, 401, "invalid_api_key")


def slow_from(call: int, seconds: float, pair: Pair) -> None:
    """Every strategy call from this one on takes so long."""

    def respond(seen: Seen) -> Reply | None:
        late = seen.method == "POST" and len(pair.upstream.calls()) >= call
        return Reply(body=completion(seen.body or {}), delay=seconds) if late else None

    pair.upstream.respond = respond


# whichever call hangs: the last one of a strategy has no later one that could notice
@pytest.mark.parametrize(("strategy", "call"), [("moa", 1), ("moa", 3), ("plansearch", 1)])
def test_a_call_that_hangs_ends_with_the_requests_time(
    pair: Pair, strategy: str, call: int
) -> None:
    slow_from(call, 8, pair)
    begun = time.monotonic()
    response = pair.server.ask(f"{strategy}-jerry-xl", MARK)
    assert time.monotonic() - begun < SECONDS + 1.5
    error = assert_refused(response, 504, "request_timeout")
    assert error["message"] == f"the strategy did not finish within {SECONDS} s (timeouts.request)"
    assert response.headers["x-should-retry"] == "false"
    assert len(pair.upstream.calls()) == call
    assert_silent(pair.server)


def test_many_calls_share_one_time(pair: Pair) -> None:
    slow_from(1, 0.7, pair)
    begun = time.monotonic()
    assert_refused(pair.server.ask("plansearch-jerry-xl"), 504, "request_timeout")
    assert time.monotonic() - begun < SECONDS + 1.5
    assert len(pair.upstream.calls()) == 3


def test_an_answer_that_trickles_in_ends_as_well(release: Path) -> None:
    # a byte now and then keeps a read from timing out for ever
    flags = ["--request-timeout", str(SECONDS)]
    with (
        trickle(0.3) as base_url,
        guarded(release, base_url, approach="auto", extra=flags) as server,
    ):
        begun = time.monotonic()
        body = {
            "model": "self_consistency-jerry-xl",
            "messages": [{"role": "user", "content": MARK}],
        }
        assert_refused(server.post(body, timeout=8), 504, "request_timeout")
        assert time.monotonic() - begun < SECONDS + 1.5
