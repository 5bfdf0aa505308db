"""N requests run, N more wait in FIFO order, the next are refused; /health is answered."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import socket
import threading
from collections.abc import Coroutine, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from optictl.guard.limiter import Full, Left, Limiter
from optictl.proof.standin import Reply, Seen
from testing.support import PROXY_KEY, STRATEGIES, wait_until

from .helpers import Pair, assert_refused, guarded_pair, text_of

MOST = 2


def _settled() -> Coroutine[None, None, None]:
    """Everything that can run has run."""
    return asyncio.sleep(0.01)


class TestLimiter:
    """The queue by itself."""

    def test_first_come_first_served(self) -> None:
        async def scenario() -> None:
            limiter, order = Limiter(3), list[int]()

            async def take(number: int) -> None:
                async with limiter.turn(30):
                    order.append(number)

            async with limiter.turn(0), limiter.turn(0):
                async with limiter.turn(0):
                    waiting = []
                    for number in range(3):
                        waiting.append(asyncio.ensure_future(take(number)))
                        await _settled()
                        assert limiter.waiting == len(waiting)
                    with pytest.raises(Full):
                        async with limiter.turn(30):
                            pass
                    assert order == []
                # one place is free: they have it one after the other
                await asyncio.wait_for(asyncio.gather(*waiting), 10)
            assert order == [0, 1, 2]
            assert (limiter.waiting, limiter.running) == (0, 0)

        asyncio.run(scenario())

    def test_no_request_waits_longer_than_allowed(self) -> None:
        async def scenario() -> None:
            limiter = Limiter(1)
            async with limiter.turn(0):
                with pytest.raises(Full):
                    async with limiter.turn(0.01):
                        pass
                assert limiter.waiting == 0

        asyncio.run(scenario())

    def test_a_request_that_leaves_gives_up_its_place(self) -> None:
        async def scenario() -> None:
            limiter = Limiter(1)
            gone = asyncio.get_running_loop().create_future()
            async with limiter.turn(0):
                asyncio.get_running_loop().call_later(0.01, gone.set_result, None)
                with pytest.raises(Left):
                    async with limiter.turn(30, (gone,)):
                        pass
                assert limiter.waiting == 0
            async with limiter.turn(0):
                assert limiter.running == 1

        asyncio.run(scenario())

    def test_the_place_of_a_request_that_fails_is_handed_on(self) -> None:
        async def scenario() -> None:
            limiter = Limiter(1)

            async def take() -> str:
                async with limiter.turn(30):
                    return "had it"

            async def fail() -> None:
                async with limiter.turn(0):
                    waiting.append(asyncio.ensure_future(take()))
                    await _settled()
                    assert limiter.waiting == 1
                    raise ZeroDivisionError

            waiting = list[asyncio.Future[str]]()
            with pytest.raises(ZeroDivisionError):
                await fail()
            assert await asyncio.wait_for(waiting[0], 10) == "had it"

        asyncio.run(scenario())

    def test_no_place_is_lost_among_many(self) -> None:
        """Requests that come, leave, fail, are late at any moment: all places end free."""

        async def scenario() -> None:
            limiter, running, most = Limiter(3), [0], [0]
            loop = asyncio.get_running_loop()

            async def once(number: int) -> None:
                gone = loop.create_future()
                if number % 7 == 0:
                    loop.call_later(0.0002 * (number % 13), gone.set_result, None)
                with contextlib.suppress(Full, Left, ZeroDivisionError):
                    async with limiter.turn(0.001 * (number % 5), (gone,)):
                        running[0] += 1
                        most[0] = max(most[0], running[0])
                        await asyncio.sleep(0.0001 * (number % 3))
                        running[0] -= 1
                        if number % 11 == 0:
                            raise ZeroDivisionError

            for start in range(0, 2000, 8):
                tasks = [asyncio.ensure_future(once(start + i)) for i in range(8)]
                if start % 3 == 0:
                    loop.call_later(0.001, tasks[0].cancel)
                await asyncio.gather(*tasks, return_exceptions=True)
            # a task that was cancelled during its turn did not count down
            assert most[0] >= 3
            assert (limiter.waiting, limiter.running) == (0, 0)

        asyncio.run(scenario())


class Gate:
    """An upstream that answers when it is told to; `asked`: the messages of each call."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.asked: list[str] = []

    def respond(self, seen: Seen) -> Reply | None:
        if seen.method == "POST":
            self.asked.append(json.dumps(seen.body["messages"]))
            self.open.wait(60)
        return None


@pytest.fixture(scope="module")
def running(release: Path) -> Iterator[Pair]:
    with guarded_pair(
        release, strategies=[*STRATEGIES, "none"], extra=["--max-in-flight", str(MOST)]
    ) as pair:
        yield pair


@contextmanager
def _full(pair: Pair, waiting: int = MOST) -> Iterator[tuple[Gate, list[Future[httpx.Response]]]]:
    """As many requests run as may, and `waiting` wait. All of them go on when the block ends."""
    gate = Gate()
    pair.fresh().upstream.respond = gate.respond
    with ThreadPoolExecutor(4 * MOST) as pool:
        try:
            asked = []
            for number in range(MOST + waiting):
                asked.append(pool.submit(pair.server.ask, "none-jerry-xl", f"number {number}"))
                wait_until(
                    lambda: _in_flight(pair) + _waiting(pair) == len(asked),
                    what=f"request {number}",
                )
            yield gate, asked
        finally:
            gate.open.set()


def _state(pair: Pair) -> dict[str, object]:
    found: dict[str, object] = pair.server.get("/guard/state").json()
    return found


def _in_flight(pair: Pair) -> int:
    return len(_state(pair)["in_flight"])  # type: ignore[arg-type]


def _waiting(pair: Pair) -> int:
    return int(_state(pair)["waiting"])  # type: ignore[call-overload]


@pytest.mark.slow
def test_beyond_the_queue_requests_are_sent_away_and_health_is_answered(running: Pair) -> None:
    with _full(running) as (gate, asked):
        assert (_in_flight(running), _waiting(running)) == (MOST, MOST)
        refused = running.server.ask("none-jerry-xl")
        error = assert_refused(refused, 503, "overloaded")
        assert "limits.max_in_flight" in error["message"]
        assert int(refused.headers["Retry-After"]) > 0
        assert (
            httpx.get(f"{running.server.url.removesuffix('/v1')}/health", timeout=5).status_code
            == 200
        )
        scraped = running.server.get("/metrics").text
        assert f'optillm_requests_waiting{{deployment="optillm-proxy"}} {float(MOST)}' in scraped
        assert 'optillm_refusals_total{code="overloaded",deployment="optillm-proxy"} 1.0' in scraped
        assert len(gate.asked) == MOST
    assert [text_of(one.result(30)) != "" for one in asked] == [True] * 2 * MOST
    assert len(gate.asked) == 2 * MOST
    assert _waiting(running) == 0


@pytest.mark.slow
def test_a_client_that_goes_away_gives_up_its_place(running: Pair) -> None:
    body = json.dumps({"model": "none-jerry-xl", "messages": [{"role": "user", "content": "gone"}]})
    with _full(running, waiting=0) as (gate, _asked):
        port = int(running.server.url.rpartition(":")[2].removesuffix("/v1"))
        with socket.create_connection(("127.0.0.1", port)) as client:
            head = (
                "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\n"
                f"Authorization: Bearer {PROXY_KEY}\r\n"
                f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
            )
            client.sendall(f"{head}{body}".encode())
            wait_until(lambda: _waiting(running) == 1)
        wait_until(lambda: _waiting(running) == 0)
    assert not any("gone" in text for text in gate.asked)


@pytest.mark.slow
def test_what_waits_when_the_drain_is_over_gets_a_503(release: Path) -> None:
    extra = ["--max-in-flight", "1", "--drain-timeout", "0.5"]
    with (
        guarded_pair(release, strategies=["none"], extra=extra) as pair,
        ThreadPoolExecutor(2) as pool,
    ):
        gate = Gate()
        pair.upstream.respond = gate.respond
        asked = [pool.submit(pair.server.ask, "none-jerry-xl") for _ in range(2)]
        wait_until(lambda: (_in_flight(pair), _waiting(pair)) == (1, 1))
        pair.server.process.send_signal(signal.SIGTERM)
        for one in asked:
            response = one.result(30)
            assert_refused(response, 503, "draining")
            assert int(response.headers["Retry-After"]) > 0
        gate.open.set()
