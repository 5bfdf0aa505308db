"""The answers in the result of a strategy, and what their calls tell about them. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from . import parameters, thinking, tool_calls
from .completions import Completion
from .error_texts import is_error_text
from .exchanges import Exchange, Run, source_of, usable


@dataclass(frozen=True)
class Answer:
    """An answer for the client.

    `text`: None if the model only refused, or only called tools. `beside`: see `Sample`; also
    `tool_calls`.
    """

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


def _answer(text: Any, run: Run, stops: Sequence[str]) -> Answer | None:
    """An answer with what its call tells about it. None if it is no answer.

    A text of the model may quote one of OptiLLM's error texts.
    """
    if not isinstance(text, str) or not text.strip():
        return None
    # the strategy may have got it without its thinking
    source = source_of(thinking.without(text), run.exchanges)
    if (source is None or not source.is_whole) and is_error_text(text):
        return None
    finish, beside = (source.finish, dict(source.sample.beside)) if source else ("stop", {})
    called = run.called.get(text.strip())
    if called is not None:
        calls = {"tool_calls": tool_calls.of(called)}
        return Answer(called.get("content"), finish, {**beside, **calls})
    sent = parameters.stopped(text, stops)
    if sent != text:
        finish = "stop"
    if sent != text or not (source and source.is_whole):
        beside.pop("logprobs", None)  # the probabilities of tokens belong to the whole text
    return Answer(sent, finish, beside)


def _is_final(text: Any, run: Run) -> bool:
    finals = usable([one for one in run.exchanges if one.step == "final"])
    said = str(text).strip()
    return said in run.called or said in {sample.text.strip() for sample in finals}


def read(
    result: Any, run: Run, *, stops: Sequence[str] = (), final_only: bool = False
) -> list[Answer | None]:
    """The answers in the result of a run. None for each text that is no answer.

    Args:
        stops: texts that end an answer.
        final_only: only a text of a last call is an answer.
    """
    texts = [_delivered(text, run) for text in _texts(result)]
    answers = [
        None if final_only and not _is_final(text, run) else _answer(text, run, stops)
        for text in texts
    ]
    refused = None if any(answers) else _refusal(run.exchanges)
    return [refused] if refused is not None else answers
