"""Limits of a connection in time, size and number: a slow client gets 4xx, or is closed."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from optictl.proof.standin import Reply, completion
from testing.support import wait_until

from .helpers import events, guarded_pair, raw
from .hostile import (
    CHAT,
    HALF_BODY,
    HALF_BODY_WITHOUT_KEY,
    HALF_HEAD,
    KEY,
    LARGE,
    Attacked,
    chat,
    connect,
    connections_of,
    crowd,
    is_closed,
    large,
    manager,
    response_of,
)

pytestmark = pytest.mark.slow

MOST = 100
LIMITS = ["--head-timeout", "3", "--body-timeout", "3", "--read-timeout", "3"]
LIMITS += ["--max-connections", str(MOST)]


@pytest.fixture(scope="module")
def limited(release: Path) -> Iterator[Attacked]:
    with ExitStack() as stack:
        listener, environment = stack.enter_context(manager())
        pair = stack.enter_context(
            guarded_pair(release, strategies=["re2"], environment=environment, extra=LIMITS)
        )
        yield Attacked(pair, listener, 0)


@pytest.fixture
def small(limited: Attacked) -> Attacked:
    limited.pair.fresh()
    # connections of an earlier test count
    wait_until(lambda: connections_of(limited.server) == 0, 30, "the connections to end")
    return limited


def closed_events(service: Attacked) -> dict[str, int]:
    """Why the service closed connections, by its log."""
    counts: dict[str, int] = {}
    for line in events(service.server):
        if line["event"] == "connections_closed":
            for reason, count in line.items():
                if reason != "event":
                    counts[reason] = counts.get(reason, 0) + count
    return counts


def drip(client: socket.socket, data: bytes, pause: float) -> None:
    """Send a byte at a time until the service closes the connection."""

    def send() -> None:
        with suppress(OSError):
            for number in range(len(data)):
                client.sendall(data[number : number + 1])
                time.sleep(pause)

    threading.Thread(target=send, daemon=True).start()


@pytest.mark.parametrize(
    ("data", "status"), [(HALF_HEAD, 408), (HALF_BODY, 400)], ids=["head", "body"]
)
@pytest.mark.parametrize("drips", [False, True], ids=["nothing more", "a byte now and then"])
def test_a_request_must_arrive_in_time(
    small: Attacked, data: bytes, status: int, drips: bool
) -> None:
    since = time.monotonic()
    with connect(small.port, data) as client:
        if drips:
            drip(client, b"x" * 300, 0.1)
        response = response_of(client)
    assert response.startswith(b"HTTP/1.1 %d " % status)
    assert b'"code": "read_timeout"' in response
    assert 2.9 < time.monotonic() - since < 15


def test_the_limit_holds_for_each_request_of_a_connection(small: Attacked) -> None:
    health = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"
    with connect(small.port) as client:
        for _ in range(2):
            client.sendall(health)
            received = b""
            while b'"ok"}' not in received:
                received += client.recv(4096)
            time.sleep(3.5)  # an idle connection may wait
        client.sendall(HALF_HEAD)
        assert response_of(client).startswith(b"HTTP/1.1 408 ")


def test_a_client_that_sends_nothing_is_closed_without_a_word(small: Attacked) -> None:
    since = time.monotonic()
    with connect(small.port) as client:
        assert response_of(client) == b""
    assert 2.9 < time.monotonic() - since < 15


def test_half_a_body_without_a_key_is_refused_at_once(small: Attacked) -> None:
    with connect(small.port, HALF_BODY_WITHOUT_KEY) as client:
        assert client.recv(4096).startswith(b"HTTP/1.1 401 ")
        response_of(client)  # it is closed


TOO_LARGE = 65 * 1024
#: What follows a head in the same packet is not counted.
FAR_TOO_LARGE = 1_000_000
CHUNKED = (CHAT + KEY + "Transfer-Encoding: chunked\r\n\r\n").encode()


@pytest.mark.parametrize(
    "data",
    [
        b"GET /health HTTP/1.1\r\nX: " + b"x" * TOO_LARGE,
        b"GET /" + b"x" * TOO_LARGE,
        b"GET /health HTTP/1.1\r\n" + b"X: x\r\n" * (TOO_LARGE // 6),
        # whole ones, which may arrive at once
        b"GET /health HTTP/1.1\r\nX: " + b"x" * TOO_LARGE + b"\r\n\r\n",
        b"GET /" + b"x" * TOO_LARGE + b" HTTP/1.1\r\n\r\n",
        b"GET /health HTTP/1.1\r\n" + b"X: x\r\n" * (TOO_LARGE // 6) + b"\r\n",
        CHUNKED + b"0\r\n" + b"X: x\r\n" * (FAR_TOO_LARGE // 6),
        CHUNKED + b"0\r\nX: " + b"x" * FAR_TOO_LARGE,
        CHUNKED + b"1;x=" + b"x" * FAR_TOO_LARGE,
    ],
    ids=[
        *("value", "path", "fields", "whole value", "whole path", "whole fields"),
        *("trailer fields", "trailer value", "chunk extension"),
    ],
)
def test_a_head_has_a_size(small: Attacked, data: bytes) -> None:
    def refusals() -> int:
        return sum(line.get("code") == "head_too_large" for line in events(small.server))

    before = refusals()
    with connect(small.port, data) as client:
        response = response_of(client)
    # the response is lost when the client sends on: the kernel resets the connection
    assert response.startswith(b"HTTP/1.1 431 ") or (not response and len(data) > FAR_TOO_LARGE)
    wait_until(lambda: refusals() == before + 1, 30, "the log")


def test_a_head_up_to_the_limit_passes(small: Attacked) -> None:
    value = b"x" * (60 * 1024)
    head = b"GET /health HTTP/1.1\r\nConnection: close\r\nX: " + value + b"\r\n\r\n"
    assert raw(small.server, head).startswith(b"HTTP/1.1 200 ")


def test_an_answer_must_be_read(small: Attacked) -> None:
    small.pair.upstream.respond = large
    before = closed_events(small).get("answer_unread", 0)
    with crowd(small.port, 3, chat("large"), receive_buffer=4096):
        wait_until(
            lambda: closed_events(small).get("answer_unread", 0) == before + 3, 20, "the log"
        )
        wait_until(lambda: connections_of(small.server) == 0, 30, "the connections to end")


def test_an_answer_may_be_read_slowly(small: Attacked) -> None:
    small.pair.upstream.respond = large
    with connect(small.port, chat("large"), receive_buffer=4096) as client:
        received = b""
        while b"]" not in received[-3000:] and b'"usage"' not in received[-3000:]:
            chunk = client.recv(LARGE // 6)
            assert chunk
            received += chunk
            if len(received) % 7 == 0:
                time.sleep(0.01)
    assert len(received) > LARGE


def test_the_connection_that_waits_longest_makes_room(small: Attacked) -> None:
    small.pair.upstream.respond = lambda seen: (
        Reply(body=completion(seen.body or {}), delay=0.8) if seen.body else None
    )
    before = closed_events(small).get("too_many_connections", 0)
    with connect(small.port, chat()) as working, crowd(small.port, MOST - 1, HALF_HEAD) as clients:
        wait_until(lambda: connections_of(small.server) >= MOST, 30, "the connections")
        with crowd(small.port, 3, HALF_HEAD):
            wait_until(lambda: all(map(is_closed, clients[:3])), 30, "the oldest to be closed")
            assert not any(map(is_closed, clients[10:]))
        # a request that runs is not closed, and a new one is served
        assert b" 200 " in working.recv(4096)
        assert small.server.get("/health").status_code == 200
    wait_until(
        lambda: closed_events(small).get("too_many_connections", 0) >= before + 3, 10, "the log"
    )


@pytest.mark.parametrize(
    "data", [HALF_HEAD, HALF_BODY, HALF_BODY_WITHOUT_KEY], ids=["head", "body", "body, no key"]
)
def test_full_of_hostile_clients_it_still_serves(small: Attacked, data: bytes) -> None:
    since = time.monotonic()
    with crowd(small.port, 2 * MOST, data):
        assert all(served_in_spite(small) for _ in range(10))
        wait_until(lambda: small.manager.heard[-1] > since, 30, "the watchdog")


def served_in_spite(service: Attacked) -> bool:
    """Whether /health answers on a new connection."""
    with connect(service.port, b"GET /health HTTP/1.1\r\nConnection: close\r\n\r\n") as client:
        return b" 200 " in response_of(client)


def test_the_watchdog_needs_no_free_place(small: Attacked) -> None:
    small.pair.upstream.respond = lambda seen: (
        Reply(body=completion(seen.body or {}), delay=8) if seen.body else None
    )
    with crowd(small.port, MOST, chat()) as clients:
        calls = small.pair.upstream.calls
        wait_until(lambda: len(calls()) >= 64, 30, "the requests")
        since = time.monotonic()
        wait_until(lambda: small.manager.heard[-1] > since, 6, "the watchdog")
        for client in clients:
            assert b" 200 " in client.recv(4096)
