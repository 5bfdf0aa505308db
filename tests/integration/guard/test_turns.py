"""N requests run, N more wait in FIFO order, the next are refused; /health is answered."""

from __future__ import annotations

import json
import signal
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from optictl.guard.turns import Full, Turns
from optictl.proof.standin import Reply, Seen
from testing.support import PROXY_KEY, STRATEGIES, wait_until

from .helpers import Pair, assert_refused, guarded_pair, text_of

MOST = 2


class Left(Exception):
    pass


def _stay() -> None:
    pass


class TestTurns:
    """The queue by itself."""

    @pytest.fixture
    def pool(self) -> Iterator[ThreadPoolExecutor]:
        with ThreadPoolExecutor(8) as pool:
            yield pool

    def test_whoever_came_first_is_served_first(self, pool: ThreadPoolExecutor) -> None:
        turns, order = Turns(3), list[int]()

        def have_turn(number: int) -> None:
            with turns.turn(30, _stay):
                order.append(number)

        waiting: list[Future[None]] = []
        with turns.turn(0, _stay), turns.turn(0, _stay):
            with turns.turn(0, _stay):
                for number in range(3):
                    waiting.append(pool.submit(have_turn, number))
                    wait_until(lambda: turns.waiting == len(waiting))
                with pytest.raises(Full), turns.turn(30, _stay):
                    pass
                assert order == []
            # one turn is free: they have it one after the other
            for one in waiting:
                one.result(10)
        assert order == [0, 1, 2]
        assert turns.waiting == 0

    def test_nobody_waits_longer_than_told(self) -> None:
        turns = Turns(1)
        with turns.turn(0, _stay):
            with pytest.raises(Full), turns.turn(0.01, _stay):
                pass
            assert turns.waiting == 0

    def test_who_leaves_gives_up_the_place(self) -> None:
        turns = Turns(1)

        def leave() -> None:
            raise Left

        with turns.turn(0, _stay):
            with pytest.raises(Left), turns.turn(30, leave):
                pass
            assert turns.waiting == 0
        with turns.turn(0, _stay):
            pass

    def test_a_turn_that_fails_is_handed_on(self, pool: ThreadPoolExecutor) -> None:
        turns = Turns(1)

        def have_turn() -> str:
            with turns.turn(30, _stay):
                return "had it"

        def fail() -> None:
            with turns.turn(0, _stay):
                waiting.append(pool.submit(have_turn))
                wait_until(lambda: turns.waiting == 1)
                raise Left

        waiting: list[Future[str]] = []
        with pytest.raises(Left):
            fail()
        assert waiting[0].result(10) == "had it"

    def test_no_turn_is_lost_among_many(self, pool: ThreadPoolExecutor) -> None:
        """Requests that come, leave, fail, are late at any moment: all turns end free."""
        turns, running, most = Turns(3), [0], [0]
        lock = threading.Lock()

        def once(number: int) -> None:
            def leave() -> None:
                if number % 7 == 0:
                    raise Left

            try:
                with turns.turn(0.001 * (number % 5), leave):
                    with lock:
                        running[0] += 1
                        most[0] = max(most[0], running[0])
                    with lock:
                        running[0] -= 1
                    if number % 11 == 0:
                        raise Left
            except (Full, Left):
                pass

        for done in [pool.submit(once, number) for number in range(2000)]:
            done.result(30)
        assert most[0] <= 3
        assert (turns.waiting, turns._taken) == (0, 0)


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
        assert f"optillm_requests_waiting {float(MOST)}" in scraped
        assert 'optillm_refusals_total{code="overloaded"} 1.0' in scraped
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
