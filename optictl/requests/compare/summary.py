"""The results of a comparison: each model's accuracy and cost, compared with the plain model. Pure.

A records file has one JSON object per line: first the header, then one record per request. An
interrupted comparison resumes from this file.

The plain model that is asked once is no fair rival for a strategy that asks it several times. The
honest baseline is the plain model asked as often, with the answer that most of its samples give.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, field, fields, replace
from typing import Any, Literal

from optictl.requests.compare import stats
from optictl.requests.compare.questions import Question
from optictl.requests.compare.stats import Interval

_FORMAT = 1

#: Estimated cost of a strategy's first request, as a multiple of a plain one. moa, bon, plansearch
#: and self_consistency make three to five calls, each with the output of the earlier ones.
_STRATEGY_FACTOR = 10
#: Estimated tokens of the first plain request, in addition to its prompt.
_FIRST_ANSWER_TOKENS = 500
#: Strategy -> its upstream calls and the completions of them, for one answer without failures.
#: Source: OptiLLM 0.3.12.
_NOMINAL = {
    "moa": (3, 5),
    "bon": (4, 6),
    "plansearch": (4, 4),
    "self_consistency": (5, 5),
    "re2": (1, 1),
    "cot_reflection": (1, 1),
}
#: An estimate for all others.
_NOMINAL_OTHERS = (5, 5)
#: Characters per token; a low value, so that estimates are rather too high.
_CHARACTERS_PER_TOKEN = 3

Verdict = Literal["better", "worse", "within noise", ""]


@dataclass(frozen=True)
class Subject:
    """A model in the comparison: a base model (`strategy` is ""), or a strategy on it.

    Base models are asked at LiteLLM, strategies at the service. `samples`: how often the base model
    is asked for each answer; most samples decide.
    """

    model: str
    strategy: str
    base_model: str
    samples: int = 1

    @property
    def label(self) -> str:
        """A name that no other row has."""
        return self.model if self.samples == 1 else f"{self.model} x{self.samples}"


@dataclass(frozen=True)
class Header:
    """The header of a records file.

    `prompts` is the questions file; None means the built-in ones.
    """

    questions: str
    prompts: str | None
    models: tuple[str, ...]

    def line(self) -> str:
        return json.dumps({"optictl_compare": _FORMAT, **asdict(self)})


@dataclass(frozen=True)
class Record:
    """One request.

    `error`: why there is no answer, or "". `answer`: the text, if it is to be kept. `sample`: its
    number, where the plain model is asked several times. `final`: a digest of the final answer;
    equal answers have equal digests. `completions`, `effect` and `codes` are what the guard said of
    a strategy. Files of older versions do not have the fields with a default.
    """

    question: str
    model: str
    right: bool
    error: str
    seconds: float
    calls: int
    prompt_tokens: int
    completion_tokens: int
    answer: str | None = None
    sample: int = 1
    final: str | None = None
    completions: int | None = None
    effect: str | None = None
    codes: tuple[str, ...] = ()

    @property
    def tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens

    def line(self) -> str:
        needed = {f.name for f in fields(self) if f.default is MISSING}
        default = {f.name: f.default for f in fields(self)}
        values = {
            name: value
            for name, value in asdict(self).items()
            if name in needed or value != default[name]
        }
        return json.dumps(values, ensure_ascii=False)


class RecordsError(Exception):
    """A text is not a valid records file; the message says why."""


def read(text: str) -> tuple[Header, list[Record]]:
    """Parse a records file. An incomplete last line comes from an interrupted write and is ignored.

    Raises:
        RecordsError: the text is not a records file, or a line is not valid.
    """
    lines = text.split("\n")[:-1]
    records = []
    try:
        first = json.loads(lines[0]) if lines else {}
        if first.pop("optictl_compare", None) != _FORMAT:
            raise RecordsError("it does not start with a header of `optictl compare`")
        header = Header(str(first["questions"]), first["prompts"], tuple(map(str, first["models"])))
    except (ValueError, KeyError, TypeError, AttributeError):
        raise RecordsError("it does not start with a header of `optictl compare`") from None
    for number, line in enumerate(lines[1:], start=2):
        try:
            records.append(_record(json.loads(line)))
        except (ValueError, TypeError):
            raise RecordsError(f"line {number} is not a record") from None
    return header, records


def _record(values: dict[str, Any]) -> Record:
    """The record of a line. JSON has lists, and records are compared."""
    return Record(**{**values, "codes": tuple(values.get("codes", ()))})


def newest(records: Iterable[Record]) -> dict[tuple[str, str], Record]:
    """(model, question) -> its last record; a failed request may have been repeated."""
    return {(r.model, r.question): r for r in records if r.sample == 1}


def expected_calls(subject: Subject, records: Iterable[Record]) -> float:
    """The estimated upstream calls of a request: the average so far."""
    if not subject.strategy:
        return 1
    own = [r.calls for r in records if r.model == subject.model and not r.error]
    return sum(own) / len(own) if own else _NOMINAL.get(subject.strategy, _NOMINAL_OTHERS)[0]


# the honest baseline


def times(subject: Subject, records: Iterable[Record]) -> int:
    """How often a strategy asks its base model for one answer: its usual number of completions."""
    own = [r for r in records if r.model == subject.model and not r.error]
    counted = Counter(r.completions for r in own if r.completions)
    if counted:
        return counted.most_common(1)[0][0]
    return _NOMINAL.get(subject.strategy, _NOMINAL_OTHERS)[1]


def baselines(subjects: Sequence[Subject], records: Sequence[Record]) -> list[Subject]:
    """The base models, each asked as often as its strategies ask it."""
    found = []
    for plain in (s for s in subjects if not s.strategy):
        strategies = [s for s in subjects if s.strategy and s.base_model == plain.model]
        numbers = sorted({times(s, records) for s in strategies})
        found += [Subject(plain.model, "", plain.model, k) for k in numbers if k > 1]
    return found


def samples_left(
    subjects: Sequence[Subject],
    questions: Sequence[Question],
    records: Sequence[Record],
    to_come: Collection[tuple[str, str]] = (),
) -> list[tuple[Subject, Question, int]]:
    """The samples that the baselines need: the base model, the question, the sample's number.

    `to_come`: (base model, question) of plain requests to come: each gives a first sample.
    """
    most = {s.model: s for s in baselines(subjects, records)}  # the last one needs most
    usable = _usable(records)
    left = []
    for question in questions:
        for plain in (s for s in subjects if s.model in most and not s.strategy):
            key = plain.model, question.id
            there = {r.sample for r in usable.get(key, ())} | ({1} if key in to_come else set())
            missing = most[plain.model].samples - len(there)
            # the first sample is the plain model's answer, which has its own place
            free = (n for n in range(2, missing + len(there) + 2) if n not in there)
            left += [(plain, question, n) for n, _ in zip(free, range(missing), strict=False)]
    return left


def _usable(records: Iterable[Record]) -> dict[tuple[str, str], list[Record]]:
    """(base model, question) -> its samples that can vote, by their number."""
    newest = {(r.model, r.question, r.sample): r for r in records}
    usable: dict[tuple[str, str], list[Record]] = {}
    for (model, question, _), r in sorted(newest.items()):
        if not r.error and r.final is not None:
            usable.setdefault((model, question), []).append(r)
    return usable


def vote(samples: Sequence[Record]) -> Record:
    """The answer that most samples give, as one record; of several the one that came first.

    It costs what all samples cost. They can be asked side by side: it takes as long as the slowest.
    """
    finals = [r.final for r in samples if r.final]
    winner = max(finals, key=finals.count) if finals else None
    chosen = next((r for r in samples if winner and r.final == winner), samples[0])
    return Record(
        question=chosen.question,
        model=chosen.model,
        right=chosen.right,
        error="",
        seconds=max(r.seconds for r in samples),
        calls=sum(r.calls for r in samples),
        prompt_tokens=sum(r.prompt_tokens for r in samples),
        completion_tokens=sum(r.completion_tokens for r in samples),
        answer=chosen.answer,
        sample=len(samples),
        final=chosen.final,
    )


def answers(
    subject: Subject, questions: Sequence[Question], records: Sequence[Record]
) -> list[Record]:
    """The newest record of every question that was asked; of a baseline, its votes."""
    if subject.samples == 1:
        last = newest(records)
        return [r for q in questions if (r := last.get((subject.model, q.id))) is not None]
    usable, failed = _usable(records), _failed_samples(records)
    found = []
    for question in questions:
        key = subject.model, question.id
        samples = usable.get(key, [])[: subject.samples]
        if len(samples) == subject.samples:
            found.append(vote(samples))
        elif key in failed:
            found.append(failed[key])
    return found


def _failed_samples(records: Iterable[Record]) -> dict[tuple[str, str], Record]:
    """(base model, question) -> a sample that failed and was not repeated."""
    newest = {(r.model, r.question, r.sample): r for r in records if r.sample > 1}
    return {(r.model, r.question): r for r in newest.values() if r.error}


def left(
    subjects: Sequence[Subject], questions: Sequence[Question], records: Iterable[Record]
) -> list[tuple[Subject, Question]]:
    """The requests that are left, by question, so that an early stop leaves complete pairs."""
    done = {key for key, record in newest(records).items() if not record.error}
    return [(s, q) for q in questions for s in subjects if (s.model, q.id) not in done]


def expected_tokens(
    subject: Subject, question: Question, subjects: Sequence[Subject], records: Sequence[Record]
) -> int:
    """The estimated tokens of a request: the most that one of this model took so far.

    Before its first request: a multiple of a plain request.
    """
    if own := _most_tokens(subject.model, records):
        return own
    plain = next(
        (s for s in subjects if s.base_model == subject.base_model and not s.strategy), subject
    )
    text = sum(len(message["content"]) for message in question.messages) // _CHARACTERS_PER_TOKEN
    plain_tokens = _most_tokens(plain.model, records) or _FIRST_ANSWER_TOKENS + text
    return plain_tokens * (_STRATEGY_FACTOR if subject.strategy else 1)


def _most_tokens(model: str, records: Sequence[Record]) -> int:
    return max((r.tokens for r in records if r.model == model), default=0)


@dataclass(frozen=True)
class Prices:
    """The price of a million tokens, in any currency."""

    prompt: float
    completion: float

    def cost(self, records: Iterable[Record]) -> float:
        return (
            sum(
                r.prompt_tokens * self.prompt + r.completion_tokens * self.completion
                for r in records
            )
            / 1e6
        )

    def expected(self, tokens: float, prompt_share: float) -> float:
        """The cost of a number of tokens, of which a share is in the prompt."""
        rate = prompt_share * self.prompt + (1 - prompt_share) * self.completion
        return tokens * rate / 1e6

    def __str__(self) -> str:
        return f"{self.prompt:g} a million prompt tokens, {self.completion:g} completion tokens"


#: The prices of all base models, or those of each; None where none are known.
AnyPrices = Prices | Mapping[str, Prices] | None


def price_of(prices: AnyPrices, base_model: str) -> Prices | None:
    """The prices of one base model, if they are known."""
    return prices.get(base_model) if isinstance(prices, Mapping) else prices


def prompt_share(model: str, records: Iterable[Record]) -> float:
    """The share of prompt tokens in what a model took so far; a half before its first request."""
    own = [r for r in records if r.model == model]
    tokens = sum(r.tokens for r in own)
    return sum(r.prompt_tokens for r in own) / tokens if tokens else 0.5


@dataclass(frozen=True)
class Beside:
    """A model compared with the plain one, on the questions that both answered.

    `gained`: right where the plain model was wrong; `lost`: the opposite. `p` is adjusted for the
    number of strategies. `difference` is the 95 % interval of the difference of the two shares,
    from -1 to 1. It contains 0 unless `p` is significant: the test is the stricter of the two.
    """

    pairs: int
    gained: int
    lost: int
    p: float
    difference: Interval
    verdict: Verdict


@dataclass(frozen=True)
class Row:
    """The results of one model.

    Tokens and calls count every request; seconds count the answered ones, and are None without any.
    `error` is that of the last failed request, or "". `judged`: answers whose effect the guard
    judged; `effective`: those with the whole or a part of it; `lost`: what kept the others from it.
    `beside_samples` compares with the plain model asked as often.
    """

    subject: Subject
    right: int
    answered: int
    failed: int
    error: str
    left_out: int
    interval: Interval
    calls: int
    prompt_tokens: int
    completion_tokens: int
    p50: float | None
    p95: float | None
    cost: float | None
    beside: Beside | None
    judged: int = 0
    effective: int = 0
    lost: dict[str, int] = field(default_factory=dict)
    beside_samples: Beside | None = None

    @property
    def tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens

    def as_dict(self) -> dict[str, Any]:
        """The item of the envelope: failed if a request failed, skipped without requests."""
        status = "fail" if self.failed else "pass" if self.answered else "skip"
        data = asdict(self)
        subject = data.pop("subject")
        del subject["model"]
        return {"id": self.subject.label, "status": status, "data": {**subject, **data}}


def rows(
    subjects: Sequence[Subject],
    questions: Sequence[Question],
    records: Sequence[Record],
    prices: AnyPrices,
) -> list[Row]:
    """One row per subject, in their order."""
    asked = {s: answers(s, questions, records) for s in subjects}
    beside = _all_beside(asked)
    beside_samples = _all_beside_samples(asked, records)
    found = []
    for s in subjects:
        # a baseline shares its samples with others
        own = asked[s] if s.samples > 1 else _of_model(s.model, records)
        row = _row(s, asked[s], own, len(questions), price_of(prices, s.base_model))
        found.append(replace(row, beside=beside.get(s), beside_samples=beside_samples.get(s)))
    return found


def _of_model(model: str, records: Iterable[Record]) -> list[Record]:
    return [r for r in records if r.model == model and r.sample == 1]


def _row(
    subject: Subject,
    asked: Sequence[Record],
    own: Sequence[Record],
    questions: int,
    prices: Prices | None,
) -> Row:
    """The figures of a subject. `asked`: its newest records; `own`: also those before them."""
    answered = [r for r in asked if not r.error]
    errors = [r.error for r in asked if r.error]
    seconds = [r.seconds for r in answered]
    hits = sum(r.right for r in answered)
    judged = [r for r in answered if r.effect]
    without = [r for r in judged if r.effect == "none"]
    return Row(
        subject=subject,
        right=hits,
        answered=len(answered),
        failed=len(errors),
        error=errors[-1] if errors else "",
        left_out=questions - len(answered) - len(errors),
        interval=stats.wilson(hits, len(answered)),
        calls=sum(r.calls for r in own),
        prompt_tokens=sum(r.prompt_tokens for r in own),
        completion_tokens=sum(r.completion_tokens for r in own),
        p50=stats.percentile(seconds, 50),
        p95=stats.percentile(seconds, 95),
        cost=prices.cost(own) if prices else None,
        beside=None,
        judged=len(judged),
        effective=len(judged) - len(without),
        lost=dict(Counter(code for r in without for code in r.codes).most_common()),
    )


_Asked = Mapping[Subject, Sequence[Record]]


def _all_beside(asked: _Asked) -> dict[Subject, Beside]:
    """Each strategy and each baseline beside its plain model that is asked once."""
    plain = {s.model: s for s in asked if not s.strategy and s.samples == 1}
    strategies = {s: p for s in asked if s.strategy and (p := plain.get(s.base_model))}
    repeated = {s: p for s in asked if s.samples > 1 and (p := plain.get(s.base_model))}
    return {**_compared(strategies, asked), **_compared(repeated, asked)}


def _all_beside_samples(asked: _Asked, records: Sequence[Record]) -> dict[Subject, Beside]:
    """Each strategy beside its plain model, asked as often."""
    repeated = {(s.base_model, s.samples): s for s in asked if s.samples > 1}
    rivals = {
        s: rival
        for s in asked
        if s.strategy and (rival := repeated.get((s.base_model, times(s, records))))
    }
    return _compared(rivals, asked)


def _compared(rivals: Mapping[Subject, Subject], asked: _Asked) -> dict[Subject, Beside]:
    """Subjects beside their rivals, with p-values that allow for all of these comparisons."""
    answered = {s: {r.question: r for r in of if not r.error} for s, of in asked.items()}
    counts = {s: _pairs(answered[s], answered[rival]) for s, rival in rivals.items()}
    adjusted = stats.holm([stats.mcnemar(gained, lost) for _, gained, lost, _ in counts.values()])
    return {s: _beside(pairs, p) for (s, pairs), p in zip(counts.items(), adjusted, strict=True)}


def _pairs(ours: dict[str, Record], plain: dict[str, Record]) -> tuple[int, int, int, int]:
    """How many questions both had right, only the strategy, only the plain model, neither."""
    kinds = [(ours[name].right, plain[name].right) for name in ours.keys() & plain.keys()]
    return tuple(
        kinds.count(kind) for kind in ((True, True), (True, False), (False, True), (False, False))
    )  # type: ignore[return-value]


def _beside(counts: tuple[int, int, int, int], p: float) -> Beside:
    _, gained, lost, _ = counts
    low, high = stats.difference(*counts)
    verdict: Verdict = "within noise"
    if not sum(counts):
        verdict = ""
    elif p < stats.LEVEL:
        verdict = "better" if gained > lost else "worse"
    else:
        low, high = min(low, 0.0), max(high, 0.0)
    return Beside(sum(counts), gained, lost, p, (low, high), verdict)


def verdict(rows: Sequence[Row]) -> str:
    """The outcome of a comparison in one line: the best strategy, or that none is better."""
    judged = [row for row in rows if row.subject.strategy and row.beside and row.beside.pairs]
    if not judged:
        return "No question has an answer of a strategy and of its plain model."
    better = [row for row in judged if row.beside and row.beside.verdict == "better"]
    worse = [row.subject.label for row in judged if row.beside and row.beside.verdict == "worse"]
    also = f" Worse: {', '.join(worse)}." if worse else ""
    pairs = max(row.beside.pairs for row in judged if row.beside)
    if not better:
        return (
            f"No strategy is better than the plain model beyond noise, on {pairs} questions.{also}"
        )
    best = max(better, key=lambda row: row.right / row.answered)
    plain = next(
        row
        for row in rows
        if row.subject.model == best.subject.base_model and row.subject.samples == 1
    )
    times = _times(best, plain)
    said = (
        f"{best.subject.label} is better than the plain model: {best.right} of {best.answered}"
        f" right, not {plain.right} of {plain.answered}{times}."
    )
    rival = best.beside_samples
    if rival and rival.pairs and rival.verdict != "better":
        said += " The plain model asked as often is as good, within noise."
    return f"{said}{also}"


def _times(row: Row, plain: Row) -> str:
    """How many times the tokens of the plain model a question takes, in words."""
    if not (plain.answered and plain.tokens and row.answered):
        return ""
    times = (row.tokens / row.answered) / (plain.tokens / plain.answered)
    return f", for {times:.1f} times the tokens"


def sentences(row: Row) -> list[str]:
    """A strategy's results as sentences: what it gained, whether that is noise, and what it lost.

    None for a plain model.
    """
    strategy, said = row.subject.strategy, list[str]()
    if not strategy:
        return said
    if row.beside is not None:
        tokens = f", {row.tokens / row.answered:.0f} tokens per question" if row.answered else ""
        said.append(f"{strategy}: {_against(row.beside, 'the plain model')}{tokens}")
    if row.beside_samples is not None:
        against = _against(row.beside_samples, "its majority")
        said.append(f"{strategy} against the plain model asked as often: {against}")
    return [*said, *([_effect(row)] if row.effective < row.judged else [])]


def _against(beside: Beside, rival: str) -> str:
    if not beside.pairs:
        return "no question has an answer of both"
    low, high = (f"{round(100 * end):+d}" if round(100 * end) else "0" for end in beside.difference)
    return (
        f"{beside.verdict}. Of {beside.pairs} questions, right on {beside.gained} that "
        f"{rival} had wrong, wrong on {beside.lost} that it had right: "
        f"p = {beside.p:.2g}, {low} to {high} percentage points at 95 %"
    )


def _effect(row: Row) -> str:
    lost = ", ".join(f"{code} {count}" for code, count in row.lost.items())
    return (
        f"{row.subject.strategy}: {row.effective} of {row.judged} answers with effect; the others "
        f"are no better than plain ones{f' ({lost})' if lost else ''}"
    )
