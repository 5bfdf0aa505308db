"""The workers of a service: their numbers, requests between them, and reports of loops.

Everything is created before gunicorn forks: a sealed service cannot bind or connect.
"""

from __future__ import annotations

import contextlib
import http.client
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

#: With this header and the value 1, a response describes one worker, not all of them.
ONE_HEADER = "x-optillm-one-worker"
#: Seconds for the answers of all other workers together.
_PATIENCE = 2.0
_MAX_REPORT = 256


class Workers:
    """Created in gunicorn's master. Each worker has a number (`place`) from 0.

    A replacement of a dead worker gets the number of that worker.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self.place = 0
        self._inboxes = [
            socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET) for _ in range(count)
        ]

    def free_place(self, taken: Iterable[int]) -> int:
        """The lowest free number. Called in the master before it forks."""
        return min(set(range(self.count)) - set(taken))

    def begin(self, place: int) -> None:
        """Called in the worker after the fork."""
        self.place = place

    def listen(
        self, serve: Callable[[socket.socket], None], report: Callable[[str, str], None]
    ) -> None:
        """Take requests and reports of the other workers. Called in a worker when it serves.

        Args:
            serve: serves a connection as if it came through the listening socket.
            report: gets a report. Both are called in a thread.
        """
        if self.count > 1:
            threading.Thread(
                target=self._take_in, args=(serve, report), name="others", daemon=True
            ).start()

    def _take_in(
        self, serve: Callable[[socket.socket], None], report: Callable[[str, str], None]
    ) -> None:
        # the same as watchdog.leave_abort_to_main
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGABRT})
        inbox, _ = self._inboxes[self.place]
        while True:
            message, descriptors, _, _ = socket.recv_fds(inbox, _MAX_REPORT, 1)
            for descriptor in descriptors:
                serve(socket.socket(fileno=descriptor))
            kind, _, value = message.decode("utf-8", "replace").partition(" ")
            if value:
                report(kind, value)

    def tell(self, kind: str, value: str) -> None:
        """Send a report to all other workers. A worker that hangs may lose it."""
        message = f"{kind} {value}".encode()[:_MAX_REPORT]
        for place in set(range(self.count)) - {self.place}:
            with contextlib.suppress(OSError):
                self._inboxes[place][1].send(message, socket.MSG_DONTWAIT)

    def ask(self, path: str, key: str) -> dict[int, bytes]:
        """The responses of the other workers to GET `path`: number -> body. Blocks.

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
                        self._inboxes[place][1], [b"\0"], [theirs.fileno()], socket.MSG_DONTWAIT
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
