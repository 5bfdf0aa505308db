"""Whether a strategy had its effect: what its calls show. Pure.

A strategy of OptiLLM that gets nothing usable from a step goes on without it and answers all the
same. Source of each case: moa.py, bon.py, self_consistency.py, plansearch.py, reread.py and
cot_reflection.py of OptiLLM 0.3.12 to 0.4.0.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from . import ratings, thinking
from .exchanges import Exchange, Run, Sample, usable

#: `degraded`: the result is no better than that of one plain call. `weak`: a part is lost.
Level = Literal["degraded", "weak"]
Effect = Literal["full", "weak", "none", ""]


@dataclass(frozen=True)
class Code:
    """What a code means, and what helps: each a sentence without its full stop."""

    level: Level
    what: str
    fix: str


_MORE_TOKENS = (
    "send a larger max_tokens, or raise effect.answer_tokens for clients without one: a reasoning "
    "model needs room to think"
)
_OTHER_MODEL = "use a base model that follows instructions better, or another strategy"
_VARIETY = (
    "let LiteLLM pass temperature on to the model, and keep effect.caches on: a cache repeats texts"
)
_CALLS = (
    "find the calls that failed with optictl trace MODEL PROMPT, "
    "and raise the limits of the upstream"
)
_CRITIQUE = (
    "keep effect.budgets on and raise effect.critique_tokens in optictl.yaml, then optictl install"
)

#: Code -> what it means. Scripts may rely on the codes.
CODES: dict[str, Code] = {
    "candidates_missing": Code(
        "degraded",
        "The upstream returned fewer usable candidates than the strategy asked for",
        "keep effect.samples on: the service then asks for the missing ones",
    ),
    "candidates_identical": Code(
        "degraded",
        "All candidates are the same text, so there was nothing to choose from",
        _VARIETY,
    ),
    "critique_truncated": Code(
        "degraded",
        "The critique reached its token limit, and OptiLLM put a fixed sentence in its place",
        _CRITIQUE,
    ),
    "critique_empty": Code(
        "degraded",
        "The critique was empty, and OptiLLM put a fixed sentence in its place",
        _CRITIQUE,
    ),
    "final_truncated": Code(
        "degraded",
        "The final answer reached its token limit, and OptiLLM did not use it",
        _MORE_TOKENS,
    ),
    "final_empty": Code(
        "degraded",
        "The final answer was empty, and another text took its place",
        _MORE_TOKENS,
    ),
    "ratings_unreadable": Code(
        "degraded",
        "Ratings held no number that can be read, so they counted as 0",
        f"keep effect.ratings on; if it is, {_OTHER_MODEL}",
    ),
    "ratings_equal": Code(
        "degraded",
        "All ratings are equal, so the first candidate won",
        _OTHER_MODEL,
    ),
    "no_agreement": Code(
        "degraded",
        "No two samples agree, so the first sample won",
        "keep effect.votes on, and ask for a short final answer; free text needs another strategy",
    ),
    "samples_empty": Code(
        "degraded",
        "A sample was empty, so fewer of them could vote",
        _MORE_TOKENS,
    ),
    "observations_empty": Code(
        "degraded",
        "Observations were empty or reached their token limit, and the plan was made without them",
        _MORE_TOKENS,
    ),
    "solution_truncated": Code(
        "degraded",
        "The solution was empty or reached its token limit, and an error text took its place",
        _MORE_TOKENS,
    ),
    "reflection_missing": Code(
        "degraded",
        "The answer holds no reflection: the model did not keep to the form that was asked for",
        _OTHER_MODEL,
    ),
    "candidates_repeated": Code(
        "weak",
        "Some candidates are the same text",
        _VARIETY,
    ),
    "ratings_partial": Code(
        "weak",
        "A rating held no number that can be read, so its candidate could not win",
        f"keep effect.ratings on; if it is, {_OTHER_MODEL}",
    ),
    "candidates_truncated": Code(
        "weak",
        "Some candidates reached the token limit",
        _MORE_TOKENS,
    ),
    "critique_cut": Code(
        "weak",
        "The critique reached its token limit, and was used as far as it goes",
        _CRITIQUE,
    ),
    "observations_cut": Code(
        "weak",
        "The observations reached the token limit, and were used as far as they go",
        _MORE_TOKENS,
    ),
    "solution_cut": Code(
        "weak",
        "The solution reached the token limit, and was used as far as it goes",
        _MORE_TOKENS,
    ),
    "final_cut": Code(
        "weak",
        "The final answer reached the token limit, and was returned as far as it goes",
        _MORE_TOKENS,
    ),
    "step_failed": Code(
        "weak",
        "An upstream call failed, and the strategy continued without it",
        _CALLS,
    ),
    "step_truncated": Code(
        "weak",
        "The answer to an upstream call reached the token limit",
        _MORE_TOKENS,
    ),
    "step_empty": Code(
        "weak",
        "The answer to an upstream call was empty",
        _MORE_TOKENS,
    ),
    "output_missing": Code(
        "weak",
        "The answer has no output section, so the client got the whole text",
        _OTHER_MODEL,
    ),
}
_ORDER = {code: place for place, code in enumerate(CODES)}


@dataclass(frozen=True)
class Finding:
    """A code with the step that it concerns. `calls`: the places of the calls in the request."""

    code: str
    step: str
    calls: tuple[int, ...] = ()


@dataclass(frozen=True)
class Judgement:
    """The findings about a request, and facts for people.

    `samples`: distinct, asked. `ratings`: as they were read, None for an unreadable one.
    `agreement`: votes, samples. `evidence`: a clause for each fact, without any content.
    """

    findings: tuple[Finding, ...] = ()
    samples: tuple[int, int] | None = None
    ratings: tuple[float | None, ...] = ()
    agreement: tuple[int, int] | None = None
    evidence: tuple[str, ...] = ()

    @property
    def codes(self) -> list[str]:
        """The codes, each once, the degraded ones first."""
        return sorted({finding.code for finding in self.findings}, key=_ORDER.__getitem__)

    @property
    def effect(self) -> Effect:
        """`none` where the result is no better than one plain call."""
        levels = {CODES[finding.code].level for finding in self.findings}
        return "none" if "degraded" in levels else "weak" if levels else "full"


@dataclass
class _Notes:
    """What is found while a run is judged."""

    run: Run
    findings: list[Finding] = field(default_factory=list)
    samples: tuple[int, int] | None = None
    ratings: tuple[float | None, ...] = ()
    evidence: list[str] = field(default_factory=list)

    def found(self, code: str, step: str, about: Iterable[Exchange] = ()) -> None:
        calls = tuple(call for exchange in about for call in exchange.calls)
        self.findings.append(Finding(code, step, calls))

    def of(self, *steps: str) -> list[Exchange]:
        return [exchange for exchange in self.run.exchanges if exchange.step in steps]


def judge(strategy: str, runs: Sequence[Run]) -> Judgement | None:
    """What the runs of a request show. None where nothing can be judged."""
    if strategy == "none" or not any(run.exchanges for run in runs):
        return None
    each = [_judged(_JUDGES.get(strategy, _any), run) for run in runs]
    if len(each) == 1:
        return each[0]
    worst = max(each, key=lambda one: (one.effect == "none", len(one.findings)))
    return Judgement(
        tuple(finding for one in each for finding in one.findings),
        worst.samples,
        worst.ratings,
        worst.agreement,
        (f"{len(each)} runs", *worst.evidence),
    )


def _judged(rules: Callable[[_Notes], None], run: Run) -> Judgement:
    notes = _Notes(run)
    failed = [exchange for exchange in run.exchanges if exchange.failed]
    for exchange in failed:
        notes.found("step_failed", exchange.step, [exchange])
    rules(notes)
    return Judgement(
        tuple(notes.findings), notes.samples, notes.ratings, run.agreement, tuple(notes.evidence)
    )


def _spoken(sample: Sample) -> str:
    """The text of a sample, to compare it with others."""
    return thinking.without(sample.text).strip()


def _candidates(notes: _Notes) -> list[Sample]:
    """The usable candidates of `moa` and `bon`, judged."""
    exchanges = notes.of("candidate")
    good = usable(exchanges)
    asked = max((exchange.asked for exchange in exchanges), default=0)
    distinct = len({_spoken(sample) for sample in good})
    notes.samples = distinct, asked
    notes.evidence.append(f"{distinct} of {asked} distinct candidates")
    if len(good) < asked:
        notes.found("candidates_missing", "candidate", exchanges)
    if len(good) > 1 and distinct < len(good):
        code = "candidates_identical" if distinct == 1 else "candidates_repeated"
        notes.found(code, "candidate", exchanges)
    if any(sample.is_truncated for sample in good):
        notes.found(
            "candidates_truncated", "candidate", [one for one in exchanges if one.is_truncated]
        )
    return good


def _moa(notes: _Notes) -> None:
    _candidates(notes)
    for exchange in notes.of("critique"):
        _critique(notes, exchange)
    _final(notes, "final written from them")


def _final(notes: _Notes, evidence: str) -> None:
    """The last call of a strategy that throws a truncated text away."""
    for exchange in notes.of("final"):
        if exchange.cut:
            notes.found("final_cut", "final", [exchange])
        elif exchange.is_truncated:
            notes.found("final_truncated", "final", [exchange])
        elif not usable([exchange]):
            notes.found("final_empty", "final", [exchange])
        if usable([exchange]) and not exchange.is_truncated:
            notes.evidence.append(evidence)


def _critique(notes: _Notes, exchange: Exchange) -> None:
    if exchange.cut:
        notes.found("critique_cut", "critique", [exchange])
    elif exchange.is_truncated:
        notes.found("critique_truncated", "critique", [exchange])
    elif not usable([exchange]):
        notes.found("critique_empty", "critique", [exchange])
    notes.evidence.append(f"critique {exchange.completion_tokens} tokens")


def _bon(notes: _Notes) -> None:
    good, rated = _candidates(notes), notes.of("rating")
    notes.ratings = tuple(map(_rating, rated))
    readable = [value for value in notes.ratings if value is not None]
    shown = ", ".join("none" if value is None else f"{value:g}" for value in notes.ratings)
    notes.evidence.append(f"ratings {shown or 'none'}")
    if len(readable) < len(rated):
        unread = [one for one, value in zip(rated, notes.ratings, strict=True) if value is None]
        # an unreadable rating counts as 0: of the others one still wins by its rating
        is_part = len(set(readable)) > 1
        notes.found("ratings_partial" if is_part else "ratings_unreadable", "rating", unread)
    if len(good) > 1 and len(readable) == len(rated) > 1 and len(set(readable)) == 1:
        notes.found("ratings_equal", "rating", rated)


def _rating(exchange: Exchange) -> float | None:
    """The rating as `bon` reads it: a text that is a number, and was not ended by the limit."""
    if exchange.is_truncated or not exchange.samples:
        return None
    text = exchange.samples[0].text
    return float(text) if ratings.is_bare(text) else None


def _self_consistency(notes: _Notes) -> None:
    exchanges = notes.of("candidate")
    good, asked = usable(exchanges), len(exchanges)
    notes.samples = len({_spoken(sample) for sample in good}), asked
    if len(good) < asked:
        empty = [one for one in exchanges if len(usable([one])) < one.asked]
        notes.found("samples_empty", "candidate", empty)
    if any(sample.is_truncated for sample in good):
        notes.found(
            "candidates_truncated", "candidate", [one for one in exchanges if one.is_truncated]
        )
    if _are_copies(exchanges):
        notes.found("candidates_identical", "candidate", exchanges)
    votes = notes.run.agreement
    if votes is not None:
        notes.evidence.append(f"{votes[0]} of {votes[1]} samples agree")
        if votes[0] < 2 and asked > 1:
            notes.found("no_agreement", "vote", exchanges)


def _plansearch(notes: _Notes) -> None:
    for step in ("observations", "derived observations"):
        for exchange in notes.of(step):
            if exchange.cut:
                notes.found("observations_cut", step, [exchange])
            elif exchange.is_truncated or not usable([exchange]):
                notes.found("observations_empty", step, [exchange])
            notes.evidence.append(f"{step} {exchange.completion_tokens} tokens")
    for exchange in notes.of("solution"):
        if exchange.cut:
            notes.found("solution_cut", "solution", [exchange])
        elif exchange.is_truncated or not usable([exchange]):
            notes.found("solution_truncated", "solution", [exchange])
        notes.evidence.append(f"plan {exchange.completion_tokens} tokens")
    _final(notes, "program written from the plan")


def _re2(notes: _Notes) -> None:
    exchanges = notes.of("final")
    if any(exchange.is_truncated for exchange in exchanges):
        notes.found("final_cut", "final", [one for one in exchanges if one.is_truncated])
    if exchanges and not usable(exchanges):
        notes.found("final_empty", "final", exchanges)
    notes.evidence.append("the question asked twice in one call")


def _cot_reflection(notes: _Notes) -> None:
    exchanges = notes.of("final")
    for exchange in exchanges:
        text = thinking.without(exchange.samples[0].text) if exchange.samples else ""
        if not text.strip():
            notes.found("final_empty", "final", [exchange])
            continue
        if exchange.is_truncated:
            code = "final_cut" if "<output>" in text else "final_truncated"
            notes.found(code, "final", [exchange])
        elif "<output>" not in text:
            notes.found("output_missing", "final", [exchange])
        if "<reflection>" not in text:
            notes.found("reflection_missing", "final", [exchange])
        else:
            notes.evidence.append("thinking and reflection before the output")


def _any(notes: _Notes) -> None:
    """Every other strategy: what its calls show without knowledge of its steps."""
    exchanges = [exchange for exchange in notes.run.exchanges if not exchange.failed]
    for exchange in exchanges:
        if any(sample.is_empty for sample in exchange.samples) or not exchange.samples:
            notes.found("step_empty", exchange.step, [exchange])
        if exchange.is_truncated:
            notes.found("step_truncated", exchange.step, [exchange])
    by_question: dict[int, list[Exchange]] = {}
    for exchange in exchanges:
        by_question.setdefault(exchange.question, []).append(exchange)
    for same in filter(_are_copies, by_question.values()):
        notes.found("candidates_identical", same[0].step, same)
    count = sum(len(exchange.samples) for exchange in exchanges)
    notes.evidence.append(f"{count} answers in {len(exchanges)} calls")


#: Equal texts with this many characters are no agreement of a model, but one sample several times.
_LONG_TEXT = 80


def _are_copies(exchanges: Sequence[Exchange]) -> bool:
    """Whether the answers to one question are one sample several times.

    Short answers of a model may well be equal. Copies are long, or a cache sent them: then
    completions of different calls have one id.
    """
    good = usable(exchanges)
    texts = {_spoken(sample) for sample in good}
    if len(good) < 2 or len(texts) > 1:
        return False
    ids = {sample.id for sample in good}
    is_cached = len(ids) == 1 and "" not in ids and len(exchanges) > 1
    return is_cached or len(texts.pop()) >= _LONG_TEXT


_JUDGES: dict[str, Callable[[_Notes], None]] = {
    "moa": _moa,
    "bon": _bon,
    "self_consistency": _self_consistency,
    "plansearch": _plansearch,
    "re2": _re2,
    "cot_reflection": _cot_reflection,
}
