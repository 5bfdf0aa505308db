"""Calls that a strategy is going to make, whatever an earlier one says.

OptiLLM makes them one after the other. The first of them shows the others: they are sent beside
it, and the strategy finds their answers when it asks.

Source of each case: moa.py, bon.py, self_consistency.py and pvg.py of OptiLLM 0.3.12 to 0.4.0.
"""

from __future__ import annotations

import json
import threading
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Generic, TypeVar

from . import traces
from .exchanges import Exchange
from .threads import HEAD_START, Job, Threads

T = TypeVar("T")
Body = dict[str, Any]

#: Strategies with a step that judges the texts of earlier calls, one call for each.
_JUDGING = {"bon": "rating", "pvg": traces.UNKNOWN_PURPOSE}


def expected(
    strategy: str, asked: Body, before: Sequence[Exchange], samples: int = 5
) -> list[Body]:
    """The calls that follow this one and do not depend on it, in order. Pure.

    `before`: the exchanges of the strategy so far. `samples`: those of `self_consistency`.
    """
    step = traces.purpose(strategy, asked.get("messages"))
    if step == "candidate" and asked.get("n", 1) == 1:
        return [asked] * (_singles(strategy, before, samples) - 1)
    if step == _JUDGING.get(strategy):
        return _judgements(asked, before)
    return []


def question(body: Mapping[str, Any]) -> int:
    """Tells equal calls apart from others."""
    return hash(json.dumps(body, sort_keys=True, default=str))


def _singles(strategy: str, before: Sequence[Exchange], samples: int) -> int:
    """How many samples are left to ask for, one call for each."""
    made = sum(exchange.step == "candidate" and exchange.asked == 1 for exchange in before)
    if strategy == "self_consistency":
        return samples - made
    # after a call for all candidates that failed or brought none
    several = [one.asked for one in before if one.step == "candidate" and one.asked > 1]
    return (several[0] if several else 1) - made


def _judgements(asked: Body, before: Sequence[Exchange]) -> list[Body]:
    """The same call for the texts after the one that this call holds at the end of a message."""
    texts, judged = _texts_to_judge(before)
    rest = texts[judged:]
    messages = asked.get("messages")
    if len(rest) < 2 or not isinstance(messages, list):
        return []
    for place, message in enumerate(messages):
        content = message.get("content") if isinstance(message, dict) else None
        if place >= len(messages) - 2 and isinstance(content, str) and content.endswith(rest[0]):
            start = content[: len(content) - len(rest[0])]
            return [
                {
                    **asked,
                    "messages": [
                        *messages[:place],
                        {**message, "content": start + text},
                        *messages[place + 1 :],
                    ],
                }
                for text in rest[1:]
            ]
    return []


def _texts_to_judge(before: Sequence[Exchange]) -> tuple[list[str], int]:
    """The texts of the newest candidates, and how many were judged since."""

    def brings_texts(exchange: Exchange) -> bool:
        return exchange.asked > 1 or exchange.step == "candidate"

    judged = 0
    while judged < len(before) and not brings_texts(before[-1 - judged]):
        judged += 1
    texts: list[str] = []
    for exchange in reversed(before[: len(before) - judged]):
        if not brings_texts(exchange):
            break
        usable = [
            sample.text
            for sample in exchange.samples
            if not sample.is_empty and (exchange.asked > 1 or not sample.is_truncated)
        ]
        texts = usable + texts
    return texts, judged


class Ahead(Generic[T]):
    """The calls of one run of a strategy. The threads of the strategy may use it.

    Args:
        perform: makes a call. It raises nothing but Abort. The number says how many equal calls
            there were before, in the order of the strategy.
        others: the calls that follow one and do not depend on it.
    """

    def __init__(
        self,
        threads: Threads,
        perform: Callable[[Body, int], T],
        others: Callable[[Body], list[Body]],
    ) -> None:
        self._threads, self._perform, self._others = threads, perform, others
        self._lock = threading.Lock()
        self._jobs: dict[int, deque[Job[T]]] = defaultdict(deque)
        self._counts: Counter[int] = Counter()

    def call(self, asked: Body) -> T:
        """What a call brings. Blocks."""
        with self._lock:
            jobs = self._jobs and self._jobs.get(question(asked))
            known = jobs.popleft() if jobs else None
        if known is not None:
            return known.result()
        others = self._others(asked)
        if not others:
            return self._numbered(asked)()
        first = Job(self._threads, self._numbered(asked))
        if not first.has_ended(HEAD_START):
            jobs_of = [(question(other), self._numbered(other)) for other in others]
            with self._lock:
                for asked_again, work in jobs_of:
                    self._jobs[asked_again].append(Job(self._threads, work))
        return first.result()

    def _numbered(self, asked: Body) -> Callable[[], T]:
        with self._lock:
            number = self._counts[question(asked)]
            self._counts[question(asked)] += 1
        return partial(self._perform, asked, number)
