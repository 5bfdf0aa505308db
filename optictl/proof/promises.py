"""What a release of OptiLLM behind the guard promises: the judges of the conformance run. Pure.

A judge gets what happened and returns what is wrong, or "".
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from optictl.deployment import model_names
from optictl.guard.error_texts import is_error_text
from optictl.guard.loops import MARK_HEADER
from optictl.host.network import Response
from optictl.proof import evidence
from optictl.proof.standin import LABEL, Seen

#: Built-in strategies whose answer has a whole answer of the model in it. `rstar` answers with a
#: number that it reads there, `z3` with the output of a program.
_PASS_ON = frozenset(model_names.BUILT_IN) - {"rstar", "z3"}


@dataclass(frozen=True)
class Exchange:
    """One request to the guard.

    `calls`: what reached the stand-in meanwhile. `completions`, `prompt`, `completed`: the answers
    of the stand-in, and their tokens. `failures`: calls that it answered with an error.
    """

    answer: Response
    calls: Sequence[Seen] = ()
    failures: int = 0
    completions: int = 0
    prompt: int = 0
    completed: int = 0


def _first(problems: Iterator[str]) -> str:
    return next(problems, "")


def _is(exchange: Exchange, status: int, code: str) -> str:
    answer = exchange.answer
    data = answer.data if isinstance(answer.data, dict) else {}
    error = data.get("error")
    if answer.status == status and isinstance(error, dict) and error.get("code") == code:
        return ""
    return f"{_brief(answer)}, not {status} {code}"


def _brief(answer: Response) -> str:
    """An answer in a few words."""
    if answer.status == 200:
        return f"200 with {evidence.content(answer)[:80]!r}"
    return evidence.error_message(answer)[:200]


def ran(exchange: Exchange, strategy: str, base_model: str) -> str:
    """The strategy ran with the calls of its kind, and the headers and the usage say so."""
    return _first(_unproven(exchange, strategy, base_model))


def _unproven(exchange: Exchange, strategy: str, base_model: str) -> Iterator[str]:
    answer, calls = exchange.answer, exchange.calls
    if answer.status != 200:
        yield _brief(answer)
    if not calls:
        yield "it made no upstream call"
    if exchange.completions < least_completions(strategy):
        yield f"{exchange.completions} completion(s) sampled upstream: no strategy ran"
    if others := {seen.model for seen in calls} - {base_model}:
        yield f"a call used the model {', '.join(sorted(others)) or 'without a name'}"
    if not all(seen.headers.get(MARK_HEADER) for seen in calls):
        yield "a call went upstream around the guard"
    yield from _unlike_an_answer(exchange, strategy)
    expected = {
        "strategy": strategy,
        "upstream-calls": str(len(calls)),
        "upstream-failures": "0",
        "upstream-completions": str(exchange.completions),
    }
    for name, value in expected.items():
        if (said := evidence.header(answer, name)) != value:
            yield f"x-optillm-{name} is {said}, not {value}"
    sums = exchange.prompt, exchange.completed
    usage = evidence.usage(answer)
    if (usage["prompt"], usage["completion"]) != sums or usage["total"] != sum(sums):
        yield f"the usage is {usage}, the calls cost {sums[0]} + {sums[1]} tokens"


def least_completions(strategy: str) -> int:
    """How many completions a strategy samples at least. A plugin may do with one."""
    return 2 if strategy in model_names.BUILT_IN and strategy not in evidence.ONE_CALL else 1


def _unlike_an_answer(exchange: Exchange, strategy: str) -> Iterator[str]:
    text = evidence.content(exchange.answer)
    if not text or is_error_text(text):
        yield f"the answer is no answer of the model: {text[:80]!r}"
    if strategy in _PASS_ON and LABEL not in text:
        yield f"the answer does not come from the model: {text[:80]!r}"


def asks_more(exchange: Exchange, strategy: str, question: str) -> str:
    """A strategy with one call has its own prompt: it sends more than the question."""
    sent = exchange.calls[0].body or {} if exchange.calls else {}
    words = sum(len(str(m.get("content") or "").split()) for m in sent.get("messages") or [])
    if strategy in evidence.ONE_CALL and words < evidence.LONGER * len(question.split()):
        return f"it sent {words} words upstream, and the question has {len(question.split())}"
    return ""


def outage(exchange: Exchange) -> str:
    """Every upstream call failed, and the answer says so."""
    if not exchange.calls:
        return "it made no upstream call"
    return _is(exchange, 502, "upstream_failed")


def late_outage(exchange: Exchange, strategy: str) -> str:
    """Calls fail after the first: an error, or an answer of the model that counts the failures."""
    if exchange.answer.status != 200:
        return _is(exchange, 502, "upstream_failed")
    if problem := _first(_unlike_an_answer(exchange, strategy)):
        return problem
    counted = evidence.number(exchange.answer, "upstream-failures")
    if counted != exchange.failures:
        return f"x-optillm-upstream-failures is {counted}, and {exchange.failures} calls failed"
    return ""


def truncated(exchange: Exchange) -> str:
    """Every answer ended at the token limit: a partial answer, or an error that no one retries."""
    return "" if exchange.answer.status == 200 else _is(exchange, 400, "answer_truncated")


def refused(exchange: Exchange, status: int, code: str) -> str:
    """The guard refused, and asked no model."""
    if exchange.calls:
        return f"it made {len(exchange.calls)} upstream call(s)"
    return _is(exchange, status, code)


def loop(exchange: Exchange, inner: Response) -> str:
    """A call that came back as a request (`inner`) is 421, and so is the request behind it."""
    if problem := _is(Exchange(inner), 421, "loop_detected"):
        return f"the call that came back: {problem}"
    return _is(exchange, 421, "loop_detected")


def listed(answer: Response, strategies: Collection[str], base_model: str) -> str:
    """/v1/models has every strategy on the base model that the upstream serves."""
    if answer.status != 200:
        return _brief(answer)
    wanted = {f"{strategy}-{base_model}" for strategy in strategies}
    missing = sorted(wanted - evidence.listed_models(answer))
    return f"{', '.join(missing)} not listed" if missing else ""


def models_down(answer: Response) -> str:
    """/v1/models does not hide that the upstream is down."""
    if answer.status == 200:
        return f"200 with {len(evidence.listed_models(answer))} models, not 502 upstream_failed"
    return _is(Exchange(answer), 502, "upstream_failed")


def streamed(stream: Response, whole: Response) -> str:
    """A stream ends with [DONE], and has the text and the usage of the same answer as a whole."""
    if whole.status != 200:
        return _brief(whole)
    try:
        chunks = _chunks(stream.text)
        text = "".join(_delta(chunk) for chunk in chunks)
        usage = [chunk["usage"] for chunk in chunks if chunk.get("usage")]
    except (ValueError, KeyError, TypeError, AttributeError):
        return f"no stream of chunks: {_brief(stream)}"
    if text != evidence.content(whole):
        return f"its text is {text[:80]!r}, not {evidence.content(whole)[:80]!r}"
    if usage != [whole.data["usage"]]:
        return "its usage is not that of the same answer as a whole"
    return ""


def _chunks(text: str) -> list[dict[str, Any]]:
    """The chunks of a stream.

    Raises:
        ValueError: it is none, or does not end with [DONE].
    """
    *events, last, nothing = text.split("\n\n")
    if (last, nothing) != ("data: [DONE]", "") or not events:
        raise ValueError
    return [json.loads(event.removeprefix("data: ")) for event in events]


def _delta(chunk: dict[str, Any]) -> str:
    return "".join(choice["delta"].get("content") or "" for choice in chunk["choices"])
