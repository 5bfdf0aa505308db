"""Whatever ends a request early: no further call starts, and open ones are closed."""

from __future__ import annotations

import json
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Any

import pytest

from optictl.proof.standin import completion
from testing.support import Server, guarded, wait_until

from . import slow
from .helpers import events, send
from .slow import Failure, SlowModel

pytestmark = pytest.mark.slow

#: Seconds of a call: longer than any test waits.
LONG = 20.0
STRATEGIES = ("moa", "bon", "plansearch", "self_consistency", "re2", "majority_voting", "rstar")


def served(
    release: Path, *extra: str, seconds: float = LONG, **options: Any
) -> AbstractContextManager[tuple[Server, SlowModel]]:
    return slow.served(release, STRATEGIES, extra, SlowModel(seconds, **options))


@pytest.fixture(scope="module")
def one(release: Path) -> Iterator[tuple[Server, SlowModel]]:
    with served(release, "--max-in-flight", "8") as pair:
        yield pair


def in_flight(server: Server) -> int:
    return len(server.get("/guard/state").json()["in_flight"])


def assert_closed(model: SlowModel, since: float, calls: int) -> None:
    """Every open call is closed within a second, and none starts afterwards."""
    wait_until(lambda: not model.open_calls, 2, "the calls to be closed", pause=0.01)
    assert all(call.left - since < 1 for call in model.calls)
    time.sleep(0.5)
    assert len(model.calls) == calls


@pytest.mark.parametrize("is_streamed", [False, True])
@pytest.mark.parametrize(
    ("strategy", "calls"),
    [("moa", 1), ("plansearch", 1), ("self_consistency", 5), ("re2", 1), ("majority_voting", 1)],
)
def test_a_client_that_leaves_ends_its_request(
    strategy: str, calls: int, is_streamed: bool, one: tuple[Server, SlowModel]
) -> None:
    server, model = one
    model.calls.clear()
    connection = send(server, f"{strategy}-jerry-xl", stream=is_streamed)
    wait_until(lambda: len(model.calls) == calls, 5, "the calls", pause=0.01)
    time.sleep(0.3)
    before, since = len(events(server)), time.monotonic()
    connection.close()
    assert_closed(model, since, calls)
    assert in_flight(server) == 0
    lines = [line for line in events(server)[before:] if line.get("event") == "request"]
    assert [(line["status"], line["code"]) for line in lines] == [(499, "client_gone")]
    metrics = server.get("/metrics").text
    assert 'code="client_gone"' in metrics


def test_a_client_that_leaves_the_queue_makes_no_call(release: Path) -> None:
    with served(release, "--max-in-flight", "1") as (server, model):
        first = send(server, "re2-jerry-xl")
        wait_until(lambda: model.open_calls == 1, 5, "the first call")
        second = send(server, "re2-jerry-xl")
        wait_until(lambda: server.get("/guard/state").json()["waiting"] == 1, 5, "the queue")
        second.close()
        wait_until(lambda: server.get("/guard/state").json()["waiting"] == 0, 2, "an empty queue")
        first.close()
        assert_closed(model, time.monotonic(), 1)
        assert any(line.get("code") == "client_gone" for line in events(server))


def test_the_same_client_may_try_again(one: tuple[Server, SlowModel]) -> None:
    """A retry with the question of a request that has just ended is no loop."""
    server, model = one
    model.calls.clear()
    for count in range(1, 12):
        connection = send(server, "re2-jerry-xl")
        wait_until(lambda count=count: len(model.calls) == count, 5, "the call", pause=0.01)
        connection.close()
    wait_until(lambda: not model.open_calls, 2, "the calls to be closed")
    assert not [line for line in events(server) if line["event"].startswith("loop")]


@pytest.mark.parametrize("strategy", ["moa", "self_consistency", "majority_voting"])
def test_the_deadline_closes_the_calls(strategy: str, release: Path) -> None:
    with served(release, "--request-timeout", "1") as (server, model):
        since = time.monotonic()
        response = server.ask(f"{strategy}-jerry-xl")
        assert (response.status_code, response.json()["error"]["code"]) == (504, "request_timeout")
        assert_closed(model, since + 1, len(model.calls))


def test_the_end_of_a_drain_closes_the_calls(release: Path) -> None:
    with served(release, "--drain-timeout", "1") as (server, model):
        connection = send(server, "self_consistency-jerry-xl")
        wait_until(lambda: model.open_calls == 5, 5, "the calls")
        since = time.monotonic()
        server.process.send_signal(signal.SIGTERM)
        assert b"503" in connection.recv(4096)
        assert_closed(model, since + 1, 5)
        connection.close()


def test_the_call_limit_closes_the_others(release: Path) -> None:
    with served(release, "--max-upstream-calls", "3", seconds=3.0) as (server, model):
        since = time.monotonic()
        response = server.ask("rstar-jerry-xl")  # the door does not know its calls
        assert response.json()["error"]["code"] == "upstream_call_limit"
        assert time.monotonic() - since < 2
        assert len(model.calls) <= 3
        assert_closed(model, since + 1, len(model.calls))


def test_a_call_that_fails_closes_those_beside_it(release: Path) -> None:
    """OptiLLM ends with the first error: what else is on its way is closed."""
    started = threading.Event()

    def answer(_body: dict[str, Any], number: int) -> str | Failure:
        if number == 0:
            started.wait(0.5)
            return Failure(500, {"error": {"message": "fell over", "code": "500"}})
        return "a text"

    with served(release, seconds=5.0, answer=answer) as (server, model):
        since = time.monotonic()
        response = server.ask("self_consistency-jerry-xl")
        assert response.status_code == 502
        assert time.monotonic() - since < 2
        assert_closed(model, since + 1, len(model.calls))


def test_retries_end_with_the_request(release: Path) -> None:
    """A pause before a retry is no reason to stay."""
    failure = Failure(503, {"error": {"message": "busy", "code": "503"}})
    arguments = ("--max-retries", "5")
    with served(release, *arguments, answer=lambda _b, _n: failure) as (server, model):
        connection = send(server, "re2-jerry-xl")
        wait_until(lambda: len(model.calls) >= 2, 5, "a retry", pause=0.01)
        connection.close()
        wait_until(lambda: in_flight(server) == 0, 1, "the end")
        made = len(model.calls)
        time.sleep(2.5)
        assert len(model.calls) == made


def test_no_thread_works_on(release: Path) -> None:
    with served(release) as (server, model):
        children = Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children")
        worker = Path(f"/proc/{children.read_text().split()[0]}/task")
        before = len(list(worker.iterdir()))
        for _ in range(3):
            connections = [send(server, "self_consistency-jerry-xl") for _ in range(20)]
            wait_until(lambda: model.open_calls == 100, 10, "the calls")
            for connection in connections:
                connection.close()
            wait_until(lambda: not model.open_calls, 3, "the calls to be closed")
        wait_until(lambda: len(list(worker.iterdir())) <= before + 8, 5, "the threads to end")


def test_a_connection_that_the_model_closed_is_replaced(release: Path) -> None:
    """A server may close a kept-alive connection in the moment in which it is used again."""
    requests: list[bytes] = []

    def serve(connection: socket.socket) -> None:
        with connection, suppress(OSError):
            for _ in range(2):
                received = b""
                while not received.endswith(b"}"):
                    received += connection.recv(65536)
                requests.append(received)
                if len(requests) % 2 == 0:
                    return  # as if it had been closed before the request came
                answer = json.dumps(completion({"messages": []}, "a text")).encode()
                head = f"HTTP/1.1 200 OK\r\ncontent-length: {len(answer)}\r\n\r\n"
                connection.sendall(head.encode() + answer)

    def accept(listening: socket.socket) -> None:
        with suppress(OSError):
            while True:
                threading.Thread(target=serve, args=listening.accept()[:1], daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listening:
        threading.Thread(target=accept, args=(listening,), daemon=True).start()
        url = f"http://127.0.0.1:{listening.getsockname()[1]}/v1"
        with guarded(release, url, strategies=STRATEGIES) as server:
            response = server.ask("plansearch-jerry-xl")
            assert response.status_code == 200, response.text
            assert response.headers["x-optillm-upstream-calls"] == "4"
            assert response.headers["x-optillm-upstream-failures"] == "0"
        listening.shutdown(socket.SHUT_RDWR)
    assert len(requests) > 4
