"""The workers of a service: their numbers, their shared table, and requests between them.

Everything is created before gunicorn forks: a sealed service cannot bind or connect.
"""

from __future__ import annotations

import contextlib
import http.client
import mmap
import signal
import socket
import threading
import time
from collections.abc import Iterable
from typing import Any

from gunicorn.workers.gthread import TConn, ThreadWorker

#: With this header and the value 1, a response describes one worker, not all of them.
ONE_HEADER = "x-optillm-one-worker"
#: Seconds for the answers of all other workers together.
_PATIENCE = 2.0


def take_in(worker: ThreadWorker, connection: socket.socket) -> None:
    """Serve a connection as if it came through the listening socket. Any thread may call this."""

    def accept() -> None:
        # the same as in ThreadWorker.accept
        worker.nr_conns += 1
        worker.enqueue_req(TConn(worker.cfg, connection, ("127.0.0.1", 0), ("127.0.0.1", 0)))

    worker.method_queue.defer(accept)


class Marks:
    """The conversations of upstream calls in flight, in a table that all workers share.

    A row has a fingerprint, and whether it came back to another worker.
    """

    _MARK, _ROW = 16, 32

    def __init__(self, places: int, rows: int) -> None:
        self._table = mmap.mmap(-1, places * rows * self._ROW)
        self._rows = rows
        self._own = range(0)
        self._free: list[int] = []
        self._lock = threading.Lock()

    def begin(self, place: int) -> None:
        """Called in a new worker with this number. Clears the rows of its predecessor."""
        size = self._rows * self._ROW
        self._own = range(place * size, (place + 1) * size)
        self._table[self._own.start : self._own.stop] = bytes(size)
        self._free = list(self._own[:: self._ROW])

    def enter(self, mark: bytes) -> int | None:
        """Write a row and return its offset. None when the table of this worker is full."""
        with self._lock:
            row = self._free.pop() if self._free else None
        if row is not None:
            self._table[row : row + self._MARK + 1] = mark + b"\0"
        return row

    def leave(self, row: int) -> bool:
        """Clear a row after its call.

        Returns whether the conversation came back to another worker.
        """
        came_back = self._table[row + self._MARK] == 1
        self._table[row : row + self._MARK + 1] = bytes(self._MARK + 1)
        with self._lock:
            self._free.append(row)
        return came_back

    def report(self, mark: bytes) -> bool:
        """Whether another worker waits for this conversation. Marks its row as a loop."""
        found, at = False, self._table.find(mark)
        while at >= 0:
            if at % self._ROW == 0 and at not in self._own:
                self._table[at + self._MARK] = 1
                found = True
            at = self._table.find(mark, at + 1)
        return found


class Workers:
    """Created in gunicorn's master. Each worker has a number (`place`) from 0.

    A replacement of a dead worker gets the number of that worker.
    """

    def __init__(self, count: int, threads: int) -> None:
        self.count = count
        self.place = 0
        self.marks = Marks(count, threads) if count > 1 else None
        self._doors = [
            socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET) for _ in range(count)
        ]

    def free_place(self, taken: Iterable[int]) -> int:
        """The lowest free number. Called in the master before it forks."""
        return min(set(range(self.count)) - set(taken))

    def begin(self, place: int) -> None:
        """Called in the worker after the fork."""
        self.place = place
        if self.marks is not None:
            self.marks.begin(place)

    def listen(self, worker: ThreadWorker) -> None:
        """Answer requests of the other workers. Called in a worker when it serves."""
        if self.count > 1:
            threading.Thread(
                target=self._take_in, args=(worker,), name="others", daemon=True
            ).start()

    def _take_in(self, worker: ThreadWorker) -> None:
        signal.pthread_sigmask(
            signal.SIG_BLOCK, {signal.SIGABRT}
        )  # the same as supervision.leave_abort_to_main
        inbox, _ = self._doors[self.place]
        while True:
            _, descriptors, _, _ = socket.recv_fds(inbox, 1, 1)
            for descriptor in descriptors:
                take_in(worker, socket.socket(fileno=descriptor))

    def ask(self, path: str, key: str) -> dict[int, bytes]:
        """The responses of the other workers to GET `path`: number -> body.

        Omits workers that do not answer 200 in time.
        """
        headers = (
            "Host: guard",
            f"Authorization: Bearer {key}",
            f"{ONE_HEADER}: 1",
            "Connection: close",
        )
        question = "\r\n".join((f"GET {path} HTTP/1.1", *headers, "", ""))
        deadline = time.monotonic() + _PATIENCE
        asked: dict[int, socket.socket] = {}
        answers: dict[int, bytes] = {}
        with contextlib.ExitStack() as stack:
            for place in set(range(self.count)) - {self.place}:
                ours, theirs = socket.socketpair()
                stack.enter_context(ours)
                with theirs, contextlib.suppress(OSError):  # a full inbox: that worker hangs
                    ours.sendall(question.encode())
                    socket.send_fds(
                        self._doors[place][1], [b"\0"], [theirs.fileno()], socket.MSG_DONTWAIT
                    )
                    asked[place] = ours
            for place, connection in asked.items():
                with contextlib.suppress(OSError, http.client.HTTPException):
                    connection.settimeout(max(deadline - time.monotonic(), 0.05))
                    response: Any = http.client.HTTPResponse(connection)
                    response.begin()
                    body = response.read()
                    if response.status == 200:
                        answers[place] = body
        return answers
