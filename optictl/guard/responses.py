"""Responses in the format of OpenAI's API: errors, completions, streams."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from . import (
    accounting,
    conversation,
    costs,
    limited,
    refusals,
    statuses,
    tool_calls,
    traces,
)
from .answers import Answer
from .live import Part

#: Seconds in the header Retry-After of a 503.
RETRY_AFTER = 5
#: Statuses of the upstream for which a retry cannot help.
_FINAL = {400, 401, 403, 404, 413, 415, 421, 422}
_TYPES = {401: "authentication_error", 429: "rate_limit_error"}
_JSON = "application/json"
EVENTS = "text/event-stream"
#: Characters of a chunk of a text that is there as a whole: some clients read line by line into a
#: buffer of a fixed size.
_PIECE = 2000


class Refused(Exception):
    """The guard refuses a request: a 4xx or 503 in OpenAI's format.

    `param`: the field of the body that is wrong.
    """

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        headers: dict[str, str] | None = None,
        param: str | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.code, self.message, self.headers = status, code, message, headers or {}
        self.param = param


@dataclass
class Response:
    """A response. `body`: whole, or in parts for a stream. `code`: the code of an error, or "".

    `completion`: the JSON of a strategy's answer.
    """

    body: bytes | list[bytes] | AsyncIterator[bytes]
    status: int = 200
    content_type: str = _JSON
    headers: dict[str, str] = field(default_factory=dict)
    code: str = ""
    completion: dict[str, Any] | None = None


def as_json(data: Any) -> Response:
    """A 200 with JSON."""
    return Response(json.dumps(data).encode())


def error_body(status: int, code: str, message: str, param: str | None = None) -> bytes:
    """The JSON `{"error": {"message", "type", "param", "code"}}`."""
    kind = _TYPES.get(status, "invalid_request_error" if status < 500 else "upstream_error")
    body = {"error": {"message": message, "type": kind, "param": param, "code": code}}
    return json.dumps(body).encode()


def error(
    status: int,
    code: str,
    message: str,
    headers: dict[str, str] | None = None,
    param: str | None = None,
) -> Response:
    """The error response with this status."""
    body = error_body(status, code, message, param)
    return Response(body, status, _JSON, dict(headers or {}), code)


def come_back(code: str, what: str) -> Refused:
    """A 503 that asks the client to try again."""
    return Refused(503, code, f"{what}; try again later", {"Retry-After": str(RETRY_AFTER)})


def ended(request: accounting.Request, reason: accounting.Abort) -> Response:
    """The error of a request that the guard ended. At a limit, it names what was finished."""
    finished = costs.done(request) if reason.code == "upstream_call_limit" else ""
    message = f"{reason.message}; finished by then: {finished}" if finished else reason.message
    retry = (
        {"Retry-After": str(RETRY_AFTER)} if reason.status == 503 else {"x-should-retry": "false"}
    )
    return error(statuses.harmless(reason.status), reason.code, message, retry)


def failure(request: accounting.Request) -> Response:
    """The error of a strategy without an answer."""
    first = request.cause
    if first is None:
        return _without_text(request)
    said = (
        f"the upstream answered {first.status}" if first.status else "the upstream did not answer"
    )
    message = f"{said}: {first.error}" if first.error else said
    headers = {"x-should-retry": "false"} if first.status in _FINAL else {}
    if first.status == 429:
        if first.retry_after:
            headers["Retry-After"] = first.retry_after
        return error(429, "upstream_rate_limited", message, headers)
    if first.status == 421:
        return error(421, "loop_detected", message, headers)
    if refusals.is_about_request(first):
        return error(first.status, first.code, message, headers)
    if first.status == 503 and first.retry_after:
        headers["Retry-After"] = first.retry_after
        return error(503, "upstream_failed", message, headers)
    return error(502, "upstream_failed", message, headers)


def _without_text(request: accounting.Request) -> Response:
    """The error of a strategy whose calls all had responses, with the reason that they give."""
    last = request.calls[-1] if request.calls else None
    no_retry = {"x-should-retry": "false"}
    said = f"{request.strategy} made no answer"
    if any(call.truncated for call in request.calls):
        # not a 5xx: LiteLLM repeats those, and the same limit would cut the answer again
        thought = max(call.reasoning_tokens for call in request.calls)
        after = f" after {thought} reasoning tokens" if thought else ""
        return error(
            400,
            "answer_truncated",
            f"{said}: the model reached the token limit{after} (finish_reason: length); "
            f"{_remedy(request)}",
            no_retry,
        )
    if any(call.filtered for call in request.calls):
        # the same question would be filtered again
        message = f"{said}: a content filter removed the text (finish_reason: content_filter)"
        return error(400, "answer_filtered", message, no_retry)
    if last is not None and last.empty:
        return error(502, "strategy_failed", f"{said}: the model returned an empty text")
    return error(502, "strategy_failed", f"{said} from the upstream's responses")


def _remedy(request: accounting.Request) -> str:
    if limited.ANSWER_TOKENS not in request.limited_by:
        return "raise max_tokens"
    own = f"{limited.ANSWER_TOKENS} ({request.answer_tokens})"
    return f"send max_tokens, or raise {own} of the service"


def call_headers(request: accounting.Request, dropped: list[str]) -> dict[str, str]:
    """The `x-optillm-*` headers: the upstream calls of this request. Times in ms."""
    calls = request.calls
    headers = {
        "x-optillm-trace": request.id,
        "x-optillm-strategy": request.strategy,
        "x-optillm-upstream-calls": str(len(calls)),
        "x-optillm-upstream-failures": str(len(request.failures)),
        "x-optillm-upstream-models": ",".join(sorted({call.model for call in calls})),
        "x-optillm-upstream-ms": str(round(1000 * sum(call.seconds for call in calls))),
        "x-optillm-upstream-completions": str(sum(call.completions for call in calls)),
        "x-optillm-tokens": str(
            request.total("prompt_tokens") + request.total("completion_tokens")
        ),
    }
    headers.update(effect_headers(request))
    if request.limited_by:
        headers["x-optillm-limited-by"] = ",".join(request.limited_by)
    if dropped:
        headers["x-optillm-dropped"] = ",".join(dropped)
    return headers


def early_headers(request: accounting.Request, dropped: list[str]) -> dict[str, str]:
    """The `x-optillm-*` headers of a stream that begins before the strategy has ended.

    The trace has the rest.
    """
    headers = {"x-optillm-trace": request.id, "x-optillm-strategy": request.strategy}
    return {**headers, **({"x-optillm-dropped": ",".join(dropped)} if dropped else {})}


def effect_headers(request: accounting.Request) -> dict[str, str]:
    """The headers about the effect of the strategy. None of them has a part of a text."""
    return {f"x-optillm-{name}": value for name, value in traces.facts(request).items()}


def usage(request: accounting.Request) -> dict[str, Any]:
    """The token counts: the sums over all upstream calls."""
    prompt, completion = request.total("prompt_tokens"), request.total("completion_tokens")
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": request.total("cached_tokens")},
        "completion_tokens_details": {"reasoning_tokens": request.total("reasoning_tokens")},
    }


def _choice(index: int, answer: Answer) -> dict[str, Any]:
    """A choice of a completion, with what the call of the answer had beside its text."""
    message = {"role": "assistant", "content": answer.text, "refusal": None}
    beside = {name: value for name, value in answer.beside.items() if name != "logprobs"}
    return {
        "index": index,
        "message": {**message, **beside},
        "logprobs": answer.beside.get("logprobs"),
        "finish_reason": answer.finish,
    }


def completion(
    request: accounting.Request, model: str, answers: Sequence[Answer]
) -> dict[str, Any]:
    """A chat.completion with one choice for each answer."""
    return {
        "id": f"chatcmpl-{request.id}",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": model,
        "choices": [_choice(index, answer) for index, answer in enumerate(answers)],
        "usage": usage(request),
        **({"optillm": {"limited_by": request.limited_by}} if request.limited_by else {}),
    }


def _message(text: str, called: dict[str, Any] | None) -> dict[str, Any]:
    """An answer: a text, or calls of tools with the text that the model wrote beside them."""
    if called is None:
        return {"role": "assistant", "content": text, "refusal": None}
    calls = {"tool_calls": tool_calls.of(called)}
    return {"role": "assistant", "content": called.get("content"), "refusal": None, **calls}


def stream(whole: dict[str, Any], include_usage: bool) -> Response:
    """A completion as server-sent events. With `include_usage`, the last chunk has the usage."""
    events = Events(whole["id"], whole["model"], include_usage, whole["created"])
    return Response(list(events.end(whole)), content_type=EVENTS, completion=whole)


class Events:
    """The chunks of one completion as server-sent events, which may come before it is whole.

    `created`: Unix time.
    """

    def __init__(
        self, completion_id: str, model: str, include_usage: bool, created: int | None = None
    ) -> None:
        self._head = {
            "id": completion_id,
            "object": "chat.completion.chunk",
            "created": int(time.time()) if created is None else created,
            "model": model,
            **({"usage": None} if include_usage else {}),
        }
        self._include_usage = include_usage
        self._sent: dict[int, list[str]] = {}
        self._sent_reasoning: dict[int, list[str]] = {}
        self._begun: set[int] = set()

    def part(self, part: Part) -> bytes:
        """A part of an answer."""
        if part.is_reasoning:
            self._sent_reasoning.setdefault(part.index, []).append(part.text)
            return self._chunk(part.index, {"reasoning_content": part.text})
        self._sent.setdefault(part.index, []).append(part.text)
        return self._chunk(part.index, {"content": part.text})

    def end(self, whole: dict[str, Any]) -> Iterator[bytes]:
        """What is not sent yet of a completion, and its end."""
        for choice in whole["choices"]:
            yield from self._rest(choice)
        # after all texts: some readers take the first end for the end of the stream
        for choice in whole["choices"]:
            yield self._chunk(choice["index"], {}, choice["finish_reason"], choice["logprobs"])
        more = {name: whole[name] for name in ("optillm",) if name in whole}
        if self._include_usage:
            yield _event({**self._head, "choices": [], "usage": whole["usage"], **more})
        elif more:
            yield _event({**self._head, "choices": [], **more})
        yield b"data: [DONE]\n\n"

    def _rest(self, choice: dict[str, Any]) -> Iterator[bytes]:
        """What is not sent yet of a choice."""
        index, message = choice["index"], choice["message"]
        text, sent = conversation.text_of(message["content"]), "".join(self._sent.get(index, []))
        thought = message.get("reasoning_content") or ""
        if not sent and thought not in "".join(self._sent_reasoning.get(index, [])):
            yield from self._pieces(index, thought, is_reasoning=True)
        if text.startswith(sent):
            yield from self._pieces(index, text.removeprefix(sent))
        if message["refusal"]:
            yield self._chunk(index, {"refusal": message["refusal"]})
        for delta in tool_calls.chunks(tool_calls.of(message), _PIECE):
            yield self._chunk(index, delta)

    def _pieces(self, index: int, text: str, *, is_reasoning: bool = False) -> Iterator[bytes]:
        for start in range(0, len(text), _PIECE):
            yield self.part(Part(index, text[start : start + _PIECE], is_reasoning))

    def _chunk(
        self, index: int, delta: dict[str, Any], finish: str | None = None, logprobs: Any = None
    ) -> bytes:
        if index not in self._begun:
            self._begun.add(index)
            delta = {"role": "assistant", **delta}
        choice = {"index": index, "logprobs": logprobs, "delta": delta, "finish_reason": finish}
        return _event({**self._head, "choices": [choice]})


def _event(data: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(data).encode() + b"\n\n"


def error_event(response: Response) -> bytes:
    """An error response as an event, for a response whose head was sent before."""
    assert isinstance(response.body, bytes)
    return b"event: error\ndata: " + response.body + b"\n\n"
