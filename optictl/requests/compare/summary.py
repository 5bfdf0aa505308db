"""The results of a comparison: each model's accuracy and cost, compared with the plain model. Pure.

A records file has one JSON object per line: first the header, then one record per request. An
interrupted comparison resumes from this file.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
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
#: Characters per token; a low value, so that estimates are rather too high.
_CHARACTERS_PER_TOKEN = 3

Verdict = Literal["better", "worse", "within noise", ""]


@dataclass(frozen=True)
class Subject:
    """A model in the comparison: a base model (`strategy` is ""), or a strategy on it.

    Base models are asked at LiteLLM, strategies at the service.
    """

    model: str
    strategy: str
    base_model: str


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

    `error`: why there is no answer, or "". `answer`: the text, if it is to be kept.
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

    @property
    def tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens

    def line(self) -> str:
        fields = asdict(self)
        if self.answer is None:
            del fields["answer"]
        return json.dumps(fields, ensure_ascii=False)


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
            records.append(Record(**json.loads(line)))
        except (ValueError, TypeError):
            raise RecordsError(f"line {number} is not a record") from None
    return header, records


def newest(records: Iterable[Record]) -> dict[tuple[str, str], Record]:
    """(model, question) -> its last record; a failed request may have been repeated."""
    return {(r.model, r.question): r for r in records}


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


@dataclass(frozen=True)
class Beside:
    """A strategy compared with the plain model, on the questions that both answered.

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
    `error` is that of the last failed request, or "".
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

    @property
    def tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens

    def as_dict(self) -> dict[str, Any]:
        """The item of the envelope: failed if a request failed, skipped without requests."""
        status = "fail" if self.failed else "pass" if self.answered else "skip"
        data = asdict(self)
        subject = data.pop("subject")
        return {"id": subject.pop("model"), "status": status, "data": {**subject, **data}}


def rows(
    subjects: Sequence[Subject],
    questions: Sequence[Question],
    records: Sequence[Record],
    prices: Prices | None,
) -> list[Row]:
    """One row per subject, in their order."""
    last = newest(records)
    # of each model the newest record of every question that was asked
    asked = {
        s.model: [r for q in questions if (r := last.get((s.model, q.id))) is not None]
        for s in subjects
    }
    beside = _all_beside(subjects, asked)
    rows = []
    for s in subjects:
        own = [r for r in records if r.model == s.model]
        answers = [r for r in asked[s.model] if not r.error]
        errors = [r.error for r in asked[s.model] if r.error]
        seconds = [r.seconds for r in answers]
        hits = sum(r.right for r in answers)
        rows.append(
            Row(
                subject=s,
                right=hits,
                answered=len(answers),
                failed=len(errors),
                error=errors[-1] if errors else "",
                left_out=len(questions) - len(answers) - len(errors),
                interval=stats.wilson(hits, len(answers)),
                calls=sum(r.calls for r in own),
                prompt_tokens=sum(r.prompt_tokens for r in own),
                completion_tokens=sum(r.completion_tokens for r in own),
                p50=stats.percentile(seconds, 50),
                p95=stats.percentile(seconds, 95),
                cost=prices.cost(own) if prices else None,
                beside=beside.get(s.model),
            )
        )
    return rows


def _all_beside(
    subjects: Sequence[Subject], asked: Mapping[str, Sequence[Record]]
) -> dict[str, Beside]:
    """Each strategy beside its plain model, with p-values that allow for all comparisons."""
    answers = {model: {r.question: r for r in of if not r.error} for model, of in asked.items()}
    counts = {}
    for s in subjects:
        plain = next((p for p in subjects if p.base_model == s.base_model and not p.strategy), None)
        if s.strategy and plain is not None:
            counts[s.model] = _pairs(answers[s.model], answers[plain.model])
    adjusted = stats.holm([stats.mcnemar(gained, lost) for _, gained, lost, _ in counts.values()])
    return {
        model: _beside(pairs, p) for (model, pairs), p in zip(counts.items(), adjusted, strict=True)
    }


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


def sentence(row: Row) -> str:
    """A strategy's result as a sentence: what it gained, and whether that is noise.

    "" for the plain model.
    """
    beside = row.beside
    if beside is None:
        return ""
    if not beside.pairs:
        return f"{row.subject.strategy}: no question has an answer of both models"
    low, high = (f"{round(100 * end):+d}" if round(100 * end) else "0" for end in beside.difference)
    tokens = f", {row.tokens / row.answered:.0f} tokens per question" if row.answered else ""
    return (
        f"{row.subject.strategy}: {beside.verdict}. Of {beside.pairs} questions, right on "
        f"{beside.gained} that the plain model had wrong, "
        f"wrong on {beside.lost} that it had right: "
        f"p = {beside.p:.2g}, {low} to {high} percentage points at 95 %{tokens}"
    )
