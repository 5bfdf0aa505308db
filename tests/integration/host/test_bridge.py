"""The bridge hands connections on, both ways, and lets those that are open end."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import closing

import pytest

from optictl.guard import bridge


@pytest.fixture
def behind() -> Iterator[socket.socket]:
    """What the bridge leads to."""
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        server.settimeout(10)
        yield server


class Bridge:
    def __init__(self, behind: socket.socket, seconds: float) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.listener.setblocking(False)
        self.address = self.listener.getsockname()
        self.ended = threading.Event()
        port = behind.getsockname()[1]
        arguments = (self.listener, port, seconds, self.ended)
        self.thread = threading.Thread(target=bridge.serve, args=arguments)
        self.thread.start()

    def end(self) -> None:
        self.ended.set()
        self.thread.join(10)
        assert not self.thread.is_alive()


def test_bytes_go_both_ways_and_ends_are_told(behind: socket.socket) -> None:
    through = Bridge(behind, 5)
    with socket.create_connection(through.address, timeout=10) as client:
        far, _ = behind.accept()
        with far:
            client.sendall(b"GET / HTTP/1.1\r\n\r\n")
            assert far.recv(100).startswith(b"GET")
            client.shutdown(socket.SHUT_WR)
            assert far.recv(100) == b""
            # half closed: the answer still comes
            far.sendall(b"x" * 200_000)
        received = 0
        while data := client.recv(65536):
            received += len(data)
        assert received == 200_000
    through.end()


def test_an_open_connection_ends_by_itself_and_no_new_one_is_taken(behind: socket.socket) -> None:
    through = Bridge(behind, 30)
    with socket.create_connection(through.address, timeout=10) as client:
        far, _ = behind.accept()
        through.ended.set()
        far.sendall(b"late")
        assert client.recv(10) == b"late"
        far.close()
        assert client.recv(10) == b""
    through.end()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(through.address, timeout=2)


def test_an_idle_connection_is_cut_after_its_time(behind: socket.socket) -> None:
    through = Bridge(behind, 0.2)
    with socket.create_connection(through.address, timeout=10):
        far, _ = behind.accept()
        with far:
            through.end()
