"""What a model behind LiteLLM turned out to support. Any thread may use it."""

from __future__ import annotations

import time

#: Seconds until something that did not work on a model is tried again.
_TRY_AGAIN = 600.0


class Support:
    """Which models do not support something, for a while."""

    def __init__(self, seconds: float = _TRY_AGAIN) -> None:
        self._seconds = seconds
        self._until: dict[str, float] = {}

    def is_missing(self, model: str) -> bool:
        """Whether it did not work on the model a short time ago."""
        return time.monotonic() < self._until.get(model, 0.0)

    def remember(self, model: str) -> None:
        """It did not work just now."""
        self._until[model] = time.monotonic() + self._seconds


class SampleSupport(Support):
    """Which models return fewer choices than `n`, or refuse it."""


class RatingSupport(Support):
    """Which models refuse a JSON schema for a rating, or do not follow it."""


class StreamSupport(Support):
    """Which models cannot stream.

    LiteLLM turns the answer of a server that ignores `stream` into a stream without a text, which
    looks like an empty answer. A model that has streamed a text once is not doubted any more.
    """

    def __init__(self, seconds: float = _TRY_AGAIN) -> None:
        super().__init__(seconds)
        self._works: set[str] = set()

    def is_doubtful(self, model: str) -> bool:
        """Whether an empty stream may be a fault of the stream."""
        return model not in self._works

    def works(self, model: str) -> None:
        """A stream of the model had a text."""
        self._works.add(model)
