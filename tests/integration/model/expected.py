"""What the judgement of a request must be, from the texts of its trace and how each text ended.

It is written without the guard's own rules, for the default configuration: every fix is on.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

#: Codes with which the result is no better than that of one plain call.
DEGRADED = {
    "candidates_missing",
    "candidates_identical",
    "critique_truncated",
    "critique_empty",
    "final_truncated",
    "final_empty",
    "ratings_unreadable",
    "ratings_equal",
    "no_agreement",
    "samples_empty",
    "observations_empty",
    "solution_truncated",
    "reflection_missing",
}


@dataclass(frozen=True)
class Text:
    """A text of the model. `truncated`: the token limit ended it."""

    text: str
    truncated: bool

    @property
    def is_empty(self) -> bool:
        return not self.text.strip()

    @property
    def words(self) -> str:
        """The text to compare with others: without differences of white space."""
        return " ".join(self.text.split())


@dataclass(frozen=True)
class Step:
    """An upstream call: its purpose, its texts, and its thread.

    `rated`: the candidate that it is about. `is_first`: the strategy made it, not a fix.
    """

    purpose: str
    texts: Sequence[Text]
    thread: int = 0
    rated: str = ""
    is_first: bool = True


@dataclass(frozen=True)
class Facts:
    """What the guard says beside the codes. `ratings`: None for one that it could not read."""

    ratings: Sequence[float | None] = ()
    agreement: int = 0


def texts_of(steps: Sequence[Step], purpose: str) -> list[Text]:
    return [text for step in steps if step.purpose == purpose for text in step.texts]


def samples(strategy: str, steps: Sequence[Step]) -> str:
    """Distinct samples of those asked for: `2/3`; "" where a strategy has none."""
    asked = {"moa": 3, "bon": 3, "self_consistency": 5}.get(strategy)
    distinct = {text.words for text in texts_of(steps, "candidate") if not text.is_empty}
    return f"{len(distinct)}/{asked}" if asked else ""


def codes(strategy: str, steps: Sequence[Step], facts: Facts) -> set[str]:
    """The codes of a request, with the ratings and the votes that the guard reports."""
    return set(_RULES[strategy](steps, facts))


def effect(found: set[str]) -> str:
    """The level that follows from the codes."""
    return "none" if found & DEGRADED else "weak" if found else "full"


def _candidates(steps: Sequence[Step]) -> Iterator[str]:
    usable = [text for text in texts_of(steps, "candidate") if not text.is_empty]
    distinct = {text.words for text in usable}
    if len(usable) < 3:
        yield "candidates_missing"
    if len(usable) > 1 and len(distinct) == 1:
        yield "candidates_identical"
    if 1 < len(distinct) < len(usable):
        yield "candidates_repeated"
    if any(text.truncated for text in usable):
        yield "candidates_truncated"


def _inner(texts: Sequence[Text], cut: str, lost: str) -> Iterator[str]:
    """A step of which a part is used."""
    for text in texts:
        if text.is_empty:
            yield lost
        elif text.truncated:
            yield cut


def _final(steps: Sequence[Step]) -> Iterator[str]:
    for text in texts_of(steps, "final"):
        lost = "final_truncated" if text.truncated else "final_empty"
        yield from _inner([text], "final_cut", lost)


def _moa(steps: Sequence[Step], _facts: Facts) -> Iterator[str]:
    yield from _candidates(steps)
    for text in texts_of(steps, "critique"):
        lost = "critique_truncated" if text.truncated else "critique_empty"
        yield from _inner([text], "critique_cut", lost)
    yield from _final(steps)


def _bon(steps: Sequence[Step], facts: Facts) -> Iterator[str]:
    yield from _candidates(steps)
    readable = {rating for rating in facts.ratings if rating is not None}
    if None in facts.ratings:
        yield "ratings_partial" if len(readable) > 1 else "ratings_unreadable"
    elif len(facts.ratings) > 1 and len(set(facts.ratings)) == 1:
        yield "ratings_equal"


def _self_consistency(steps: Sequence[Step], facts: Facts) -> Iterator[str]:
    texts = texts_of(steps, "candidate")
    usable = [text for text in texts if not text.is_empty]
    if len(usable) < len(texts):
        yield "samples_empty"
    if any(text.truncated for text in usable):
        yield "candidates_truncated"
    # short answers may be equal by themselves
    if len({text.words for text in usable}) == 1 < len(usable) and len(usable[0].words) >= 80:
        yield "candidates_identical"
    if facts.agreement < 2:
        yield "no_agreement"


def _plansearch(steps: Sequence[Step], _facts: Facts) -> Iterator[str]:
    for purpose in ("observations", "derived observations"):
        yield from _inner(texts_of(steps, purpose), "observations_cut", "observations_empty")
    yield from _inner(texts_of(steps, "solution"), "solution_cut", "solution_truncated")
    yield from _final(steps)


_RULES: dict[str, Callable[[Sequence[Step], Facts], Iterator[str]]] = {
    "moa": _moa,
    "bon": _bon,
    "self_consistency": _self_consistency,
    "plansearch": _plansearch,
}


def rating_groups(steps: Sequence[Step]) -> list[list[Text]]:
    """The texts about each candidate's rating, in the order of the candidates.

    The first one, one after a second request, and one that a schema asked for.
    """
    found: list[tuple[str, list[Text]]] = []
    newest: dict[int, list[Text]] = {}
    for step in steps:
        if step.purpose == "rating" and step.is_first:
            newest[step.thread] = []
            found.append((step.rated, newest[step.thread]))
        if step.purpose == "rating":
            newest[step.thread] += step.texts
    order = [text.text.strip() for text in texts_of(steps, "candidate")]
    return [texts for _, texts in sorted(found, key=lambda one: order.index(one[0]))]


_BARE = re.compile(r"\s*\d+(?:\.\d+)?\s*")
_NUMBER = re.compile(r"\d|\b(?:zero|one|two|three|four|five|six|seven|eight|nine|ten)\b", re.I)


def allows(texts: Sequence[Text], rating: float | None) -> bool:
    """Whether these texts of a model can be read as this rating: the first one, then the others."""
    first = texts[0]
    if _BARE.fullmatch(first.text) and not first.truncated:
        return rating == float(first.text)
    if rating is None:
        bare = [float(text.text) for text in texts if _BARE.fullmatch(text.text)]
        return not any(value <= 10 for value in bare)
    return 0 <= rating <= 10 and any(_NUMBER.search(text.text) for text in texts)


def answers(strategy: str, steps: Sequence[Step], facts: Facts) -> set[str]:
    """The texts that may be the answer."""
    candidates = [text for text in texts_of(steps, "candidate") if not text.is_empty]
    if strategy == "bon":
        values = [rating or 0.0 for rating in facts.ratings]
        return {candidates[values.index(max(values))].text} if values else set()
    if strategy == "self_consistency":
        return {text.text for text in candidates}
    final = [text for text in texts_of(steps, "final") if not text.is_empty]
    if final or strategy == "plansearch":
        return {text.text for text in final}
    return {candidates[0].text} if candidates else set()


def may_fail(strategy: str, steps: Sequence[Step]) -> bool:
    """Whether an error in place of an answer is right. OptiLLM 0.4.0 votes on whole texts only."""
    last = {"plansearch": "final"}.get(strategy, "candidate")
    texts = [text for text in texts_of(steps, last) if not text.is_empty]
    ignores_cut = strategy == "self_consistency"
    return all(text.truncated for text in texts) if ignores_cut else not texts
