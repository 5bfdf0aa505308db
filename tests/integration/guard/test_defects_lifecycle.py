"""Connections, load, stops and crashes: bare OptiLLM drops answers, the guarded one does not."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from optictl.proof.standin import Reply, Seen, StandIn, completion
from testing.support import Server, guard_arguments, run_guard, wait_until

from .helpers import (
    CALLS,
    Pair,
    asks_for,
    assert_refused,
    assert_silent,
    bare_pair,
    events,
    guarded_pair,
    port_of,
    text_of,
)

pytestmark = pytest.mark.slow

REQUESTS = 6


def connections_of(upstream: StandIn) -> list[Any]:
    """Grows by one with every connection that the stand-in accepts."""
    accepted: list[Any] = []
    accept = upstream._server.get_request

    def counting() -> Any:
        connection, address = accept()
        accepted.append(address)
        return connection, address

    upstream._server.get_request = counting  # type: ignore[method-assign]
    return accepted


def slow(seconds: float) -> Any:
    def respond(seen: Seen) -> Reply | None:
        return Reply(body=completion(seen.body), delay=seconds) if seen.body else None

    return respond


@contextmanager
def in_flight(pair: Pair, model: str = "moa-jerry-xl") -> Iterator[Future[httpx.Response]]:
    """A request that waits for its upstream when the block begins."""
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(pair.server.ask, model)
        wait_until(pair.upstream.calls, what="the first upstream call")
        yield answer


def is_open(server: Server) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port_of(server)), timeout=1).close()
    except OSError:
        return False
    return True


def test_bare_connects_anew_for_every_request(release: Path) -> None:
    with bare_pair(release) as pair:
        accepted = connections_of(pair.upstream)
        for _ in range(REQUESTS):
            assert text_of(pair.server.ask("moa-jerry-xl"))
        assert len(accepted) >= REQUESTS


def test_guarded_keeps_its_connection(release: Path) -> None:
    with guarded_pair(release) as pair:
        accepted = connections_of(pair.upstream)
        for _ in range(REQUESTS):
            assert text_of(pair.server.ask("moa-jerry-xl"))
            assert pair.server.get("/v1/models").status_code == 200
        assert len(accepted) == 1


def test_bare_drops_what_is_in_flight_when_it_is_stopped(release: Path) -> None:
    with bare_pair(release) as pair:
        pair.upstream.respond = slow(1)
        with in_flight(pair) as answer:
            pair.server.process.terminate()
            with pytest.raises(httpx.TransportError):
                answer.result()
        assert pair.server.process.wait(5) == -signal.SIGTERM


def test_guarded_finishes_what_is_in_flight_when_it_is_stopped(release: Path) -> None:
    with (
        guarded_pair(release, extra=["--drain-timeout", "30"]) as pair,
        ThreadPoolExecutor(2) as pool,
    ):
        pair.upstream.respond = slow(1.2)
        answer = pool.submit(pair.server.ask, "moa-jerry-xl")
        stream = pool.submit(pair.server.ask, "moa-jerry-xl", stream=True)
        wait_until(lambda: len(pair.upstream.calls()) == 2, what="both requests")
        pair.server.process.terminate()
        # a client that comes now is refused at once: it does not wait for a reset after the drain
        wait_until(lambda: not is_open(pair.server), 5, "the socket to close")
        assert not answer.done()
        assert not stream.done()
        assert pair.server.process.poll() is None
        assert text_of(answer.result())
        assert stream.result().text.endswith("data: [DONE]\n\n")
        assert len(pair.upstream.calls()) == 2 * CALLS["moa"]
        assert pair.server.process.wait(5) == 0
        assert_silent(pair.server)


def test_draining_ends_when_its_time_is_up(release: Path) -> None:
    with guarded_pair(release, extra=["--drain-timeout", "1.5"]) as pair:
        pair.upstream.respond = slow(20)
        with in_flight(pair) as answer:
            begun = time.monotonic()
            pair.server.process.terminate()
            # told to come back, not reset
            response = answer.result()
            assert_refused(response, 503, "draining")
            assert int(response.headers["retry-after"]) > 0
            assert 1.4 < time.monotonic() - begun < 5
            pair.server.process.wait(10)
            assert time.monotonic() - begun < 8
        assert_silent(pair.server)


def test_an_idle_connection_does_not_hold_up_a_stop(release: Path) -> None:
    with guarded_pair(release, extra=["--drain-timeout", "30"]) as pair, httpx.Client() as client:
        # kept open by the client, as LiteLLM keeps its own
        headers = {"Authorization": f"Bearer {pair.server.key}"}
        assert client.get(f"{pair.server.url}/models", headers=headers).status_code == 200
        begun = time.monotonic()
        pair.server.process.terminate()
        assert pair.server.process.wait(10) == 0
        assert time.monotonic() - begun < 5


def test_clients_that_do_not_close_keep_nobody_waiting(release: Path) -> None:
    """gunicorn's own close would take two seconds for each of them, one after the other."""
    with guarded_pair(release) as pair, ExitStack() as clients:
        begun = time.monotonic()
        for _ in range(8):
            client = clients.enter_context(
                socket.create_connection(("127.0.0.1", port_of(pair.server)), timeout=10)
            )
            client.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            assert b" 200 " in client.recv(4096)
        assert pair.server.get("/health").status_code == 200
        assert time.monotonic() - begun < 10
        pair.server.process.terminate()
        assert pair.server.process.wait(10) == 0
        assert_silent(pair.server)


def test_a_busy_port_is_an_error(release: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        arguments = guard_arguments("http://127.0.0.1:4000/v1", port, approach="auto")
        code, output = run_guard(release, arguments=arguments)
    assert code == 1
    assert str(port) in output
    assert "Traceback" not in output


def test_a_worker_that_dies_is_replaced(release: Path) -> None:
    with guarded_pair(release) as pair:
        master = pair.server.process.pid
        (worker,) = Path(f"/proc/{master}/task/{master}/children").read_text().split()
        os.kill(int(worker), signal.SIGKILL)
        wait_until(
            lambda: sum(event["event"] == "serving" for event in events(pair.server)) == 2,
            30,
            "a second worker",
        )
        assert text_of(pair.server.ask("moa-jerry-xl"))


def test_requests_at_the_same_time_are_counted_apart(release: Path) -> None:
    plan = [
        (strategy, f"question {number} for {strategy}.")
        for number in range(8)
        for strategy in CALLS
    ]

    def respond(seen: Seen) -> Reply | None:
        # one word of every question makes its calls fail, and only its own
        if asks_for(seen, "question 3 for"):
            return Reply(500, {"error": {"message": "not this one"}})
        return Reply(body=completion(seen.body or {}), delay=0.05)

    with guarded_pair(release) as pair, ThreadPoolExecutor(len(plan)) as pool:
        pair.upstream.respond = respond
        answers = list(pool.map(lambda one: pair.server.ask(f"{one[0]}-jerry-xl", one[1]), plan))
        for (strategy, question), response in zip(plan, answers, strict=True):
            failing = "question 3 for" in question
            assert response.status_code == (502 if failing else 200), response.text
            assert response.headers["x-optillm-strategy"] == strategy
            assert (response.headers["x-optillm-upstream-failures"] == "0") is not failing
            if not failing:
                assert response.headers["x-optillm-upstream-calls"] == str(CALLS[strategy])
        assert len({response.headers["x-optillm-trace"] for response in answers}) == len(plan)
        assert_silent(pair.server)
