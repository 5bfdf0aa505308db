"""What a streaming client gets while its strategy runs: texts as they come, and progress."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import dataclass

from .exchanges import Run


@dataclass(frozen=True)
class Part:
    """A part of an answer. `index`: of which one. `is_reasoning`: of what the model thinks."""

    index: int
    text: str
    is_reasoning: bool = False


class Live:
    """The parts of the answers to one request. Threads put them in; the event loop takes them.

    `shows_progress`: the client gets a line of each step that has ended.
    """

    def __init__(self, *, shows_progress: bool = False) -> None:
        self._loop = asyncio.get_running_loop()
        self._parts: asyncio.Queue[Part | None] = asyncio.Queue()
        #: done when the strategy has its turn
        self.began: asyncio.Future[None] = self._loop.create_future()
        #: done when there is a first part
        self.has_part: asyncio.Future[None] = self._loop.create_future()
        self.shows_progress = shows_progress

    def begin(self) -> None:
        """The strategy starts. For the event loop."""
        if not self.began.done():
            self.began.set_result(None)

    def end(self) -> None:
        """No part follows. For the event loop."""
        self._parts.put_nowait(None)

    def put(self, part: Part) -> None:
        """Send a part. For any thread."""
        self._loop.call_soon_threadsafe(self._take_in, part)

    def _take_in(self, part: Part) -> None:
        if not self.has_part.done():
            self.has_part.set_result(None)
        self._parts.put_nowait(part)

    async def next(self, seconds: float) -> Part | None:
        """The next part. None after the last one.

        Raises:
            asyncio.TimeoutError: none comes within `seconds`.
        """
        return await asyncio.wait_for(self._parts.get(), seconds)


class LiveText:
    """The text of one answer, as the model writes it. See `events.Sink`."""

    def __init__(self, live: Live, index: int) -> None:
        self._live, self._index = live, index
        self.has_text = False

    def text(self, part: str) -> None:
        self.has_text = True
        self._live.put(Part(self._index, part))

    def reasoning(self, part: str) -> None:
        self._live.put(Part(self._index, part, is_reasoning=True))


class Progress:
    """The steps of one run of a strategy that have ended. Any thread may use it."""

    def __init__(self, live: Live, run: Run) -> None:
        self._live, self._run = live, run
        self._lock = threading.Lock()
        self._ended: dict[str, int] = {}
        self._expected: dict[str, int] = {}

    def expect(self, step: str, count: int) -> None:
        """A step takes this many samples in all, as far as is known."""
        with self._lock:
            self._expected[step] = max(count, self._expected.get(step, 0))

    def step_ended(self, step: str, count: int, seconds: float, *, failed: bool) -> None:
        """A call of a step for `count` samples has ended."""
        with self._lock:
            number = self._ended[step] = self._ended.get(step, 0) + count
            of = max(number, self._expected.get(step, 0))
        place = f" {number} of {of}" if of > 1 else ""
        answer = f"answer {self._run.place + 1}: " if self._run.runs > 1 else ""
        line = f"{answer}{step}{place}{' failed' if failed else ''}, {seconds:.1f} s\n"
        self._live.put(Part(self._run.place, line, is_reasoning=True))
