"""What the tests of hostile clients share: a service with a manager, its measures, the clients."""

from __future__ import annotations

import json
import re
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from optictl.proof.standin import Reply, Seen, completion
from testing.support import PROXY_KEY, Server, open_directory

from .helpers import Pair, port_of

CHAT = "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
KEY = f"Authorization: Bearer {PROXY_KEY}\r\n"
HALF_HEAD = b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nX-Slow: "
HALF_BODY = (CHAT + KEY + 'Content-Length: 5000\r\n\r\n{"model": "re2-').encode()
HALF_BODY_WITHOUT_KEY = (CHAT + 'Content-Length: 5000\r\n\r\n{"model": "re2-').encode()
#: As with WatchdogSec=6: the service asks itself every two seconds.
WATCHDOG_SECONDS = 6.0
#: The size of an answer that its client does not read: more than the kernel takes. Bytes.
LARGE = 400_000
LARGE_ANSWER = json.dumps(completion({"model": "jerry-xl"}, "y" * LARGE)).encode()


def chat(text: str = "hello", *, stream: bool = False, model: str = "re2-jerry-xl") -> bytes:
    """A whole request with the right key."""
    body = json.dumps(
        {"model": model, "stream": stream, "messages": [{"role": "user", "content": text}]}
    )
    return f"{CHAT}{KEY}Content-Length: {len(body)}\r\n\r\n{body}".encode()


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


# the process of the service


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


def large(seen: Seen) -> Reply | None:
    """For StandIn.respond: a large answer to a large question."""
    if seen.method != "POST" or "large" not in json.dumps(seen.body):
        return None
    return Reply(body=LARGE_ANSWER)
