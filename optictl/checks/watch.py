"""`check --watch`: runs the checks in rounds and finds what changed from one round to the next."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from optictl.errors import OptictlError, os_words
from optictl.results import Result, is_proven


@dataclass(frozen=True)
class Round:
    """One round. `results` holds all results, `changed` those to report.

    The `first` round with results reports all of them; later rounds report what changed.
    `at`: when the round ended, in seconds since the epoch. `error`: why the round has no results;
    `results` then holds those of the previous round. `has_news`: there is something to report.
    """

    at: float
    first: bool
    results: Sequence[Result]
    changed: Sequence[Result]
    error: str = ""
    has_news: bool = True

    @property
    def good(self) -> bool:
        return not self.error and is_proven(self.results)


def changed(before: Sequence[Result], now: Sequence[Result]) -> list[Result]:
    """The results that differ from the previous round.

    For a check that passes or is skipped, only the status counts: what it found (a process id,
    for example) changes with every restart.
    """
    known = {r.id: _compared(r) for r in before}
    fresh = [r for r in now if known.get(r.id) != _compared(r)]
    # a check that is only required is among the results only while it fails
    current_ids = {r.id for r in now}
    return fresh + [
        replace(r, status="skip", found="no longer failing", cause="", remedy="", root_cause="")
        for r in before
        if r.id not in current_ids
    ]


def _compared(r: Result) -> tuple[str, ...]:
    """The fields that make two results of a check different."""
    return (r.status, r.found, r.root_cause) if r.failed or r.status == "warn" else (r.status,)


def rounds(judge: Callable[[], Sequence[Result]], pause: Callable[[], None]) -> Iterator[Round]:
    """Run the checks again and again, with a pause in between. A round that crashes is reported."""
    last: Sequence[Result] | None = None
    error = ""
    while True:
        before, was, error = last, error, ""
        try:
            last = judge()
        except OptictlError as problem:
            error = f"{problem.what}. Fix: {problem.remedy}" if problem.remedy else problem.what
        except OSError as problem:
            error = os_words(problem)
        except Exception as problem:  # noqa: BLE001  (the next round may succeed)
            error = f"the checks crashed: {type(problem).__name__}: {problem}"
        results = last or []
        new = [] if error else list(results) if before is None else changed(before, results)
        yield Round(time.time(), before is None, results, new, error, bool(new) or error != was)
        pause()
