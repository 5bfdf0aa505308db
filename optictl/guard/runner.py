"""Runs a strategy of OptiLLM for a request, and reads its answers."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from types import ModuleType

from . import accounting, answers, judgement, limited
from .answers import Answer
from .exchanges import Run
from .request_schema import Body
from .threads import Threads, side_by_side
from .upstream import Upstream


@dataclass(frozen=True)
class Runner:
    """The loaded OptiLLM. `server`: its module."""

    server: ModuleType
    upstream: Upstream
    threads: Threads

    def run(self, request: accounting.Request, body: Body) -> list[Answer] | None:
        """The answers of the strategy. None when it made no valid answer.

        Blocks for as long as the strategy takes. `n` answers are `n` runs of the strategy; those
        that have ended are entered in the request. Its judgement is entered afterwards.
        """
        request.max_tokens = body.token_limits().get("max_tokens", 0)
        count = 1 if request.strategy == "none" else body.n
        runs = [Run(place=place, runs=count) for place in range(count)]
        work = [partial(self._answers, request, body, run) for run in runs]
        try:
            if count > 1 and request.parallel_calls > 1:
                found = side_by_side(self.threads, work, request.parallel_calls)
            else:
                found = [run() for run in work]
        finally:
            request.finish()
            begun = [run for run in runs if run.exchanges]
            request.judgement = judgement.judge(request.strategy, begun)
            exchanges = [exchange for run in begun for exchange in run.exchanges]
            if not request.max_tokens and limited.has_cut(exchanges, request.answer_tokens):
                request.limited_by.append(limited.ANSWER_TOKENS)
        valid = [answer for of_run in found for answer in of_run if answer is not None]
        return valid if valid and len(valid) == sum(map(len, found)) else None

    def _answers(self, request: accounting.Request, body: Body, run: Run) -> list[Answer | None]:
        """The answers of one run. None for each text that is no answer."""
        said = request.conversation
        configuration = request.options.configuration(request.parameters.configuration())
        is_built_in = request.strategy in self.server.known_approaches
        client = self.upstream.client(request, run, plain=is_built_in)
        limits = limited.token_limits(request.strategy, body.token_limits(), request.answer_tokens)
        with accounting.attributed_to(request, run):
            result, _tokens = self.server.execute_single_approach(
                request.strategy,
                said.system,
                said.query,
                client,
                request.base_model,
                {"stream": False, "n": body.n, **limits, **configuration},
            )
        answering = request.parameters.answering
        # a candidate of `moa` in the place of an empty final text has no format
        found = answers.read(
            result,
            run,
            stops=request.parameters.stops,
            final_only=request.strategy == "moa" and "response_format" in answering,
        )
        # a strategy that swallows the end of its request returns what it likes
        if found and all(found) and request.aborted is None:
            request.finished[run.place] = [answer for answer in found if answer is not None]
        return found
