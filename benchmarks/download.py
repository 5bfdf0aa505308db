"""Counts what uv downloads: a tunnel on 127.0.0.1 that passes bytes on and adds them up.

uv takes it from HTTPS_PROXY. The traffic stays encrypted end to end; the count includes
the encryption's own overhead (well below 1 %) and the indexes that uv reads.
"""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from benchmarks.lab import variables

_TAKEN = ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy")


class Meter:
    """Bytes received so far. None when the counter cannot be used."""

    def __init__(self) -> None:
        self._lock, self._bytes = threading.Lock(), 0

    def add(self, count: int) -> None:
        with self._lock:
            self._bytes += count

    @property
    def received(self) -> int | None:
        return self._bytes or None


def _pump(source: socket.socket, target: socket.socket, meter: Meter | None) -> None:
    buffer = memoryview(bytearray(1 << 18))
    with suppress(OSError):
        while count := source.recv_into(buffer):
            if meter is not None:
                meter.add(count)
            target.sendall(buffer[:count])
    with suppress(OSError):
        target.shutdown(socket.SHUT_WR)


def _tunnel(client: socket.socket, meter: Meter) -> None:
    with client, suppress(OSError, ValueError):
        head = b""
        while b"\r\n\r\n" not in head:
            if not (more := client.recv(65536)):
                return
            head += more
        method, target, _ = head.split(b" ", 2)
        if method != b"CONNECT":
            client.sendall(b"HTTP/1.1 405 only CONNECT\r\n\r\n")
            return
        host, _, port = target.decode().rpartition(":")
        with socket.create_connection((host.strip("[]"), int(port))) as server:
            client.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
            back = threading.Thread(target=_pump, args=(client, server, None), daemon=True)
            back.start()
            _pump(server, client, meter)
            back.join(5)


def _accept(listener: socket.socket, meter: Meter) -> None:
    with suppress(OSError):  # the listener was closed
        while True:
            client, _ = listener.accept()
            threading.Thread(target=_tunnel, args=(client, meter), daemon=True).start()


@contextmanager
def metered() -> Iterator[Meter]:
    """Count the downloads of programs that start in the block.

    With another proxy, count nothing.
    """
    meter = Meter()
    if any(os.environ.get(name) for name in _TAKEN):
        yield meter
        return
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=_accept, args=(listener, meter), daemon=True).start()
        with variables(HTTPS_PROXY=f"http://127.0.0.1:{listener.getsockname()[1]}"):
            yield meter
