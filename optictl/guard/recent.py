"""The effect of the newest requests of each strategy and base model."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable
from typing import Any

from . import accounting
from .judgement import Judgement

#: Judged requests of each strategy on each base model that count.
MOST = 100


class RecentEffects:
    """The judgements of the newest answers. Only the event loop uses it."""

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._judged: dict[tuple[str, str], deque[Judgement]] = {}

    def add(self, request: accounting.Request) -> None:
        """Add a request that was answered and judged."""
        if request.judgement is not None and request.status == 200:
            labels = request.strategy, request.base_model
            self._judged.setdefault(labels, deque(maxlen=self._most)).append(request.judgement)

    def summaries(self) -> list[dict[str, Any]]:
        """For each pair: how many requests there were, how many lost their effect, and by what."""
        return [
            {
                "strategy": strategy,
                "base_model": base_model,
                "requests": len(judged),
                "degraded": sum(one.effect == "none" for one in judged),
                "weak": sum(one.effect == "weak" for one in judged),
                "codes": dict(Counter(code for one in judged for code in one.codes)),
            }
            for (strategy, base_model), judged in sorted(self._judged.items())
        ]


def joined(workers: Iterable[list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """The summaries of several workers as one. Pure."""
    whole: dict[tuple[str, str], dict[str, Any]] = {}
    for one in (one for summaries in workers for one in summaries):
        labels = one["strategy"], one["base_model"]
        known = whole.get(labels)
        if known is None:
            whole[labels] = {**one, "codes": dict(one["codes"])}
            continue
        for name in ("requests", "degraded", "weak"):
            known[name] += one[name]
        known["codes"] = dict(Counter(known["codes"]) + Counter(one["codes"]))
    return [whole[labels] for labels in sorted(whole)]
