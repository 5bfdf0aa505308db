"""A strategy's client that keeps its steps working with real models.

Each fix answers one way in which a strategy of OptiLLM loses its effect (see `judgement`). It can
be turned off, and then the calls and answers are those of OptiLLM's own functions. Every exchange
is recorded either way.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from types import SimpleNamespace
from typing import Any, TypeVar

from . import (
    accounting,
    ahead,
    exchanges,
    likely_ratings,
    ratings,
    thinking,
    tool_calls,
    traces,
)
from .completions import Completion, Usage
from .exchanges import Exchange, Run, Sample
from .live import LiveText, Progress
from .settings import BUDGET_TOKENS, FIXES
from .support import RatingSupport, SampleSupport
from .threads import Job, Threads

T = TypeVar("T")
#: What LiteLLM reads as "do not answer from the cache". It does not send it on.
_NO_CACHE = {"no-cache": True}
#: Steps whose text is read by the strategy, and not by the client.
_INNER = ("critique", "rating", "observations", "derived observations", "solution")
#: Steps of which a part is better than nothing: OptiLLM throws it away.
_USEFUL_IN_PART = ("critique", "observations", "derived observations", "solution", "final")
#: The strategies that throw a final text away. Others send it on as it is.
_LOSE_FINAL = ("moa", "plansearch")
#: Strategies whose answer is the text of their last call.
_LIVE = ("moa", "plansearch", "re2", "rto", "none")
#: Arguments of the client that are no part of a body.
_OPTIONS = ("timeout", "extra_headers", "extra_query")
#: Statuses with which an upstream refuses a body.
_REFUSALS = (400, 404, 422)
#: Characters of an unreadable rating that are sent back to the model.
_QUOTED = 2000

#: Sends a body; returns the JSON of a completion.
Send = Callable[[dict[str, Any], accounting.Sending], dict[str, Any]]


@dataclass(frozen=True)
class Policy:
    """The fixes that are on, and the token limits of the steps `critique` and `rating`."""

    fixes: frozenset[str] = frozenset(FIXES)
    budgets: Mapping[str, int] = field(default_factory=lambda: dict(BUDGET_TOKENS))


def _outcome(call: Callable[[], T]) -> T | Exception:
    try:
        return call()
    except Exception as error:
        return error


@dataclass(frozen=True)
class _Outcome:
    """A call of the strategy that has ended: its answer, or what it raised."""

    exchange: Exchange
    answer: dict[str, Any] | Exception


class FixedClient:
    """An OpenAI client for one request: `chat.completions.create`.

    `send` makes one upstream call. Any thread of the strategy may use the client.
    """

    def __init__(
        self,
        request: accounting.Request,
        run: Run,
        policy: Policy,
        support: tuple[SampleSupport, RatingSupport],
        send: Send,
        threads: Threads,
    ) -> None:
        self._request, self._run = request, run
        self._policy, self._send = policy, send
        self._support, self._schemas = support
        self._lock = threading.Lock()
        self._threads = threads
        self._ahead: ahead.Ahead[_Outcome] = ahead.Ahead(threads, self._perform, self._others)
        is_shown = request.live is not None and request.live.shows_progress
        self._progress = Progress(request.live, run) if is_shown and request.live else None
        self.chat = SimpleNamespace(completions=SimpleNamespace(create=self._create))

    def _has(self, fix: str) -> bool:
        return fix in self._policy.fixes

    def _fixed(self, fix: str) -> None:
        self._request.fixed.add(fix)

    def _create(self, *, extra_body: dict[str, Any] | None = None, **arguments: Any) -> Completion:
        outcome = self._ahead.call({**arguments, **(extra_body or {})})
        exchange, answer = outcome.exchange, outcome.answer
        # in the order of the strategy, whatever the order of the calls was
        self._run.exchanges.append(exchange)
        if isinstance(answer, Exception):
            raise answer
        if exchange.step == "candidate" and exchange.asked == 1 and self._refused_several():
            self._support.remember(self._request.base_model)
        return Completion(answer)

    def _others(self, asked: dict[str, Any]) -> list[dict[str, Any]]:
        samples = int(self._request.options.values.get("samples", 5))
        others = ahead.expected(self._request.strategy, asked, self._run.exchanges, samples)
        if self._progress is not None:
            step = traces.purpose(self._request.strategy, asked.get("messages"))
            made = sum(one.step == step for one in self._run.exchanges)
            self._progress.expect(step, made + 1 + len(others))
        return others if self._request.parallel_calls > 1 else []

    def _refused_several(self) -> bool:
        """Whether the model refused a call for several samples, and not for what it said."""
        return any(one.asked > 1 and one.refused for one in self._run.exchanges)

    def _perform(self, asked: dict[str, Any], number: int) -> _Outcome:
        """Make a call of the strategy. `number`: how many equal ones there were before."""
        body = {name: value for name, value in asked.items() if name not in _OPTIONS}
        step = traces.purpose(self._request.strategy, body.get("messages"))
        count = _number(body.get("n")) or 1
        question, limit = ahead.question({**body, "n": 1}), _number(body.get("max_tokens")) or 0
        exchange = Exchange(step, count, question=question, limit=limit)
        sending = accounting.Sending(
            asked.get("timeout"),
            asked.get("extra_headers") or {},
            exchange.calls,
            self._live_text(step, count),
            step,
        )
        is_whole = self._request.conversation.is_whole_in(body.get("messages"))
        call = _Call(self, exchange, sending, is_whole, number * count)
        started = time.monotonic()
        answer = _outcome(lambda: self._answer(call, self._with_budget(step, body), body))
        exchange.failed = isinstance(answer, Exception)
        exchange.refused = getattr(answer, "status_code", 0) in _REFUSALS
        if self._progress is not None:
            seconds = time.monotonic() - started
            self._progress.step_ended(step, count, seconds, failed=exchange.failed)
        return _Outcome(exchange, answer)

    def _live_text(self, step: str, count: int) -> LiveText | None:
        """Where the text of this call goes while the model writes it, if it is the answer."""
        live, strategy = self._request.live, self._request.strategy
        if live is None or count > 1 or strategy not in _LIVE:
            return None
        if step != "final" and strategy != "none":
            return None
        # a text that no model ends is ended when it is whole
        parameters = self._request.parameters
        if parameters.stops and not parameters.answers(step, is_whole=False):
            return None
        # without this fix OptiLLM may throw the text away
        if strategy in _LOSE_FINAL and not self._has("budgets"):
            return None
        return LiveText(live, self._run.place)

    def _answer(self, call: _Call, body: dict[str, Any], asked: dict[str, Any]) -> dict[str, Any]:
        """What the strategy gets, recorded."""
        exchange = call.exchange
        data = self._sampled(call, body)
        if exchange.step == "rating" and self._has("ratings"):
            data = self._rated(call, body, data)
        data = self._read(exchange, data)
        if self._has("budgets"):
            data = self._as_far_as_it_goes(exchange, data)
            if body.get("max_tokens") != asked.get("max_tokens") and (
                exchange.completion_tokens > (_number(asked.get("max_tokens")) or 0)
            ):
                self._fixed("budgets")
        exchange.samples = exchanges.samples_of(data)
        return data

    # budgets

    def _with_budget(self, step: str, asked: dict[str, Any]) -> dict[str, Any]:
        """A body with a limit that an answer of this step fits into. It is never lowered.

        The client's own limit is the most.
        """
        own = _number(asked.get("max_tokens"))
        if not self._has("budgets") or step not in self._policy.budgets or not own:
            return asked
        wanted = self._policy.budgets[step]
        if self._request.max_tokens:
            wanted = min(wanted, self._request.max_tokens)
        return {**asked, "max_tokens": max(own, wanted)}

    def _as_far_as_it_goes(self, exchange: Exchange, data: dict[str, Any]) -> dict[str, Any]:
        """Let a strategy use a text that the limit ended."""
        is_passed_on = exchange.step == "final" and self._request.strategy not in _LOSE_FINAL
        if exchange.step not in _USEFUL_IN_PART or is_passed_on:
            return data
        samples = exchanges.samples_of(data)
        if not any(sample.is_truncated and not sample.is_empty for sample in samples):
            return data
        exchange.cut = True
        self._fixed("budgets")
        return _with_choices(data, [_as_ended(choice) for choice in data["choices"]])

    # samples

    def _sampled(self, call: _Call, body: dict[str, Any]) -> dict[str, Any]:
        """A completion with as many usable choices as were asked for, if that can be had."""
        count, model = call.exchange.asked, str(body.get("model"))
        if not self._has("samples") or (count == 1 and call.exchange.step != "candidate"):
            return call.send(body)
        single = {name: value for name, value in body.items() if name != "n"}
        if count > 1 and self._support.is_missing(model):
            self._fixed("samples")
            return self._several(call, single, count, None)
        data = call.send(body)
        samples = exchanges.samples_of(data)
        if 0 < len(samples) < count:
            self._support.remember(model)
        lost = [sample for sample in samples if sample.is_empty]
        # the same limit or filter would end the next one, too
        final = sum(one.is_truncated or one.is_filtered or one.is_refused for one in lost)
        missing = count - (len(samples) - len(lost)) - final
        return self._several(call, single, missing, data) if missing > 0 else data

    def _several(
        self, call: _Call, single: dict[str, Any], count: int, first: dict[str, Any] | None
    ) -> dict[str, Any]:
        """The usable choices of a first completion, and of `count` more.

        Raises:
            Exception: there is no first one, and every call failed.
        """
        known = len(exchanges.samples_of(first)) if first is not None else 0
        jobs = [
            Job(self._threads, partial(_outcome, partial(call.send, single, known + place)))
            for place in range(count)
        ]
        results = [job.result() for job in jobs]
        more = [result for result in results if isinstance(result, dict)]
        if first is None and not more:
            raise next(result for result in results if isinstance(result, Exception))
        whole = [data for data in (first, *more) if data is not None]
        choices = [choice for data in whole for choice in _choices(data)]
        good = [choice for choice in choices if not _sample(choice).is_empty]
        if first is not None and len(good) > len(
            [sample for sample in exchanges.samples_of(first) if not sample.is_empty]
        ):
            self._fixed("samples")
        return _with_choices(whole[0], good or choices, _usage(whole))

    # ratings

    def _rated(self, call: _Call, body: dict[str, Any], data: dict[str, Any]) -> dict[str, Any]:
        """A completion with a bare number as its text, if the model rated at all."""
        first = _first_text(data)
        if ratings.is_bare(first) and not any(
            sample.is_truncated for sample in exchanges.samples_of(data)
        ):
            return data
        value, answers = ratings.read(first), [data]
        if value is None:
            value = self._rated_again(call, body, first, answers)
            data = _with_choices(data, _choices(data), _usage(answers))
        if value is None:
            return data
        self._fixed("ratings")
        rated = {**_as_text(_choices(data), f"{value:g}"), "finish_reason": "stop"}
        return _with_choices(data, [rated])

    def _rated_again(
        self, call: _Call, body: dict[str, Any], said: str, answers: list[dict[str, Any]]
    ) -> float | None:
        """The rating of a model that did not rate. What it answers is added to `answers`."""
        again = _outcome(lambda: call.send({**body, "messages": _again(body, said)}))
        if not isinstance(again, dict):
            return None
        answers.append(again)
        value = ratings.read(_first_text(again))
        model = str(body.get("model"))
        if value is not None or self._schemas.is_missing(model):
            return value
        forced = _outcome(lambda: call.send({**body, **likely_ratings.FIELDS}, unstreamed=True))
        if isinstance(forced, dict):
            answers.append(forced)
            choice = next(iter(_choices(forced)), {})
            value = likely_ratings.read(_first_text(forced), choice.get("logprobs"))
        if value is None:
            self._schemas.remember(model)
        return value

    # thinking

    def _read(self, exchange: Exchange, data: dict[str, Any]) -> dict[str, Any]:
        """A completion as the strategy may read it: without thinking, and `null` for no text."""
        is_inner = exchange.step in (*_INNER, "candidate")
        exchange.completion_tokens = Usage.of(data).completion_tokens
        if not is_inner:
            return data
        choices = _choices(data)
        read = [self._read_choice(choice) for choice in choices]
        return data if read == choices else _with_choices(data, read)

    def _read_choice(self, choice: dict[str, Any]) -> dict[str, Any]:
        text = _sample(choice).text
        bare = thinking.without(text) if self._has("thinking") else text
        if bare != text:
            self._fixed("thinking")
            if bare.strip():
                self._run.originals[bare.strip()] = text
        is_lost = not bare.strip() and self._has("samples")
        if bare == text and not is_lost:
            return choice
        # 0.3.12 compares samples without looking for null
        nothing = "" if self._request.strategy == "self_consistency" else None
        return _as_text([choice], nothing if is_lost else bare)

    # caches

    def _uncached(self, body: dict[str, Any]) -> dict[str, Any]:
        """A body that LiteLLM does not answer from its cache if it was sent before."""
        question = ahead.question(body)
        with self._lock:
            is_new = question not in self._request.questions
            self._request.questions.add(question)
        if is_new or not self._has("caches"):
            return body
        self._fixed("caches")
        return {**body, "cache": _NO_CACHE}

    def send(self, call: _Call, body: dict[str, Any], sample: int) -> dict[str, Any]:
        """One upstream call, with the client's parameters. `sample`: of the same question.

        Raises:
            ValueError: the answer is no completion.
        """
        data = self._send(self._uncached(self._parametrised(call, body, sample)), call.sending)
        Completion(data)  # raises
        has_tools = self._request.parameters.has_tools
        return tool_calls.as_text(data, self._run.called) if has_tools else data

    def _parametrised(self, call: _Call, body: dict[str, Any], sample: int) -> dict[str, Any]:
        request, step = self._request, call.exchange.step
        temperature = request.options.candidate_temperature
        if temperature is not None and step == "candidate":
            body = {**body, "temperature": temperature}
        return request.parameters.of_call(
            body,
            answers=request.parameters.answers(step, is_whole=call.is_whole),
            has_tool_calls=call.is_whole and request.conversation.has_tool_calls,
            number=self._run.first_sample + call.number + sample,
        )


@dataclass(frozen=True)
class _Call:
    """A call of the strategy: what is sent for it belongs to its exchange.

    `is_whole`: it passes the conversation on. `number`: that of its first sample among those of the
    same question.
    """

    client: FixedClient
    exchange: Exchange
    sending: accounting.Sending
    is_whole: bool
    number: int

    def send(
        self, body: dict[str, Any], sample: int = 0, *, unstreamed: bool = False
    ) -> dict[str, Any]:
        sending = replace(self.sending, is_whole=True) if unstreamed else self.sending
        return self.client.send(replace(self, sending=sending), body, sample)


def _number(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _choices(data: dict[str, Any]) -> list[dict[str, Any]]:
    choices = data.get("choices")
    return [one for one in choices if isinstance(one, dict)] if isinstance(choices, list) else []


def _sample(choice: dict[str, Any]) -> Sample:
    return exchanges.samples_of({"choices": [choice]})[0]


def _first_text(data: dict[str, Any]) -> str:
    samples = exchanges.samples_of(data)
    return samples[0].text if samples else ""


def _with_choices(
    data: dict[str, Any], choices: list[dict[str, Any]], usage: dict[str, Any] | None = None
) -> dict[str, Any]:
    numbered = [{**choice, "index": place} for place, choice in enumerate(choices)]
    return {**data, "choices": numbered, **({"usage": usage} if usage else {})}


def _as_ended(choice: dict[str, Any]) -> dict[str, Any]:
    sample = _sample(choice)
    is_part = sample.is_truncated and not sample.is_empty
    return {**choice, "finish_reason": "stop"} if is_part else choice


def _as_text(choices: list[dict[str, Any]], text: str | None) -> dict[str, Any]:
    """The first choice with another text."""
    choice = choices[0] if choices else {"message": {"role": "assistant"}}
    message = choice.get("message")
    message = message if isinstance(message, dict) else {"role": "assistant"}
    return {**choice, "message": {**message, "content": text}}


def _usage(completions: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The token counts of several completions as those of one."""
    counts = list(map(Usage.of, completions))
    names = ("prompt_tokens", "completion_tokens", "total_tokens")
    sums = {name: sum(getattr(usage, name) for usage in counts) for name in names}
    reasoning = sum(usage.reasoning_tokens for usage in counts)
    return {**sums, "completion_tokens_details": {"reasoning_tokens": reasoning}}


def _again(body: dict[str, Any], said: str) -> list[dict[str, str]]:
    """The messages of a rating, with what the model said and a request for the number alone."""
    messages = list(body.get("messages") or [])
    if not said.strip():
        last = messages[-1]
        return [*messages[:-1], {**last, "content": f"{last['content']}\n{ratings.ASK_AGAIN}"}]
    quoted = thinking.without(said).strip()[-_QUOTED:] or said.strip()[-_QUOTED:]
    return [
        *messages,
        {"role": "assistant", "content": quoted},
        {"role": "user", "content": ratings.ASK_AGAIN},
    ]
