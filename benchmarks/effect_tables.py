"""What `benchmarks.effect` measured, and its tables."""

from __future__ import annotations

import os
import platform
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from benchmarks import judgement
from benchmarks.figures import number
from optictl.requests.compare import stats

STRATEGIES = ("moa", "bon", "self_consistency", "plansearch")
PLAIN, ON, OFF, OFTEN = "plain", "fixes on", "fixes off", "plain as often"
#: The goals: share of requests with effect, of these strategies with fixes on; milliseconds.
GOAL, OF, JUDGEMENT_GOAL = 0.95, ("moa", "bon", "plansearch"), 0.2
PREAMBLE = """\
# Effect

Written by `python -m benchmarks effect`. The model is SmolLM2-135M-Instruct, one of the smallest
there are, on llama.cpp. The questions are the first ones of `optictl compare`. "full": the strategy
did what its name says. "weak": a part of that is lost. "none": the result is no better than one
plain call; a request without an answer counts as such. Intervals are at 95 %.
"""
_RIGHT = """\
Calls and tokens are per question. "plain as often": as many samples of the plain model as the
strategy had completions, at most 8; the answer that most of them give. "gained": right where the
plain model is wrong; "lost": the opposite. p: exact McNemar test, adjusted for the number of rows.
"""


@dataclass(frozen=True)
class Record:
    """One answer of one subject to one question. `effect`: "" of the plain model."""

    question: str
    subject: str
    right: bool
    effect: str = ""
    codes: tuple[str, ...] = ()
    fixed: tuple[str, ...] = ()
    calls: int = 1
    completions: int = 1
    tokens: int = 0


@dataclass
class Results:
    """Everything that was measured. `milliseconds`: CPU time of a judgement, by strategy."""

    records: list[Record] = field(default_factory=list)
    milliseconds: dict[str, float] = field(default_factory=dict)

    def of(self, subject: str) -> list[Record]:
        return [record for record in self.records if record.subject == subject]


def name(strategy: str, fixes: str) -> str:
    """A subject: `moa, fixes on`, or `moa, plain as often`."""
    return f"{strategy}, {fixes}"


def _percent(count: int, of: int) -> str:
    """`50 % (3 of 6; 19 to 81)`."""
    if not of:
        return "-"
    low, high = stats.wilson(count, of)
    return f"{100 * count / of:.0f} % ({count} of {of}; {100 * low:.0f} to {100 * high:.0f})"


def _counts(words: Iterator[str]) -> str:
    return ", ".join(f"{word} {count}" for word, count in Counter(words).most_common()) or "-"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def effects(results: Results) -> str:
    """The share of requests with effect, and why the others have none."""
    head = ("strategy", "fixes", "had effect", "full", "weak", "none", "codes", "fixed", "goal")
    rows = []
    for strategy in STRATEGIES:
        for fixes in (OFF, ON):
            records = results.of(name(strategy, fixes))
            levels = Counter(record.effect for record in records)
            had = levels["full"] + levels["weak"]
            goal = ""
            if fixes == ON and strategy in OF and records:
                met = "met" if had / len(records) >= GOAL else "**not met**"
                goal = f"at least {GOAL:.0%}: {met}"
            rows.append(
                (
                    strategy,
                    fixes.removeprefix("fixes "),
                    _percent(had, len(records)),
                    *(str(levels[level]) for level in ("full", "weak", "none")),
                    _counts(code for record in records for code in record.codes),
                    _counts(fix for record in records for fix in record.fixed),
                    goal,
                )
            )
    return _table(head, rows)


def accuracy(results: Results) -> str:
    """Right answers and their price, beside the plain model."""
    head = ("model", "right", "calls", "tokens", "gained", "lost", "p")
    subjects = [name(strategy, kind) for strategy in STRATEGIES for kind in (OFF, ON, OFTEN)]
    plain = {record.question: record.right for record in results.of(PLAIN)}
    pairs = {
        subject: [(record.right, plain[record.question]) for record in results.of(subject)]
        for subject in subjects
    }
    gained = {subject: found.count((True, False)) for subject, found in pairs.items()}
    lost = {subject: found.count((False, True)) for subject, found in pairs.items()}
    p_values = stats.holm([stats.mcnemar(gained[one], lost[one]) for one in subjects])
    rows = [(*_price(results.of(PLAIN), PLAIN), "", "", "")]
    for subject, p in zip(subjects, p_values, strict=True):
        beside = (str(gained[subject]), str(lost[subject]), f"{p:.2g}")
        rows.append((*_price(results.of(subject), subject), *beside))
    return _table(head, rows)


def _price(records: Sequence[Record], subject: str) -> tuple[str, str, str, str]:
    count = max(1, len(records))
    return (
        subject,
        _percent(sum(record.right for record in records), len(records)),
        number(sum(record.calls for record in records) / count),
        number(sum(record.tokens for record in records) / count),
    )


def costs(results: Results) -> str:
    """The CPU time of a judgement."""
    head = ("strategy", "CPU, ms", "goal")
    rows = [
        (
            strategy,
            f"{spent:.3f}",
            f"below {JUDGEMENT_GOAL:g}: {'met' if spent < JUDGEMENT_GOAL else '**not met**'}",
        )
        for strategy, spent in results.milliseconds.items()
    ]
    return _table(head, rows)


def report(results: Results, tokens: int, minutes: float) -> str:
    """EFFECT.md."""
    asked = len(results.of(PLAIN))
    when = time.strftime("%Y-%m-%d", time.gmtime())
    return "\n".join(
        [
            PREAMBLE,
            f"{when}, {os.cpu_count()} cores ({platform.machine()}), questions: {asked}, "
            f"`max_tokens` {tokens}, {minutes:.0f} minutes.\n",
            "## Requests with effect\n",
            effects(results),
            "\n## Right answers\n",
            _RIGHT,
            accuracy(results),
            "\n## A judgement\n",
            f"Texts of {len(judgement.TEXT):,} characters; median of {judgement.REPEATS} rounds.\n",
            costs(results),
            "",
        ]
    )
