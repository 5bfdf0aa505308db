"""Responses in the format of OpenAI's API: errors, completions, streams."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

from werkzeug.wrappers import Response

from . import GUARD_VERSION, ledger

_TYPES = {401: "authentication_error", 429: "rate_limit_error"}


class Refused(Exception):
    """The guard refuses a request: a 4xx or 503 in OpenAI's format."""

    def __init__(
        self, status: int, code: str, message: str, headers: dict[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.status, self.code, self.message, self.headers = status, code, message, headers or {}


class Failure(Response):  # type: ignore[misc]
    """An error response with its code."""

    code = ""


def error(status: int, code: str, message: str, headers: dict[str, str] | None = None) -> Failure:
    """The response `{"error": {"message", "type", "param", "code"}}` with this status."""
    kind = _TYPES.get(status, "invalid_request_error" if status < 500 else "upstream_error")
    body = {"error": {"message": message, "type": kind, "param": None, "code": code}}
    response = Failure(
        json.dumps(body),
        status,
        mimetype="application/json",
        headers={"x-optillm-guard": GUARD_VERSION, **(headers or {})},
    )
    response.code = code
    return response


def facts(request: ledger.Request, dropped: list[str]) -> dict[str, str]:
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
    if dropped:
        headers["x-optillm-dropped"] = ",".join(dropped)
    return headers


def usage(request: ledger.Request) -> dict[str, Any]:
    """The token counts: the sums over all upstream calls."""
    prompt, completion = request.total("prompt_tokens"), request.total("completion_tokens")
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "completion_tokens_details": {"reasoning_tokens": request.total("reasoning_tokens")},
    }


def completion(request: ledger.Request, model: str, texts: list[str]) -> dict[str, Any]:
    """A chat.completion with one choice for each text."""
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
                "finish_reason": "stop",
            }
            for index, text in enumerate(texts)
        ],
        "usage": usage(request),
    }


def stream(whole: dict[str, Any], include_usage: bool) -> Iterator[bytes]:
    """A completion as server-sent events. With `include_usage`, the last chunk has the usage."""
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
        one = {"index": choice["index"], "logprobs": None}
        yield event({**head, "choices": [{**one, "delta": delta, "finish_reason": None}]})
        yield event(
            {**head, "choices": [{**one, "delta": {}, "finish_reason": choice["finish_reason"]}]}
        )
    if include_usage:
        yield event({**head, "choices": [], "usage": whole["usage"]})
    yield b"data: [DONE]\n\n"
