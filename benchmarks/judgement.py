"""The CPU time of the guard's judgement of a request."""

from __future__ import annotations

import statistics
import time

from optictl.guard import judgement
from optictl.guard.exchanges import Exchange, Run, Sample

#: A text of a usual length; `{0}` makes samples differ.
TEXT = "Sample {0}: first add the two prices, then compare the sum with the difference. " * 25
_JUDGED, REPEATS = 500, 7


def runs() -> dict[str, Run]:
    """A run of each strategy, as the guard records it."""

    def exchange(step: str, *texts: str) -> Exchange:
        samples = [Sample(text, "stop") for text in texts]
        return Exchange(step, len(texts), samples, [0], completion_tokens=400)

    texts = [TEXT.format(place) for place in range(5)]
    steps = {
        "moa": [
            exchange("candidate", *texts[:3]),
            exchange("critique", texts[3]),
            exchange("final", texts[4]),
        ],
        "bon": [
            exchange("candidate", *texts[:3]),
            *(exchange("rating", str(6 + place)) for place in range(3)),
        ],
        "self_consistency": [exchange("candidate", text) for text in texts],
        "plansearch": [
            exchange(step, text)
            for step, text in zip(
                ("observations", "derived observations", "solution", "final"), texts, strict=False
            )
        ],
    }
    return {
        strategy: Run(made, (3, 5) if strategy == "self_consistency" else None)
        for strategy, made in steps.items()
    }


def milliseconds() -> dict[str, float]:
    """The CPU time of a judgement, by strategy: the median of several rounds."""
    found = {}
    for strategy, run in runs().items():
        rounds = []
        for _ in range(REPEATS):
            since = time.process_time()
            for _ in range(_JUDGED):
                judgement.judge(strategy, [run])
            rounds.append((time.process_time() - since) / _JUDGED * 1000)
        found[strategy] = statistics.median(rounds)
    return found
