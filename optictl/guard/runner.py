"""Runs a strategy of OptiLLM for a request, and reads its answers."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from types import ModuleType
from typing import Any

from . import accounting, judgement, parameters, thinking
from .completions import Completion
from .error_texts import is_error_text
from .exchanges import Run, finish_of, usable
from .request_schema import Body
from .threads import Threads, side_by_side
from .upstream import Upstream


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


def _finish(text: str, run: Run) -> str:
    """The finish_reason of an answer, which the strategy may have got without its thinking."""
    return finish_of(thinking.without(text), run.exchanges)


def _is_answer(text: Any) -> bool:
    return isinstance(text, str) and bool(text.strip()) and not is_error_text(text)


def _has_format(request: accounting.Request, run: Run, text: str) -> bool:
    """Whether an answer has the format that the client asked for, if it did.

    A candidate of `moa` in the place of an empty final text has not.
    """
    has_none = request.strategy != "moa" or "response_format" not in request.parameters.answering
    if has_none or text.strip() in run.called:
        return True
    finals = usable([one for one in run.exchanges if one.step == "final"])
    return text.strip() in {sample.text.strip() for sample in finals}


def _entered(request: accounting.Request, run: Run, text: str) -> str:
    """An answer as the client gets it. What belongs to it is entered in the request."""
    called = run.called.get(text.strip())
    sent = text if called else parameters.stopped(text, request.parameters.stops)
    request.finishes.append(_finish(text, run) if sent == text else "stop")
    request.called.append(called)
    return sent


@dataclass(frozen=True)
class Runner:
    """The loaded OptiLLM. `server`: its module."""

    server: ModuleType
    upstream: Upstream
    threads: Threads

    def run(self, request: accounting.Request, body: Body) -> list[str] | None:
        """The answers of the strategy. None when it made no valid answer.

        Blocks for as long as the strategy takes. `n` answers are `n` runs of the strategy. The
        judgement of the request is entered afterwards.
        """
        request.max_tokens = body.token_limits().get("max_tokens", 0)
        count = 1 if request.strategy == "none" else body.n
        runs = [Run(place=place, runs=count) for place in range(count)]
        work = [partial(self._answers, request, body, run) for run in runs]
        try:
            if count > 1 and request.parallel_calls > 1:
                answers = side_by_side(self.threads, work, request.parallel_calls)
            else:
                answers = [run() for run in work]
        finally:
            request.finish()
            begun = [run for run in runs if run.exchanges]
            request.judgement = judgement.judge(request.strategy, begun)
        each = [(run, text) for run, found in zip(runs, answers, strict=True) for text in found]
        is_answered = all(
            _is_answer(text) and _has_format(request, run, text) for run, text in each
        )
        return (
            [_entered(request, run, text) for run, text in each] if each and is_answered else None
        )

    def _answers(self, request: accounting.Request, body: Body, run: Run) -> list[Any]:
        """The answers of one run."""
        said = request.conversation
        configuration = request.options.configuration(request.parameters.configuration())
        is_built_in = request.strategy in self.server.known_approaches
        client = self.upstream.client(request, run, plain=is_built_in)
        with accounting.attributed_to(request, run):
            result, _tokens = self.server.execute_single_approach(
                request.strategy,
                said.system,
                said.query,
                client,
                request.base_model,
                {"stream": False, "n": body.n, **body.token_limits(), **configuration},
            )
        return [_delivered(text, run) for text in _texts(result)]
