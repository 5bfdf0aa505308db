"""Responses in the format of OpenAI's API: errors, completions, streams."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from . import accounting, statuses

#: Seconds in the header Retry-After of a 503.
RETRY_AFTER = 5
#: Statuses of the upstream for which a retry cannot help.
_FINAL = {400, 401, 403, 404, 413, 415, 421, 422}
_TYPES = {401: "authentication_error", 429: "rate_limit_error"}
_JSON = "application/json"


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
    """A response. `body`: whole, or in parts for a stream. `code`: the code of an error, or ""."""

    body: bytes | list[bytes]
    status: int = 200
    content_type: str = _JSON
    headers: dict[str, str] = field(default_factory=dict)
    code: str = ""


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


def aborted(reason: accounting.Abort) -> Response:
    """The error of a request that the guard ended."""
    retry = (
        {"Retry-After": str(RETRY_AFTER)} if reason.status == 503 else {"x-should-retry": "false"}
    )
    return error(statuses.harmless(reason.status, reason.code), reason.code, reason.message, retry)


def failure(request: accounting.Request) -> Response:
    """The error of a strategy without an answer."""
    failures = request.failures
    if not failures:
        return _without_text(request)
    # the first failure is the cause: after a 401, LiteLLM answers 429 for a while by itself
    first = failures[0]
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
            "raise max_tokens",
            no_retry,
        )
    if any(call.filtered for call in request.calls):
        # the same question would be filtered again
        message = f"{said}: a content filter removed the text (finish_reason: content_filter)"
        return error(400, "answer_filtered", message, no_retry)
    if last is not None and last.empty:
        return error(502, "strategy_failed", f"{said}: the model returned an empty text")
    return error(502, "strategy_failed", f"{said} from the upstream's responses")


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
    if dropped:
        headers["x-optillm-dropped"] = ",".join(dropped)
    return headers


def effect_headers(request: accounting.Request) -> dict[str, str]:
    """The headers about the effect of the strategy. None of them has a part of a text."""
    judged = request.judgement
    headers = {}
    if request.fixed:
        headers["x-optillm-fixed"] = ",".join(sorted(request.fixed))
    if judged is None:
        return headers
    headers["x-optillm-effect"] = judged.effect
    if judged.codes:
        headers["x-optillm-degraded"] = ",".join(judged.codes)
    if judged.samples:
        headers["x-optillm-samples"] = "/".join(map(str, judged.samples))
    if judged.ratings:
        headers["x-optillm-ratings"] = json.dumps(
            [int(one) if one is not None and one == int(one) else one for one in judged.ratings]
        )
    if judged.agreement:
        headers["x-optillm-agreement"] = "/".join(map(str, judged.agreement))
    if judged.evidence:
        headers["x-optillm-evidence"] = "; ".join(judged.evidence)
    return headers


def usage(request: accounting.Request) -> dict[str, Any]:
    """The token counts: the sums over all upstream calls."""
    prompt, completion = request.total("prompt_tokens"), request.total("completion_tokens")
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "completion_tokens_details": {"reasoning_tokens": request.total("reasoning_tokens")},
    }


def completion(request: accounting.Request, model: str, texts: list[str]) -> dict[str, Any]:
    """A chat.completion with one choice for each text."""
    finishes = [*request.finishes, *["stop"] * len(texts)]
    return {
        "id": f"chatcmpl-{request.id}",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": model,
        "choices": [
            {
                "index": index,
                "message": {"role": "assistant", "content": text, "refusal": None},
                "logprobs": None,
                "finish_reason": finish,
            }
            for index, (text, finish) in enumerate(zip(texts, finishes, strict=False))
        ],
        "usage": usage(request),
    }


def stream(whole: dict[str, Any], include_usage: bool) -> Response:
    """A completion as server-sent events. With `include_usage`, the last chunk has the usage."""
    return Response(list(_events(whole, include_usage)), content_type="text/event-stream")


def _events(whole: dict[str, Any], include_usage: bool) -> Iterator[bytes]:
    head = {
        "id": whole["id"],
        "object": "chat.completion.chunk",
        "created": whole["created"],
        "model": whole["model"],
    }
    if include_usage:
        head["usage"] = None

    def event(chunk: dict[str, Any]) -> bytes:
        return b"data: " + json.dumps(chunk).encode() + b"\n\n"

    for choice in whole["choices"]:
        delta = {"role": "assistant", "content": choice["message"]["content"]}
        first = {"index": choice["index"], "logprobs": None}
        yield event({**head, "choices": [{**first, "delta": delta, "finish_reason": None}]})
        yield event(
            {**head, "choices": [{**first, "delta": {}, "finish_reason": choice["finish_reason"]}]}
        )
    if include_usage:
        yield event({**head, "choices": [], "usage": whole["usage"]})
    yield b"data: [DONE]\n\n"
