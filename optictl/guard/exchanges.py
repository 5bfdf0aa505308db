"""What a strategy asked the model, and what it got back: the facts that a judgement needs. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from . import thinking

#: What a message of a model may have beside its text, and what its choice may have.
_BESIDE = ("reasoning_content", "refusal")
_OF_CHOICE = ("logprobs",)


@dataclass(frozen=True)
class Sample:
    """A text of the model, as the strategy got it. `finish`: why it ended, "" if unknown.

    `id`: that of its completion. A cache answers with an id that was there before. `beside`: what
    the model sent with the text (`reasoning_content`, `refusal`, `logprobs`), as it is.
    """

    text: str
    finish: str = ""
    id: str = ""
    beside: Mapping[str, Any] = field(default_factory=dict, compare=False, repr=False)

    @property
    def is_empty(self) -> bool:
        """Whether nothing but thinking came."""
        return not thinking.without(self.text).strip()

    @property
    def is_refused(self) -> bool:
        """Whether the model refused to write it."""
        return self.is_empty and "refusal" in self.beside

    @property
    def is_truncated(self) -> bool:
        """Whether the token limit ended it."""
        return self.finish == "length"

    @property
    def is_filtered(self) -> bool:
        """Whether a content filter ended it."""
        return self.finish == "content_filter"


@dataclass
class Exchange:
    """A call of a strategy, with the calls that the guard added to it.

    `step`: the purpose (see `traces`). `asked`: the number of samples. `samples`: none if it
    failed. `calls`: the places of its upstream calls in the request. `cut`: the token limit ended
    it, and the strategy got the text all the same. `question`: tells equal questions apart from
    others. `refused`: the upstream refused the body. `limit`: the tokens that the strategy allowed
    for a text, 0 without a limit.
    """

    step: str
    asked: int = 1
    samples: Sequence[Sample] = ()
    calls: list[int] = field(default_factory=list)
    failed: bool = False
    cut: bool = False
    completion_tokens: int = 0
    question: int = 0
    refused: bool = False
    limit: int = 0

    @property
    def is_truncated(self) -> bool:
        """Whether the token limit ended a text of it."""
        return any(sample.is_truncated for sample in self.samples)


def samples_of(data: dict[str, Any]) -> list[Sample]:
    """The texts in a chat completion. A missing text is empty."""
    choices = data.get("choices")
    return [
        Sample(
            _text(choice),
            str(choice.get("finish_reason") or ""),
            str(data.get("id") or ""),
            _beside(choice),
        )
        for choice in (choices if isinstance(choices, list) else [])
        if isinstance(choice, dict)
    ]


def _text(choice: dict[str, Any]) -> str:
    message = choice.get("message")
    content = message.get("content") if isinstance(message, dict) else None
    return content if isinstance(content, str) else ""


def _beside(choice: dict[str, Any]) -> dict[str, Any]:
    message = choice.get("message")
    said = message if isinstance(message, dict) else {}
    found = {name: said.get(name) for name in _BESIDE if isinstance(said.get(name), str)}
    found |= {name: choice.get(name) for name in _OF_CHOICE}
    return {name: value for name, value in found.items() if value}


def usable(exchanges: Sequence[Exchange]) -> list[Sample]:
    """The samples with a text, in order."""
    return [sample for exchange in exchanges for sample in exchange.samples if not sample.is_empty]


@dataclass(frozen=True)
class Source:
    """The call that an answer comes from. `is_whole`: the answer is all of its text."""

    exchange: Exchange
    sample: Sample
    is_whole: bool

    @property
    def finish(self) -> str:
        """The finish_reason of the answer."""
        return "length" if self.exchange.cut else self.sample.finish or "stop"


def source_of(text: str, exchanges: Sequence[Exchange]) -> Source | None:
    """The call that an answer comes from. None if the strategy made it of several texts."""
    for exchange in reversed(exchanges):
        for sample in exchange.samples:
            is_whole = sample.text.strip() == text.strip()
            if is_whole or (len(exchanges) == 1 and text.strip() in sample.text):
                return Source(exchange, sample, is_whole)
    return None


#: More samples of one question than a run has.
_SAMPLES_OF_A_RUN = 1000


@dataclass
class Run:
    """One run of a strategy. A request for `n` answers has `n` of them.

    `place`: which of `runs`, from 0.
    `agreement`: the votes for the answer that won, and the number of samples; None without a vote.
    `originals`: text without thinking -> whole text. `called`: text -> the message with calls of
    tools for which it stands.
    """

    exchanges: list[Exchange] = field(default_factory=list)
    agreement: tuple[int, int] | None = None
    originals: dict[str, str] = field(default_factory=dict)
    called: dict[str, dict[str, Any]] = field(default_factory=dict)
    place: int = 0
    runs: int = 1

    @property
    def first_sample(self) -> int:
        """The number of its first sample of a question: another run has other ones."""
        return self.place * _SAMPLES_OF_A_RUN

    def samples_of(self, question: int) -> int:
        """How many samples of a question there are so far."""
        return sum(one.asked for one in self.exchanges if one.question == question)
