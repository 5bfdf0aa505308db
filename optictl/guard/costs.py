"""How many upstream calls a strategy needs, as far as that is known before the first one. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from .accounting import Call, Request

#: Strategy -> its calls for one answer if every response is good. Others need one or more. Source:
#: the strategies of OptiLLM 0.3.12 to 0.4.0 with their own options.
CALLS = {
    "moa": 3,
    "bon": 4,
    "self_consistency": 5,
    "plansearch": 4,
    "rto": 4,
    "leap": 5,
    "genselect": 2,
}


def of_answer(strategy: str, options: Mapping[str, float]) -> int:
    """The calls for one answer with these options of the strategy, at least."""
    samples = int(options.get("samples", 0))
    if samples and strategy in ("bon", "self_consistency"):
        return samples + (strategy == "bon")  # each is rated
    return CALLS.get(strategy, 1)


def excess(strategy: str, each: int, answers: int, most: int) -> str:
    """Why a request for this many answers cannot stay within `most` calls. "" if it can.

    `each`: the calls for one answer.
    """
    needed = each * answers
    if needed <= most:
        return ""
    calls = f"{each} for each answer of {strategy}" if answers > 1 else f"for {strategy}"
    remedy = f"ask for at most {most // each} answers (n), or" if each <= most else "to use it,"
    return (
        f"the request needs {needed} upstream calls ({calls}), and limits.max_upstream_calls is "
        f"{most}: {remedy} raise the limit"
    )


def done(request: Request) -> str:
    """The steps that a request had finished when it ended early: `3 candidate, 1 critique`."""
    return _steps(call for call in list(request.calls) if not call.is_open and not call.failed)


def _steps(calls: Iterable[Call]) -> str:
    count = Counter(call.purpose for call in calls)
    return ", ".join(f"{number} {purpose}" for purpose, number in count.items())
