"""Threads for strategies and their calls, and calls side by side in them."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence
from functools import partial
from typing import Generic, TypeVar

from . import watchdog

T = TypeVar("T")

#: Threads that start with the service, so that no request waits for the start of a thread.
#: faulthandler prints at most 100 threads.
READY_THREADS = 64
#: Seconds until the calls beside a first one begin. A refusal mostly comes sooner: then they are
#: not made, as if they were made one after the other.
HEAD_START = 0.1


class Threads:
    """Daemon threads. Free ones are reused: a start costs as much as an answer.

    A pool of `concurrent.futures` would wait at exit for a strategy that never ends.

    Args:
        ready: threads that start now.
        keep: free threads that are kept.
    """

    def __init__(self, ready: int = 0, keep: int = 0) -> None:
        self._lock = threading.Lock()
        self._keep = max(ready, keep)
        self._work: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._free = ready
        for _ in range(ready):
            self._start()

    def run(self, work: Callable[[], None]) -> None:
        """Run `work` at once in a free or a new thread. `work` must not raise an exception."""
        with self._lock:
            is_free = self._free > 0
            self._free -= is_free
        if not is_free:
            self._start()
        self._work.put(work)

    def _start(self) -> None:
        threading.Thread(target=self._serve, name="strategy", daemon=True).start()

    def _serve(self) -> None:
        watchdog.leave_abort_to_main()
        while True:
            self._work.get()()
            with self._lock:
                if self._free >= self._keep:  # strategies ran on after their clients had left
                    return
                self._free += 1


class Job(Generic[T]):
    """A call in a thread, which begins at once."""

    def __init__(self, threads: Threads, call: Callable[[], T]) -> None:
        self._call, self._ended = call, threading.Event()
        self._value: list[T] = []
        self.error: BaseException | None = None
        threads.run(self._work)

    def _work(self) -> None:
        try:
            self._value.append(self._call())
        except BaseException as error:
            self.error = error
        self._ended.set()

    def has_ended(self, seconds: float) -> bool:
        """Whether it has, after at most `seconds`."""
        return self._ended.wait(seconds)

    def result(self) -> T:
        """Its result. Blocks until it has ended, and raises what it raised."""
        self._ended.wait()
        if self.error is not None:
            raise self.error
        return self._value[0]


def side_by_side(threads: Threads, calls: Sequence[Callable[[], T]], most: int) -> list[T]:
    """The results of all calls, of which at most `most` run at the same time.

    Calls that end at once are made one after the other. Raises what the first one of them that
    failed did raise. The others may go on.
    """
    jobs: list[Job[T]] = []
    for call in calls:
        jobs.append(Job(threads, call))
        if not jobs[-1].has_ended(HEAD_START):
            break
        jobs[-1].result()  # a failure ends the turn
    room = threading.Semaphore(most - 1)

    def in_turn(call: Callable[[], T]) -> T:
        try:
            return call()
        finally:
            room.release()

    for call in calls[len(jobs) :]:
        room.acquire()
        jobs.append(Job(threads, partial(in_turn, call)))
    return [job.result() for job in jobs]
