"""check --watch: rounds of checks, and what is different from one to the next."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from optictl.errors import OptictlError, os_words
from optictl.results import Result, good


@dataclass(frozen=True)
class Round:
    """One round. `changed` is what is to be told of `found`: of the `first` that has any everything, then what is different.

    `at` is when it ended, in seconds since the epoch. `error`: why there was no result; `found` is then that of the round
    before. `told`: whether there is anything to say.
    """

    at: float
    first: bool
    found: Sequence[Result]
    changed: Sequence[Result]
    error: str = ""
    told: bool = True

    @property
    def good(self) -> bool:
        return not self.error and good(self.found)


def changed(before: Sequence[Result], now: Sequence[Result]) -> list[Result]:
    """The results that say something else than before.

    What passes or is skipped says the same whatever it found: a process has another number after each restart.
    """
    known = {r.id: _told(r) for r in before}
    fresh = [r for r in now if known.get(r.id) != _told(r)]
    # what is only presupposed is among the results while it is red
    gone = [r for r in before if r.id not in {one.id for one in now}]
    return fresh + [
        replace(r, status="skip", found="not red any more", cause="", remedy="", root_cause="")
        for r in gone
    ]


def _told(r: Result) -> tuple[str, ...]:
    return (r.status, r.found, r.root_cause) if r.red or r.status == "warn" else (r.status,)


def rounds(judge: Callable[[], Sequence[Result]], pause: Callable[[], None]) -> Iterator[Round]:
    """Judge again and again, with a pause in between. A round that fails is told and is not the end."""
    last: Sequence[Result] | None = None
    error = ""
    while True:
        before, was, error = last, error, ""
        try:
            last = judge()
        except OptictlError as problem:
            error = f"{problem.what}. Mend: {problem.remedy}" if problem.remedy else problem.what
        except OSError as problem:
            error = os_words(problem)
        except Exception as problem:  # noqa: BLE001  (whatever it is, the next round may go well)
            error = f"the round failed: {type(problem).__name__}: {problem}"
        found = last or []
        new = [] if error else list(found) if before is None else changed(before, found)
        yield Round(time.time(), before is None, found, new, error, bool(new) or error != was)
        pause()
