"""The promises of the guard, as cases of the conformance run: a request, and the judge of it."""

from __future__ import annotations

import queue
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from optictl.deployment import model_names
from optictl.guard.loops import MARK_HEADER
from optictl.host.network import Response
from optictl.proof import evidence, promises
from optictl.proof.attempts import TIMEOUT, Attempts
from optictl.proof.promises import Exchange
from optictl.proof.standin import LABEL, Reply, Seen, completion

_DOWN = Reply(503, {"error": {"message": "the stand-in is down", "code": "503"}})
#: Plugins of OptiLLM that need more than the answers of the stand-in: a local model, one from the
#: network, or a long context.
_NOT_SERVED = frozenset({"json", "longcepo", "memory", "privacy", "router", "spl"})


@dataclass(frozen=True)
class Case:
    """One promise. `attempt` returns what is wrong, or ""."""

    name: str
    attempt: Callable[[Attempts], str]


def tried(strategies: Sequence[str]) -> list[str]:
    """The strategies that the stand-in can serve. None of them acts on the text of a model."""
    return [
        name
        for name in strategies
        if name not in model_names.CODE_EXECUTION and name not in _NOT_SERVED
    ]


def cases(strategies: Sequence[str]) -> Iterator[Case]:
    """The promises of a guard with these strategies. Pure."""
    yield from _lists(strategies)
    for strategy in tried(strategies):
        yield from _strategy_cases(strategy)
    yield from _refusals()
    if first := tried(strategies)[:1]:
        yield _streams(first[0])
        yield _loops(first[0])


# -- what the stand-in answers


def _fail(_seen: Seen) -> Reply:
    return _DOWN


def _same(seen: Seen) -> Reply:
    return Reply(body=completion(seen.body or {}, f"7 The same answer of the {LABEL}."))


def _cut(seen: Seen) -> Reply:
    body = completion(seen.body or {})
    for choice in body["choices"]:
        choice["finish_reason"] = "length"
    return Reply(body=body)


def _cut_to_nothing(seen: Seen) -> Reply:
    """As from a model that spent all its tokens on reasoning."""
    reply = _cut(seen)
    for choice in reply.body["choices"]:
        choice["message"]["content"] = None
    return reply


class _FailLater:
    """The first call is answered, the others fail."""

    def __init__(self) -> None:
        self._calls = 0

    def __call__(self, _seen: Seen) -> Reply | None:
        self._calls += 1
        return None if self._calls == 1 else _DOWN


# -- the cases


def _strategy_cases(strategy: str) -> Iterator[Case]:
    def runs(to: Attempts) -> str:
        done = to.ask(to.named(strategy))
        return promises.ran(done, strategy, to.config.model) or promises.asks_more(
            done, strategy, evidence.PROMPT
        )

    def outage(to: Attempts) -> str:
        return promises.outage(to.ask(to.named(strategy), _fail))

    def late_outage(to: Attempts) -> str:
        return promises.late_outage(to.ask(to.named(strategy), _FailLater()), strategy)

    def truncated(to: Attempts) -> str:
        return promises.truncated(to.ask(to.named(strategy), _cut))

    def nothing_left(to: Attempts) -> str:
        return promises.truncated(to.ask(to.named(strategy), _cut_to_nothing))

    yield Case(f"{strategy} runs", runs)
    yield Case(f"{strategy} reports an outage as 502", outage)
    yield Case(f"{strategy} reports an outage after its first call", late_outage)
    yield Case(f"{strategy} at the token limit gives no error that is retried", truncated)
    yield Case(f"{strategy} without a word before the token limit is no 5xx", nothing_left)


def _streams(strategy: str) -> Case:
    def attempt(to: Attempts) -> str:
        whole = to.ask(to.named(strategy), _same)
        options = {"include_usage": True}
        stream = to.ask(to.named(strategy), _same, stream=True, stream_options=options)
        return promises.streamed(stream.answer, whole.answer)

    return Case("a stream is the same answer", attempt)


def _loops(strategy: str) -> Case:
    def attempt(to: Attempts) -> str:
        came_back: queue.SimpleQueue[Response] = queue.SimpleQueue()

        def come_back(seen: Seen) -> Reply:
            mark = seen.headers.get(MARK_HEADER)
            if mark is None:  # it would go on for ever
                return _DOWN
            body = {**(seen.body or {}), "model": to.named(strategy)}
            answer = to.send(body, headers={MARK_HEADER: mark})
            came_back.put(answer)
            return Reply(answer.status, answer.data)

        outer = to.ask(to.named(strategy), come_back)
        if not any(seen.headers.get(MARK_HEADER) for seen in outer.calls):
            return "no upstream call has the mark of the guard"
        # the guard ends the request behind a call before it answers the call
        return promises.loop(outer, came_back.get(timeout=TIMEOUT))

    return Case("a loop is 421", attempt)


def _refusals() -> Iterator[Case]:
    def refusal(name: str, model: Callable[[Attempts], str], status: int, code: str) -> Case:
        return Case(name, lambda to: promises.refused(to.ask(model(to)), status, code))

    def locked(key: str | None) -> Callable[[Attempts], str]:
        return lambda to: promises.refused(
            to.ask(to.named(to.config.strategies[0]), key=key), 401, "invalid_api_key"
        )

    def list_locked(to: Attempts) -> str:
        return promises.refused(Exchange(to.list_models(key=None)), 401, "invalid_api_key")

    yield Case("a request without a key is 401", locked(None))
    yield Case("a wrong key is 401", locked("wrong"))
    yield Case("/v1/models without a key is 401", list_locked)
    yield refusal(
        "an unknown strategy is 400", lambda to: to.named("unknown"), 400, "strategy_not_enabled"
    )
    yield refusal(
        "a base model without a strategy is 400",
        lambda to: to.config.model,
        400,
        "strategy_prefix_required",
    )


def _lists(strategies: Sequence[str]) -> Iterator[Case]:
    def listed(to: Attempts) -> str:
        return promises.listed(to.list_models(), strategies, to.config.model)

    def down(to: Attempts) -> str:
        return promises.models_down(to.list_models(_fail))

    yield Case("/v1/models lists every strategy", listed)
    yield Case("/v1/models is 502 while the upstream is down", down)
