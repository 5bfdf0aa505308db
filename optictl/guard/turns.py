"""Whose turn it is: so many requests run at a time, as many again wait, first come first served."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

#: Seconds between two looks at whether somebody who waits still wants to.
_LOOK = 0.5


class Full(Exception):
    """No turn came: too many wait already, or it took too long."""


class Turns:
    """At most `most` turns at a time."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._taken = 0
        self._queue: deque[threading.Event] = deque()

    @property
    def waiting(self) -> int:
        """How many wait for their turn."""
        return len(self._queue)

    @contextmanager
    def turn(self, seconds: float, leave: Callable[[], None]) -> Iterator[None]:
        """Wait for a turn and have it for the block.

        Args:
            seconds: how long to wait at most.
            leave: called twice a second while waiting; what it raises ends the wait.

        Raises:
            Full: as many wait as may run, or the time is over.
        """
        self._take(seconds, leave)
        try:
            yield
        finally:
            with self._lock:
                self._hand_on()

    def _take(self, seconds: float, leave: Callable[[], None]) -> None:
        with self._lock:
            if self._taken < self._most:  # then nobody waits: a turn that ends goes to who does
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
                if mine.is_set():  # it came at the last moment
                    self._hand_on()
                else:
                    self._queue.remove(mine)
            raise

    def _hand_on(self) -> None:
        """A turn is over. The lock is held."""
        if self._queue:
            self._queue.popleft().set()
        else:
            self._taken -= 1
