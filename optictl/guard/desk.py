"""The requests that are being served now, each with a way to answer it early.

While it runs, a strategy has a thread of its own, and the request waits for whichever comes first:
its answer, the request's deadline, or the end of a drain.
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
#: What a strategy's thread, or the end of a drain, has to say: a result or why there is none.
Outcome: TypeAlias = "queue.SimpleQueue[tuple[object, BaseException | None]]"

#: Seconds after which a client that was sent away may come back.
RETRY_AFTER = 5


def _draining() -> ledger.Abort:
    return ledger.Abort(
        503, "draining", "the service is stopping and could not finish this request; ask again"
    )


class _Threads:
    """Daemon threads that are kept for the next strategy: to start one costs as much as a whole answer of OptiLLM's.

    A pool of `concurrent.futures` would wait at exit for a strategy that never ends.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._work: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._free = 0

    def run(self, work: Callable[[], None]) -> None:
        """Have `work`, which must not raise, done at once: by a free thread or by a new one."""
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
    """All requests in flight. `closed`: the drain is over, nothing new is begun. `turns`: who may begin."""

    def __init__(self) -> None:
        self.turns = Turns(1)
        self._lock = threading.Lock()
        self._threads = _Threads()
        self._open: dict[str, tuple[ledger.Request, Outcome]] = {}
        self.closed = False

    def __len__(self) -> int:
        return len(self._open)

    def requests(self) -> list[ledger.Request]:
        """Those in flight now, the oldest first."""
        with self._lock:
            return [request for request, _ in self._open.values()]

    def serve(self, request: ledger.Request, strategy: Callable[[], T]) -> T:
        """The strategy's result.

        Raises:
            Abort: the request was ended before; the strategy's thread may wait on, its calls
                are refused from now on.
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
        """Answer a request now with why it may not go on, whatever its strategy still waits for."""
        request.abort(reason)
        with self._lock:
            waiting = self._open.get(request.id)
        if waiting is not None:
            waiting[1].put((None, request.aborted))

    def close(self) -> int:
        """Answer everything that is still in flight with 503. How many that were."""
        with self._lock:
            self.closed = True
        waiting = self.requests()
        for request in waiting:
            self.end(request, _draining())
        return len(waiting)


desk = Desk()
