"""The requests in flight. Each can be answered before its strategy ends.

A strategy runs in a thread; the event loop waits for the first of these: the answer, the deadline,
a loop, the client's disconnect, or the end of a drain. Only the event loop uses this module's
objects; the thread of a strategy gets its request, and nothing else of it.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable
from typing import TypeVar

from . import accounting
from .threads import Threads

T = TypeVar("T")


def _draining() -> accounting.Abort:
    return accounting.Abort(
        503, "draining", "the service stopped before it finished this request; send it again"
    )


class InFlight:
    """All requests in flight. `closed` is done when the drain is over: no request may start."""

    def __init__(self, threads: Threads) -> None:
        self._loop = asyncio.get_running_loop()
        self._threads = threads
        self._open: dict[str, tuple[accounting.Request, asyncio.Future[object]]] = {}
        self.closed: asyncio.Future[None] = self._loop.create_future()

    def __len__(self) -> int:
        return len(self._open)

    def requests(self) -> list[accounting.Request]:
        """The requests in flight, the oldest first. Any thread may call this."""
        return [request for request, _ in list(self._open.values())]

    async def run(self, request: accounting.Request, strategy: Callable[[], T]) -> T:
        """Run a strategy in a thread, and return its result.

        Raises:
            Abort: the request ended first. The thread may continue, but its further upstream calls
                are refused.
        """
        if self.closed.done():
            raise _draining()
        result: asyncio.Future[T] = self._loop.create_future()

        def finish(value: T | None, error: BaseException | None) -> None:
            if result.done():  # the request was answered before
                return
            if error is not None:
                result.set_exception(error)
            else:
                result.set_result(value)  # type: ignore[arg-type]

        def work() -> None:
            try:
                outcome: tuple[T | None, BaseException | None] = (strategy(), None)
            except BaseException as error:
                # a future refuses StopIteration
                outcome = None, RuntimeError() if isinstance(error, StopIteration) else error
            self._loop.call_soon_threadsafe(finish, *outcome)

        self._open[request.id] = request, result  # type: ignore[assignment]
        try:
            context = contextvars.copy_context()
            self._threads.run(lambda: context.run(work))
            done, _ = await asyncio.wait({result}, timeout=max(request.remaining(), 0.1))
            if not done:
                request.abort(request.too_late())
                raise request.aborted or request.too_late()
            return result.result()
        finally:
            del self._open[request.id]
            if result.done() and not result.cancelled():
                result.exception()  # seen: asyncio must not log it
            else:
                result.cancel()

    def end(self, request_id: str, reason: accounting.Abort) -> bool:
        """Answer a request now with this error, even if its strategy still waits.

        Returns whether the request is in flight here.
        """
        request, result = self._open.get(request_id, (None, None))
        if request is None or result is None:
            return False
        request.abort(reason)
        if not result.done():
            result.set_exception(request.aborted or reason)
        return True

    def close(self) -> int:
        """Answer every request in flight with 503. Returns their number."""
        if not self.closed.done():
            self.closed.set_result(None)
        waiting = self.requests()
        for request in waiting:
            self.end(request.id, _draining())
        return len(waiting)
