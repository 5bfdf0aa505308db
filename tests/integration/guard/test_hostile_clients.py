"""Clients that are slow, that never read, or that leave: they cost little, and no one waits."""

from __future__ import annotations

import json
import re
import resource
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import pytest

from optictl.proof.standin import Reply, Seen, completion
from testing.probe import probing
from testing.support import PROXY_KEY, Server, open_directory, wait_until

from .helpers import Pair, events, guarded_pair, port_of, raw, text_of

pytestmark = pytest.mark.slow

CHAT = "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
KEY = f"Authorization: Bearer {PROXY_KEY}\r\n"
HALF_HEAD = b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nX-Slow: "
HALF_BODY = (CHAT + KEY + 'Content-Length: 5000\r\n\r\n{"model": "re2-').encode()
HALF_BODY_WITHOUT_KEY = (CHAT + 'Content-Length: 5000\r\n\r\n{"model": "re2-').encode()
#: As with WatchdogSec=6: the service asks itself every two seconds.
WATCHDOG_SECONDS = 6.0
#: /health at the 99th percentile, in seconds, or a multiple of that of a service without clients.
HEALTH_SECONDS, HEALTH_TIMES = 0.05, 5.0
#: A busy machine spoils a measurement, but not three in a row.
MEASUREMENTS = 3
#: What a crowd of hostile clients may add to the resident memory: MAX_UNREAD_BYTES of the guard,
#: the answers of requests that run, and what connections need. MiB.
MEMORY = 400.0
#: The size of an answer that its client does not read: more than the kernel takes. Bytes.
LARGE = 400_000
LARGE_ANSWER = json.dumps(completion({"model": "jerry-xl"}, "y" * LARGE)).encode()


def chat(text: str = "hello", *, stream: bool = False, model: str = "re2-jerry-xl") -> bytes:
    """A whole request with the right key."""
    body = json.dumps(
        {"model": model, "stream": stream, "messages": [{"role": "user", "content": text}]}
    )
    return f"{CHAT}{KEY}Content-Length: {len(body)}\r\n\r\n{body}".encode()


# the services


@pytest.fixture(scope="module", autouse=True)
def many_descriptors() -> Iterator[None]:
    """This process and the services that it starts may have thousands of connections."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = 8192 if before[1] == resource.RLIM_INFINITY else min(before[1], 8192)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(before[0], most), before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


@dataclass
class Manager:
    """systemd's part: it hears the service's notifications, and notes when they came."""

    listening: socket.socket
    heard: list[float] = field(default_factory=list)

    def listen(self) -> None:
        """Listen until the socket is closed."""
        with suppress(OSError):
            while message := self.listening.recv(4096):
                if b"WATCHDOG=1" in message:
                    self.heard.append(time.monotonic())

    def longest_silence(self, since: float) -> float:
        """The longest time between two messages, up to now. Seconds."""
        times = [since, *(heard for heard in self.heard if heard >= since), time.monotonic()]
        return max(after - before for before, after in pairwise(times))


@contextmanager
def manager() -> Iterator[tuple[Manager, dict[str, str]]]:
    """A manager, and the environment of a service that notifies it."""
    with open_directory() as directory, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as own:
        address = directory / "notify"
        own.bind(str(address))
        address.chmod(0o777)
        listener = Manager(own)
        thread = threading.Thread(target=listener.listen, daemon=True)
        thread.start()
        yield (
            listener,
            {
                "NOTIFY_SOCKET": str(address),
                "WATCHDOG_USEC": str(int(WATCHDOG_SECONDS * 1_000_000)),
            },
        )
        own.shutdown(socket.SHUT_RDWR)
        thread.join(5)


@dataclass
class Attacked:
    """A service that gets hostile clients. `calm`: the port of one that gets none."""

    pair: Pair
    manager: Manager
    calm: int

    @property
    def server(self) -> Server:
        return self.pair.server

    @property
    def port(self) -> int:
        return port_of(self.pair.server)


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


def worker_of(server: Server) -> int:
    """The process that serves, below gunicorn's master."""
    pid = server.process.pid
    return int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])


def memory_of(server: Server) -> float:
    """Resident memory. MiB."""
    status = Path(f"/proc/{worker_of(server)}/status").read_text()
    resident = re.search(r"VmRSS:\s+(\d+) kB", status)
    assert resident
    return int(resident[1]) / 1024


def _sockets_of(server: Server) -> set[str]:
    """The inodes of the worker's open sockets."""
    inodes = set()
    for entry in Path(f"/proc/{worker_of(server)}/fd").iterdir():
        with suppress(OSError):
            inodes.add(str(entry.readlink()).removeprefix("socket:[").removesuffix("]"))
    return inodes


def connections_of(server: Server) -> int:
    """The connections of clients that the worker has open."""
    local, listening = f":{port_of(server):04X}", "0A"
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    open_sockets = _sockets_of(server)
    return sum(
        fields[1].endswith(local) and fields[3] != listening and fields[9] in open_sockets
        for fields in lines
    )


def descriptors_of(server: Server) -> int:
    return len(list(Path(f"/proc/{worker_of(server)}/fd").iterdir()))


def threads_of(server: Server) -> int:
    return len(list(Path(f"/proc/{worker_of(server)}/task").iterdir()))


# the clients


def connect(port: int, data: bytes = b"", *, receive_buffer: int = 0) -> socket.socket:
    """A client that has sent this much. `receive_buffer`: bytes that it takes unread, or 0."""
    client = socket.socket()
    if receive_buffer:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    client.settimeout(20)
    client.connect(("127.0.0.1", port))
    with suppress(BrokenPipeError, ConnectionResetError):  # closed at once: too many connections
        client.sendall(data)
    return client


@contextmanager
def crowd(
    port: int, count: int, data: bytes, *, receive_buffer: int = 0
) -> Iterator[list[socket.socket]]:
    """Clients that have sent this much, and wait."""
    with ExitStack() as stack:
        yield [
            stack.enter_context(connect(port, data, receive_buffer=receive_buffer))
            for _ in range(count)
        ]


def abort(client: socket.socket) -> None:
    """Close with a reset."""
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()


def response_of(client: socket.socket) -> bytes:
    """All that the service sends until it closes the connection."""
    received = b""
    with suppress(ConnectionResetError):
        while chunk := client.recv(65536):
            received += chunk
    return received


def is_closed(client: socket.socket) -> bool:
    """Whether the service has closed the connection. Takes what it has sent."""
    client.setblocking(False)
    try:
        while client.recv(65536):
            pass
    except BlockingIOError:
        return False
    except OSError:
        pass
    return True


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


def large(seen: Seen) -> Reply | None:
    """For StandIn.respond: a large answer to a large question."""
    if seen.method != "POST" or "large" not in json.dumps(seen.body):
        return None
    return Reply(body=LARGE_ANSWER)


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


# limits

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


@pytest.mark.parametrize("data", [HALF_HEAD, HALF_BODY], ids=["head", "body"])
@pytest.mark.parametrize("drips", [False, True], ids=["nothing more", "a byte now and then"])
def test_a_request_must_arrive_in_time(small: Attacked, data: bytes, drips: bool) -> None:
    since = time.monotonic()
    with connect(small.port, data) as client:
        if drips:
            drip(client, b"x" * 300, 0.1)
        response = response_of(client)
    assert response.startswith(b"HTTP/1.1 408 ")
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
        CHUNKED + b"0\r\n" + b"X: x\r\n" * (FAR_TOO_LARGE // 6),
        CHUNKED + b"0\r\nX: " + b"x" * FAR_TOO_LARGE,
        CHUNKED + b"1;x=" + b"x" * FAR_TOO_LARGE,
    ],
    ids=["value", "path", "fields", "trailer fields", "trailer value", "chunk extension"],
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
