"""Clients that are slow, that never read, or that leave: they cost little, and no one waits."""

from __future__ import annotations

import json
import resource
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from pathlib import Path

import pytest

from optictl.proof.standin import Reply, Seen, completion
from testing.probe import probing
from testing.support import wait_until

from .helpers import events, guarded_pair, port_of, text_of
from .hostile import (
    HALF_BODY,
    HALF_BODY_WITHOUT_KEY,
    HALF_HEAD,
    KEY,
    WATCHDOG_SECONDS,
    Attacked,
    abort,
    chat,
    connect,
    connections_of,
    crowd,
    descriptors_of,
    large,
    manager,
    memory_of,
    threads_of,
)

pytestmark = pytest.mark.slow

#: /health at the 99th percentile, in seconds, or a multiple of that of a service without clients.
HEALTH_SECONDS, HEALTH_TIMES = 0.05, 5.0
#: A busy machine spoils a measurement, but not three in a row.
MEASUREMENTS = 3
#: What a crowd of hostile clients may add to the resident memory: MAX_UNREAD_BYTES of the guard,
#: the answers of requests that run, and what connections need. MiB.
MEMORY = 400.0


@pytest.fixture(scope="module", autouse=True)
def many_descriptors() -> Iterator[None]:
    """This process and the services that it starts may have thousands of connections."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = 8192 if before[1] == resource.RLIM_INFINITY else min(before[1], 8192)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(before[0], most), before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.fixture(scope="module")
def running(release: Path) -> Iterator[Attacked]:
    with ExitStack() as stack:
        listener, environment = stack.enter_context(manager())
        pair = stack.enter_context(
            guarded_pair(release, strategies=["re2"], environment=environment)
        )
        calm = stack.enter_context(guarded_pair(release, strategies=["re2"]))
        for each in (pair, calm):
            assert text_of(each.server.ask("re2-jerry-xl"))
        wait_until(lambda: listener.heard, 30, "the watchdog's question")
        descriptors = descriptors_of(pair.server)
        yield Attacked(pair, listener, port_of(calm.server))

        def is_calm() -> bool:
            # a request lets the client of the upstream close connections that it does not need
            assert text_of(pair.fresh().server.ask("re2-jerry-xl"))
            return descriptors_of(pair.server) <= descriptors

        wait_until(is_calm, 30, "the descriptors to be closed", pause=0.5)


@pytest.fixture
def service(running: Attacked) -> Iterator[Attacked]:
    running.pair.fresh()
    yield running
    assert "Traceback" not in running.server.journal()
    assert not [line for line in events(running.server) if line["event"] in ("defect", "crashed")]


def withstands(service: Attacked, attack: AbstractContextManager[object], seconds: float) -> None:
    """The service serves while clients are there, and forgets them afterwards.

    `seconds`: how long one measurement takes.
    """
    memory, began = memory_of(service.server), time.monotonic()
    with attack:
        assert text_of(service.server.ask("re2-jerry-xl"))
        for measurement in range(1, MEASUREMENTS + 1):
            with probing([service.port, service.calm]) as probe:
                until = time.monotonic() + seconds
                while time.monotonic() < until:
                    assert text_of(service.server.ask("re2-jerry-xl"))
                    time.sleep(0.1)
            health, calm = probe.p99(service.port), probe.p99(service.calm)
            if health <= max(HEALTH_SECONDS, HEALTH_TIMES * calm):
                break
            said = f"/health p99 {health:.3f} s, beside it {calm:.3f} s"
            assert measurement < MEASUREMENTS, said
        assert memory_of(service.server) - memory < MEMORY
    assert service.manager.longest_silence(began) < WATCHDOG_SECONDS
    wait_until(lambda: connections_of(service.server) == 0, 30, "the connections to end")


# many clients at once


def test_half_heads(service: Attacked) -> None:
    withstands(service, crowd(service.port, 2000, HALF_HEAD), 1.5)


@pytest.mark.parametrize("data", [HALF_BODY, HALF_BODY_WITHOUT_KEY], ids=["key", "no key"])
def test_half_bodies(service: Attacked, data: bytes) -> None:
    withstands(service, crowd(service.port, 500, data), 1.5)


@contextmanager
def readers_of_nothing(port: int) -> Iterator[None]:
    """200 clients, no more at a time than the service runs and lets wait."""
    with ExitStack() as stack:
        for _ in range(4):
            clients = stack.enter_context(crowd(port, 50, chat("large"), receive_buffer=4096))
            for client in clients:
                with suppress(ConnectionResetError):  # too many bytes wait for clients
                    assert client.recv(1) == b"H"
        yield


def test_answers_that_are_not_read(service: Attacked) -> None:
    service.pair.upstream.respond = large
    withstands(service, readers_of_nothing(service.port), 1.5)


@contextmanager
def pipeliners(port: int, data: bytes) -> Iterator[None]:
    """Clients that send requests without end and read nothing."""
    with ExitStack() as stack:
        for _ in range(20):
            client = stack.enter_context(connect(port, receive_buffer=4096))
            client.settimeout(0.1)
            with suppress(OSError):
                client.sendall(data)
        yield


@pytest.mark.parametrize("head", [b"", KEY.encode()], ids=["no key", "key"])
def test_requests_that_do_not_wait_for_answers(service: Attacked, head: bytes) -> None:
    request = b"GET /health HTTP/1.1\r\n" + head + b"\r\n"
    withstands(service, pipeliners(service.port, request * 20_000), 1.5)


# clients that leave

STAGES = {
    "connect": (b"", 0.0),
    "half head": (HALF_HEAD, 0.02),
    "half body": (HALF_BODY, 0.02),
    "half body, no key": (HALF_BODY_WITHOUT_KEY, 0.02),
    "before the answer": (chat("slow"), 0.2),
    "in the middle of the answer": (chat("large"), 0.0),
    "in the middle of a stream": (chat("large", stream=True), 0.0),
}


@pytest.mark.parametrize("leave", [socket.socket.close, abort], ids=["close", "reset"])
@pytest.mark.parametrize("stage", STAGES)
def test_clients_that_leave(
    service: Attacked, stage: str, leave: Callable[[socket.socket], None]
) -> None:
    data, pause = STAGES[stage]
    server = service.server

    def respond(seen: Seen) -> Reply | None:
        if "slow" in json.dumps(seen.body):
            return Reply(body=completion(seen.body or {}), delay=0.5)
        return large(seen)

    service.pair.upstream.respond = respond
    memory = memory_of(server)
    clients = [connect(service.port, data, receive_buffer=4096) for _ in range(50)]
    if stage.startswith("in the middle"):
        for client in clients:
            assert b" 200 " in client.recv(1000)
    time.sleep(pause)
    for client in clients:
        leave(client)

    wait_until(lambda: connections_of(server) == 0, 30, "the connections to end")
    wait_until(lambda: not server.get("/guard/state").json()["in_flight"], 30, "the requests")
    assert text_of(server.ask("re2-jerry-xl"))
    assert memory_of(server) - memory < MEMORY


def test_threads_of_clients_that_left_end(service: Attacked) -> None:
    def respond(seen: Seen) -> Reply | None:
        return Reply(body=completion(seen.body or {}), delay=1) if seen.body else None

    before = threads_of(service.server)
    service.pair.upstream.respond = respond
    for _ in range(3):
        for client in [connect(service.port, chat()) for _ in range(50)]:
            client.close()
    service.pair.upstream.respond = None
    wait_until(lambda: not service.server.get("/guard/state").json()["in_flight"], 30, "the end")
    assert text_of(service.server.ask("re2-jerry-xl"))
    wait_until(lambda: threads_of(service.server) <= before, 60, "the threads to end")
