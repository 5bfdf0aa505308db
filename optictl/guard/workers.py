"""The workers of one service: their places, what they wait for upstream, and how one asks the others.

All of it is made before gunicorn forks and is inherited: a sealed service may neither bind nor connect.
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

#: A client that sends this with the value 1 is told about the worker that it reached, not about all of them.
ONE_HEADER = "x-optillm-one-worker"
#: Seconds that the others have to answer, all together.
_PATIENCE = 2.0


def take_in(worker: ThreadWorker, connection: socket.socket) -> None:
    """Have a connection served as one that came in through the listening socket. Called from any thread."""

    def accept() -> None:
        # what ThreadWorker.accept does with a connection from its listener
        worker.nr_conns += 1
        worker.enqueue_req(TConn(worker.cfg, connection, ("127.0.0.1", 0), ("127.0.0.1", 0)))

    worker.method_queue.defer(accept)


class Marks:
    """The conversations that each worker waits for upstream: a table that all of them see.

    A row is a fingerprint, and whether it came back to another worker's door.
    """

    _MARK, _ROW = 16, 32

    def __init__(self, places: int, rows: int) -> None:
        self._table = mmap.mmap(-1, places * rows * self._ROW)
        self._rows = rows
        self._own = range(0)
        self._free: list[int] = []
        self._lock = threading.Lock()

    def begin(self, place: int) -> None:
        """Called in the worker that has this place now: what its predecessor waited for is over."""
        size = self._rows * self._ROW
        self._own = range(place * size, (place + 1) * size)
        self._table[self._own.start : self._own.stop] = bytes(size)
        self._free = list(self._own[:: self._ROW])

    def enter(self, mark: bytes) -> int | None:
        """The row that was written, or None: every thread that the service may have is waiting already."""
        with self._lock:
            row = self._free.pop() if self._free else None
        if row is not None:
            self._table[row : row + self._MARK + 1] = mark + b"\0"
        return row

    def leave(self, row: int) -> bool:
        """The call is over. Whether its conversation came back to another worker meanwhile."""
        came_back = self._table[row + self._MARK] == 1
        self._table[row : row + self._MARK + 1] = bytes(self._MARK + 1)
        with self._lock:
            self._free.append(row)
        return came_back

    def report(self, mark: bytes) -> bool:
        """A conversation is at this worker's door: whether another one waits for it, which is told so."""
        found, at = False, self._table.find(mark)
        while at >= 0:
            if at % self._ROW == 0 and at not in self._own:
                self._table[at + self._MARK] = 1
                found = True
            at = self._table.find(mark, at + 1)
        return found


class Workers:
    """Made in gunicorn's master. Each worker has a place, from 0 on; one that is started anew takes the free one."""

    def __init__(self, count: int, threads: int) -> None:
        self.count = count
        self.place = 0
        self.marks = Marks(count, threads) if count > 1 else None
        self._doors = [
            socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET) for _ in range(count)
        ]

    def free_place(self, taken: Iterable[int]) -> int:
        """Called in the master before it forks."""
        return min(set(range(self.count)) - set(taken))

    def begin(self, place: int) -> None:
        """Called in the worker after the fork."""
        self.place = place
        if self.marks is not None:
            self.marks.begin(place)

    def listen(self, worker: ThreadWorker) -> None:
        """Called in the worker when it serves: from now on the others get answers."""
        if self.count > 1:
            threading.Thread(
                target=self._take_in, args=(worker,), name="others", daemon=True
            ).start()

    def _take_in(self, worker: ThreadWorker) -> None:
        signal.pthread_sigmask(
            signal.SIG_BLOCK, {signal.SIGABRT}
        )  # as supervision.leave_abort_to_main
        inbox, _ = self._doors[self.place]
        while True:
            _, descriptors, _, _ = socket.recv_fds(inbox, 1, 1)
            for descriptor in descriptors:
                take_in(worker, socket.socket(fileno=descriptor))

    def ask(self, path: str, key: str) -> dict[int, bytes]:
        """What the other workers answer to GET `path`, by their places; without those that do not answer 200 in time."""
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
                with theirs, contextlib.suppress(OSError):  # its inbox is full: it hangs
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
