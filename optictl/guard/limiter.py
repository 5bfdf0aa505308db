"""Concurrency limiter: N requests run, N more wait in FIFO order. For one event loop."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager


class Full(Exception):
    """The queue is full, or the request waited too long."""


class Left(Exception):
    """The request does not want to wait any more."""


class Limiter:
    """At most `most` requests run at the same time, and at most `most` wait."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._running = 0
        self._queue: deque[asyncio.Future[None]] = deque()

    @property
    def running(self) -> int:
        """The number of running requests."""
        return self._running

    @property
    def waiting(self) -> int:
        """The number of waiting requests."""
        return len(self._queue)

    @asynccontextmanager
    async def turn(
        self, seconds: float, leave: Collection[asyncio.Future[None]] = ()
    ) -> AsyncIterator[None]:
        """Wait until the request may run, and hold its place during the block.

        Args:
            seconds: the longest wait.
            leave: futures that end the wait.

        Raises:
            Full: the queue is full, or the wait took too long.
            Left: a future of `leave` ended the wait.
        """
        await self._take(seconds, leave)
        try:
            yield
        finally:
            self._hand_on()

    async def _take(self, seconds: float, leave: Collection[asyncio.Future[None]]) -> None:
        if self._running < self._most:
            # the queue is empty: a request that ends passes its place on
            self._running += 1
            return
        if len(self._queue) >= self._most:
            raise Full
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._queue.append(place)
        try:
            await asyncio.wait(
                {place, *leave}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED
            )
            if any(future.done() for future in leave):
                raise Left
            if not place.done():
                raise Full
        except BaseException:
            if place.done():  # the place arrived at the last moment
                self._hand_on()
            else:
                self._queue.remove(place)
            raise

    def _hand_on(self) -> None:
        """Pass a free place to the next waiting request."""
        if self._queue:
            self._queue.popleft().set_result(None)
        else:
            self._running -= 1
