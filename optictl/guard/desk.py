"""The requests in flight. Each can be answered before its strategy ends.

A strategy runs in a separate thread. The request waits for the first of these: the answer, its
deadline, a loop, or the end of a drain.
"""

from __future__ import annotations

import contextvars
import queue
import threading
from collections.abc import Callable
from typing import TypeAlias, TypeVar, cast

from . import ledger
from .turns import Turns

T = TypeVar("T")
#: The result of a strategy, or the error that replaces it.
Outcome: TypeAlias = "queue.SimpleQueue[tuple[object, BaseException | None]]"

#: Seconds in the header Retry-After of a 503.
RETRY_AFTER = 5


def _draining() -> ledger.Abort:
    return ledger.Abort(
        503, "draining", "the service stopped before it finished this request; send it again"
    )


class _Threads:
    """Daemon threads for strategies. Free threads are reused: a start costs as much as an answer.

    A pool of `concurrent.futures` would wait at exit for a strategy that never ends.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._work: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._free = 0

    def run(self, work: Callable[[], None]) -> None:
        """Run `work` at once in a free or a new thread. `work` must not raise an exception."""
        with self._lock:
            is_free = self._free > 0
            self._free -= is_free
        if not is_free:
            threading.Thread(target=self._serve, name="strategy", daemon=True).start()
        self._work.put(work)

    def _serve(self) -> None:
        while True:
            self._work.get()()
            with self._lock:
                self._free += 1


class Desk:
    """All requests in flight. `closed`: the drain is over, no request may start.

    `turns`: the concurrency limiter.
    """

    def __init__(self) -> None:
        self.turns = Turns(1)
        self._lock = threading.Lock()
        self._threads = _Threads()
        self._open: dict[str, tuple[ledger.Request, Outcome]] = {}
        self.closed = False

    def __len__(self) -> int:
        return len(self._open)

    def requests(self) -> list[ledger.Request]:
        """The requests in flight, the oldest first."""
        with self._lock:
            return [request for request, _ in self._open.values()]

    def serve(self, request: ledger.Request, strategy: Callable[[], T]) -> T:
        """Run a strategy in a thread, and return its result.

        Raises:
            Abort: the request ended first. The thread may continue, but its further upstream calls
                are refused.
        """
        outcome: Outcome = queue.SimpleQueue()

        def work() -> None:
            try:
                outcome.put((strategy(), None))
            except BaseException as error:
                outcome.put((None, error))

        with self._lock:
            if self.closed:
                raise _draining()
            self._open[request.id] = (request, outcome)
        try:
            context = contextvars.copy_context()
            self._threads.run(lambda: context.run(work))
            try:
                result, error = outcome.get(timeout=max(request.remaining(), 0.1))
            except queue.Empty:
                request.abort(request.too_late())
                result, error = None, request.aborted
        finally:
            with self._lock:
                del self._open[request.id]
        if error is not None:
            raise error
        return cast(T, result)

    def end(self, request: ledger.Request, reason: ledger.Abort) -> None:
        """Answer a request now with this error, even if its strategy still waits."""
        request.abort(reason)
        with self._lock:
            waiting = self._open.get(request.id)
        if waiting is not None:
            waiting[1].put((None, request.aborted))

    def close(self) -> int:
        """Answer every request in flight with 503. Returns their number."""
        with self._lock:
            self.closed = True
        waiting = self.requests()
        for request in waiting:
            self.end(request, _draining())
        return len(waiting)


desk = Desk()
