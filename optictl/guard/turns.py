"""Concurrency limiter: N requests run, N more wait in FIFO order."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

#: Seconds between two checks whether a waiting client is still connected.
_LOOK = 0.5


class Full(Exception):
    """The queue is full, or the request waited too long."""


class Turns:
    """At most `most` requests run at the same time, and at most `most` wait."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._taken = 0
        self._queue: deque[threading.Event] = deque()

    @property
    def waiting(self) -> int:
        """The number of waiting requests."""
        return len(self._queue)

    @contextmanager
    def turn(self, seconds: float, leave: Callable[[], None]) -> Iterator[None]:
        """Wait until the request may run, and hold its place during the block.

        Args:
            seconds: the longest wait.
            leave: called twice a second while waiting. An exception from it ends the wait.

        Raises:
            Full: the queue is full, or the wait took too long.
        """
        self._take(seconds, leave)
        try:
            yield
        finally:
            with self._lock:
                self._hand_on()

    def _take(self, seconds: float, leave: Callable[[], None]) -> None:
        with self._lock:
            if (
                self._taken < self._most
            ):  # the queue is empty: a request that ends passes its place on
                self._taken += 1
                return
            if len(self._queue) >= self._most:
                raise Full
            mine = threading.Event()
            self._queue.append(mine)
        deadline = time.monotonic() + seconds
        try:
            while not mine.wait(min(_LOOK, max(0.0, deadline - time.monotonic()))):
                if time.monotonic() >= deadline:
                    raise Full
                leave()
        except BaseException:
            with self._lock:
                if mine.is_set():  # the place arrived at the last moment
                    self._hand_on()
                else:
                    self._queue.remove(mine)
            raise

    def _hand_on(self) -> None:
        """Pass a free place to the next waiting request. The caller holds the lock."""
        if self._queue:
            self._queue.popleft().set()
        else:
            self._taken -= 1
