"""What `benchmarks.strategies` measured, and its tables."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from benchmarks.figures import Figure, figure, number

NEVER = "never"
PREAMBLE = """\
# Strategies

Written by `python -m benchmarks strategies`: a release as its unit starts it ("guarded"), and
OptiLLM 0.3.12 by hand ("bare"), in the same environment and in the same run. A figure is the median
(minimum to maximum).
"""
_WAITS = """\
Every call of the upstream takes 1 s. A stream has 20 chunks a second, so a text of 40 chunks takes
2 s. "refuses n": it answers 400 to an `n` above 1; "ignores n": it returns one choice, and bare
OptiLLM goes on with copies of it. Each program gets one request of a kind before those that count.
"calls": upstream calls of a request. The client that leaves does so after 0.5 s.
"""
_CROWD = """\
64 requests at the same time to a service that has just started, each with its own client, with the
default limits. RSS and PSS (MiB), threads and "calls at once" are the highest values; "at rest" is
the RSS before.
"""
_MODEL = """\
SmolLM2-135M-Instruct on llama.cpp with 4 slots and one thread, on the cores that the service uses,
too. Means of {rounds} requests, `max_tokens` {tokens}. Its texts differ from request to request, so
compare tokens per second. "busy after": seconds for which the model worked on after its client had
left.
"""


@dataclass(frozen=True)
class Row:
    """A figure of both programs, one value a round. No values: it never happened.

    `unit`: "" for a count. `goal`: the most (or, `above`, the least) of the guarded one. `calls`:
    upstream calls of a request.
    """

    what: str
    unit: str
    guarded: tuple[float, ...]
    bare: tuple[float, ...]
    goal: float | None = None
    above: bool = False
    calls: tuple[str, str] = ("", "")

    @property
    def is_met(self) -> bool | None:
        """Whether the median reaches the goal. None without one."""
        measured = figure(self.guarded)
        if self.goal is None:
            return None
        if measured is None:
            return False
        return measured.median >= self.goal if self.above else measured.median <= self.goal

    def cells(self) -> tuple[str, ...]:
        sign = "at least " if self.above else "at most " if self.goal else ""
        goal = "" if self.goal is None else f"{sign}{self.goal:g}"
        met = {True: "yes", False: "**no**", None: ""}[self.is_met]
        figures = (_shown(figure(self.guarded)), _shown(figure(self.bare)))
        what = f"{self.what}, {self.unit}" if self.unit else self.what
        return (what, *figures, goal, met, *self.calls)


@dataclass(frozen=True)
class Crowd:
    """A program under many requests of a strategy. `rest`, `rss` and `pss` in MiB."""

    strategy: str
    program: str
    answered: int
    seconds: float
    rest: float
    rss: float
    pss: float | None
    threads: int
    calls: int

    def cells(self) -> tuple[str, ...]:
        pss = "" if self.pss is None else number(round(self.pss))
        memory = (number(round(self.rest)), number(round(self.rss)), pss)
        counts = (str(self.threads), str(self.calls))
        return (
            self.strategy,
            self.program,
            str(self.answered),
            f"{self.seconds:.1f}",
            *memory,
            *counts,
        )


@dataclass(frozen=True)
class Real:
    """Requests to the real model: means. `first`: seconds to the first token; `busy`: seconds that
    the model worked on.
    """

    what: str
    program: str
    seconds: float
    tokens: float
    first: float | None = None
    busy: float | None = None

    def cells(self) -> tuple[str, ...]:
        rate = f"{self.tokens / self.seconds:.1f}" if self.seconds else ""
        optional = ("" if value is None else f"{value:.1f}" for value in (self.first, self.busy))
        whole = (f"{self.seconds:.1f}", f"{self.tokens:.0f}", rate)
        return (self.what, self.program, *whole, *optional)


@dataclass
class Results:
    """Everything that was measured."""

    rows: list[Row] = field(default_factory=list)
    crowds: list[Crowd] = field(default_factory=list)
    real: list[Real] = field(default_factory=list)


def _shown(measured: Figure | None) -> str:
    return NEVER if measured is None else str(measured)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def waits(results: Results) -> str:
    """How long clients wait."""
    head = ("what", "guarded", "bare", "goal", "met", "calls, guarded", "calls, bare")
    return _table(head, [row.cells() for row in results.rows])


def crowds(results: Results) -> str:
    """Memory and threads."""
    head = ("strategy", "program", "answered", "s", "at rest", "RSS", "PSS", "threads")
    return _table((*head, "calls at once"), [crowd.cells() for crowd in results.crowds])


def real(results: Results) -> str:
    """The real model."""
    head = ("request", "program", "s", "tokens", "tokens/s", "first token, s", "busy after, s")
    return _table(head, [one.cells() for one in results.real])


def report(results: Results, load: float, rounds: int, tokens: int) -> str:
    """STRATEGIES.md. `load`: the load average before.

    `rounds`, `tokens`: of the requests to the real model, how many, and their `max_tokens`.
    """
    when = time.strftime("%Y-%m-%d", time.gmtime())
    machine = f"{os.cpu_count()} cores ({platform.machine()}), load {load:.1f} before it began"
    parts = [PREAMBLE, f"{when}, {machine}.\n", "## Time\n", _WAITS, waits(results)]
    parts += ["\n## Memory and threads\n", _CROWD, crowds(results)]
    if results.real:
        model = _MODEL.format(rounds=rounds, tokens=tokens)
        parts += ["\n## A real model\n", model, real(results)]
    return "\n".join([*parts, ""])
