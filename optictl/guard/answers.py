"""The answers in the result of a strategy, and what their calls tell about them. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from . import thinking
from .completions import Completion
from .error_texts import is_error_text
from .exchanges import Exchange, Run, source_of, usable


@dataclass(frozen=True)
class Answer:
    """An answer for the client. `text`: None if the model only refused. `beside`: see `Sample`."""

    text: str | None
    finish: str = "stop"
    beside: Mapping[str, Any] = field(default_factory=dict)


def _refusal(exchanges: Sequence[Exchange]) -> Answer | None:
    """The refusal of a model that wrote no text at all. None without one."""
    if usable(exchanges):
        return None
    samples = [sample for exchange in exchanges for sample in exchange.samples]
    refused = [sample for sample in samples if sample.is_refused]
    return Answer(None, refused[-1].finish or "stop", refused[-1].beside) if refused else None


def _texts(result: Any) -> list[Any]:
    """The answers in the result of a strategy: a text, a list of texts or a completion."""
    if isinstance(result, Completion):
        result = result.model_dump()
    if isinstance(result, dict):
        try:
            return [choice["message"]["content"] for choice in result["choices"]]
        except (KeyError, TypeError):
            return []
    return list(result) if isinstance(result, list | tuple) else [result]


def _delivered(text: Any, run: Run) -> Any:
    """An answer as the model wrote it: with its thinking, and the white space around it.

    `moa` sends an empty final text on, although it has candidates. The first one takes its place,
    as OptiLLM does for a text that is missing.
    """
    if not isinstance(text, str):
        return text
    steps = {exchange.step for exchange in run.exchanges}
    if not text.strip() and {"candidate", "critique", "final"} <= steps:
        good = usable([one for one in run.exchanges if one.step == "candidate"])
        text = good[0].text if good else text
    if text.strip() in run.originals:
        return run.originals[text.strip()]
    samples = (one for exchange in reversed(run.exchanges) for one in exchange.samples)
    return next((one.text for one in samples if one.text.strip() == text.strip()), text)


def _answer(text: Any, run: Run) -> Answer | None:
    """An answer with what its call tells about it. None if it is no answer.

    A text of the model may quote one of OptiLLM's error texts.
    """
    if not isinstance(text, str) or not text.strip():
        return None
    # the strategy may have got it without its thinking
    source = source_of(thinking.without(text), run.exchanges)
    if source is None:
        return None if is_error_text(text) else Answer(text)
    if not source.is_whole and is_error_text(text):
        return None
    beside = source.sample.beside
    if not source.is_whole:  # the probabilities of tokens belong to the whole text
        beside = {name: value for name, value in beside.items() if name != "logprobs"}
    return Answer(text, source.finish, beside)


def read(result: Any, run: Run) -> list[Answer | None]:
    """The answers in the result of a run. None for each text that is no answer."""
    answers = [_answer(_delivered(text, run), run) for text in _texts(result)]
    refused = None if any(answers) else _refusal(run.exchanges)
    return [refused] if refused is not None else answers
